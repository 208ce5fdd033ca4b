"""From ranges of system call numbers to the instructions that find a number's answer.

A filter's size is its price: the kernel compiles all of it when it is loaded, at each start of a container, and the
classic BPF of a profile such as docker's is hundreds of answers long. So every answer is written once, and a
comparison jumps right to it; a single number inside a range costs one comparison for equality, not two for order.

A *range* is its first number and its answer; the last one has no end. An answer is code that ends in a return, or
`GO_ON`: whatever stands behind the search.
"""

from .assembler import JA, JEQ, JGE, Instruction

Code = list[Instruction]
GO_ON: Code = []

REACH = 255
"""Instructions that a conditional jump can skip."""
MOST_EXCEPTIONS = 4
"""Single numbers that are tested one after the other before the tree gets a branch more."""


class TooFar(Exception):
    """The end is out of reach of the comparisons that shall go on there."""


class _Area:
    """A range in which single numbers have an answer of their own."""

    __slots__ = ("answer", "exceptions", "first")

    def __init__(self, first: int, answer: Code) -> None:
        self.first = first
        self.answer = answer
        self.exceptions: list[tuple[int, Code]] = []


class _Node:
    """One comparison; where it goes is a node, or an answer."""

    __slots__ = ("at", "code", "k", "no", "yes")

    def __init__(self, code: int, k: int, yes: "_Node | Code", no: "_Node | Code") -> None:
        self.code = code
        self.k = k
        self.yes = yes
        self.no = no
        self.at = 0


def search(ranges: "list[tuple[int, Code]]") -> Code:
    """The code for sorted ``ranges``, the first of which begins at 0; the number is in the accumulator.

    Equal answers must be the same object. Raises TooFar, only where a range shall `GO_ON`.
    """
    return _search(_areas(ranges))


def _areas(ranges: "list[tuple[int, Code]]") -> "list[_Area]":
    found: list[_Area] = []
    index = 0
    while index < len(ranges):
        first, answer = ranges[index]
        area = _Area(first, answer)
        found.append(area)
        index += 1
        while (
            index + 1 < len(ranges)
            and len(area.exceptions) < MOST_EXCEPTIONS
            and ranges[index + 1][0] == ranges[index][0] + 1
            and ranges[index + 1][1] is answer
        ):
            area.exceptions.append(ranges[index])
            index += 2
    return found


def _search(areas: "list[_Area]") -> Code:
    code = _layout(_tree(areas))
    if code is not None:
        return code
    if any(answer is GO_ON for area in areas for answer in (area.answer, *(one for _, one in area.exceptions))):
        raise TooFar
    if len(areas) == 1:
        return _one_by_one(areas[0])
    middle = len(areas) // 2
    left, right = _search(areas[:middle]), _search(areas[middle:])
    # JA reaches any distance.
    return [Instruction(JGE, areas[middle].first, skip_false=1), Instruction(JA, len(left)), *left, *right]


def _one_by_one(area: _Area) -> Code:
    """Answers that are too long for a jump over them."""
    code = list(area.answer)
    for number, answer in reversed(area.exceptions):
        code = [Instruction(JEQ, number, skip_true=1), Instruction(JA, len(answer)), *answer, *code]
    return code


def _tree(areas: "list[_Area]") -> "_Node | Code":
    if len(areas) > 1:
        middle = len(areas) // 2
        return _Node(JGE, areas[middle].first, _tree(areas[middle:]), _tree(areas[:middle]))
    place: _Node | Code = areas[0].answer
    for number, answer in reversed(areas[0].exceptions):
        place = _Node(JEQ, number, answer, place)
    return place


def _layout(root: "_Node | Code") -> "Code | None":
    """Comparisons first, then each answer once; None when one of the jumps would be too far."""
    nodes: list[_Node] = []
    answers: dict[int, Code] = {}
    pending = [root]
    while pending:
        place = pending.pop()
        if isinstance(place, _Node):
            place.at = len(nodes)
            nodes.append(place)
            pending += (place.yes, place.no)
        elif place is not GO_ON:
            answers.setdefault(id(place), place)
    starts: dict[int, int] = {}
    end = len(nodes)
    for key, answer in answers.items():
        starts[key] = end
        end += len(answer)

    def skip(place: "_Node | Code", here: int) -> int:
        if isinstance(place, _Node):
            return place.at - here - 1
        return (end if place is GO_ON else starts[id(place)]) - here - 1

    code: Code = []
    for node in nodes:
        yes, no = skip(node.yes, node.at), skip(node.no, node.at)
        if max(yes, no) > REACH:
            return None
        code.append(Instruction(node.code, node.k, skip_true=yes, skip_false=no))
    for answer in answers.values():
        code += answer
    return code
