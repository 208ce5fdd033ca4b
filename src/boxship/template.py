"""Go templates, as far as ``--format`` uses them (text/template's grammar, docker's functions).

``{{.A.B}}``, pipelines, ``if``/``else``/``range``/``with``/``end``, variables, comments and trimming, ``index len
json join split lower upper title println printf eq ne lt gt and or not pad truncate``.
A template is parsed into a small tree once and then run on each row.
"""

from __future__ import annotations

import json
import re

from boxship.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Node = tuple[Any, ...]

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r"""\s*("(?:\\.|[^"\\])*"|`[^`]*`|:=|\||\(|\)|,|[^\s|(),]+)""")


class TemplateError(InvalidArgument):
    """A --format that cannot be parsed or run."""


def parse(text: str) -> Template:
    """Raises TemplateError."""
    items: list[tuple[str, str]] = []
    at = 0
    trim = False
    for match in _ACTION.finditer(text):
        literal = text[at : match.start()]
        if trim:
            literal = literal.lstrip()
        if match[1]:
            literal = literal.rstrip()
        if literal:
            items.append(("text", literal))
        items.append(("action", match[2].strip()))
        trim = bool(match[3])
        at = match.end()
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError("template parsing error: template: :1: unclosed action")
    if rest:
        items.append(("text", rest.lstrip() if trim else rest))
    nodes, left = _block(items, 0)
    if left != len(items):
        raise TemplateError("template parsing error: unexpected {{end}} or {{else}}")
    return Template(nodes)


def _block(items: list[tuple[str, str]], at: int) -> tuple[list[Node], int]:
    """Nodes up to the ``end`` or ``else`` that closes the block, and where that is."""
    nodes: list[Node] = []
    while at < len(items):
        kind, text = items[at]
        word = text.split(None, 1)[0] if kind == "action" and text else ""
        if kind == "text":
            nodes.append(("text", text))
            at += 1
        elif word in ("end", "else"):
            break
        elif word in ("if", "range", "with"):
            node, at = _control(items, at, word)
            nodes.append(node)
        else:
            if not text.startswith("/*"):
                names, pipeline = _declared(text)
                nodes.append(("set" if names else "print", names, pipeline))
            at += 1
    return nodes, at


def _control(items: list[tuple[str, str]], at: int, word: str) -> tuple[Node, int]:
    """One if, range or with, its ``end`` included; an ``else if`` shares the end of the if before it."""
    names, pipeline = _declared(items[at][1][len(word) :])
    body, at = _block(items, at + 1)
    other: list[Node] = []
    if at < len(items) and items[at][1].startswith("else"):
        condition = items[at][1][4:].strip()
        if condition.startswith("if"):
            items[at] = ("action", condition)
            nested, at = _control(items, at, "if")
            return (word, names, pipeline, body, [nested]), at
        other, at = _block(items, at + 1)
    if at >= len(items) or items[at][1] != "end":
        raise TemplateError(f"template parsing error: {{{{{word}}}}} without {{{{end}}}}")
    return (word, names, pipeline, body, other), at + 1


def _declared(text: str) -> tuple[list[str], Node]:
    tokens = _TOKEN.findall(text)
    names: list[str] = []
    if ":=" in tokens:
        split = tokens.index(":=")
        names = [token for token in tokens[:split] if token.startswith("$")]
        tokens = tokens[split + 1 :]
    elif len(tokens) > 2 and tokens[0].startswith("$") and tokens[1] == "=":
        names, tokens = [tokens[0]], tokens[2:]
    node, left = _pipeline(tokens, 0)
    if left != len(tokens):
        raise TemplateError(f"template parsing error: unexpected {tokens[left]!r} in {{{{{text.strip()}}}}}")
    return names, node


def _pipeline(tokens: list[str], at: int) -> tuple[Node, int]:
    commands: list[list[Node]] = [[]]
    while at < len(tokens) and tokens[at] != ")":
        token = tokens[at]
        if token == "|":
            commands.append([])
            at += 1
        elif token == "(":
            node, at = _pipeline(tokens, at + 1)
            if at >= len(tokens):
                raise TemplateError("template parsing error: unclosed left paren")
            at += 1
            while at < len(tokens) and tokens[at].startswith(".") and len(tokens[at]) > 1:
                node = ("field", node, tokens[at][1:].split("."))
                at += 1
            commands[-1].append(node)
        else:
            commands[-1].append(_operand(token))
            at += 1
    if any(not command for command in commands):
        raise TemplateError("template parsing error: missing value for command")
    return ("pipe", commands), at


def _operand(token: str) -> Node:
    if token[0] in '"`':
        return ("value", json.loads(token) if token[0] == '"' else token[1:-1])
    if token.lstrip("-").isdigit():
        return ("value", int(token))
    if token in ("true", "false", "nil"):
        return ("value", {"true": True, "false": False, "nil": None}[token])
    if token.startswith("$"):
        name, *path = token.split(".")
        return ("field", ("variable", name), path) if path else ("variable", name)
    if token.startswith("."):
        return ("field", ("dot",), [part for part in token[1:].split(".") if part])
    if token in FUNCTIONS:
        return ("function", token)
    raise TemplateError(f'template parsing error: function "{token}" not defined')


class Template:
    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes

    def render(self, data: Any) -> str:
        """The text for one value; raises TemplateError for a field that it does not have."""
        out: list[str] = []
        self._run(self._nodes, data, {"$": data}, out)
        return "".join(out)

    def _run(self, nodes: list[Node], dot: Any, variables: dict[str, Any], out: list[str]) -> None:
        for node in nodes:
            kind = node[0]
            if kind == "text":
                out.append(node[1])
            elif kind == "print":
                out.append(show(self._value(node[2], dot, variables)))
            elif kind == "set":
                variables[node[1][0]] = self._value(node[2], dot, variables)
            elif kind == "range":
                self._range(node, dot, variables, out)
            else:
                value = self._value(node[2], dot, variables)
                inner = dict(variables)
                if node[1]:
                    inner[node[1][0]] = value
                if truth(value):
                    self._run(node[3], value if kind == "with" else dot, inner, out)
                else:
                    self._run(node[4], dot, inner, out)

    def _range(self, node: Node, dot: Any, variables: dict[str, Any], out: list[str]) -> None:
        value = self._value(node[2], dot, variables)
        if isinstance(value, dict):
            pairs = [(key, value[key]) for key in sorted(value)]
        else:
            pairs = list(enumerate(value or []))
        if not pairs:
            self._run(node[4], dot, variables, out)
        for key, item in pairs:
            inner = dict(variables)
            if len(node[1]) == 2:
                inner[node[1][0]], inner[node[1][1]] = key, item
            elif node[1]:
                inner[node[1][0]] = item
            self._run(node[3], item, inner, out)

    def _value(self, node: Node, dot: Any, variables: dict[str, Any]) -> Any:
        kind = node[0]
        if kind == "value":
            return node[1]
        if kind == "dot":
            return dot
        if kind == "variable":
            if node[1] not in variables:
                raise TemplateError(f'template parsing error: undefined variable "{node[1]}"')
            return variables[node[1]]
        if kind == "field":
            value = self._value(node[1], dot, variables)
            for name in node[2]:
                value = member(value, name)
            return value
        if kind == "function":
            return call(node[1], [])
        result: Any = None
        for number, command in enumerate(node[1]):
            extra = [result] if number else []
            head = command[0]
            if head[0] == "function":
                arguments = [self._value(argument, dot, variables) for argument in command[1:]]
                result = call(head[1], arguments + extra)
            else:
                result = self._value(head, dot, variables)
                if callable(result):  # a method of a row: .Label "key"
                    result = result(*[self._value(argument, dot, variables) for argument in command[1:]], *extra)
        return result


def member(value: Any, name: str) -> Any:
    """A field of a document. Go's structs have fixed fields, so a missing one is an error; maps give nothing."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        lowered = name.lower()
        for key in value:
            if key.lower() == lowered:
                return value[key]
        # text/template's words; its column is that of the field in an expression that is nothing else
        raise TemplateError(
            f'template parsing error: template: :1:2: executing "" at <.{name}>: map has no entry for key "{name}"'
        )
    row = getattr(value, "field", None)
    if row is not None:
        return row(name)
    if value is None:
        raise TemplateError(f"template: nil pointer evaluating {name}")
    raise TemplateError(f"template: can't evaluate field {name} in type {type(value).__name__}")


class Struct(dict[str, "Any"]):
    """A document that is a struct in Go: printed as its values in their order, not as a map."""


# The API's fields that are maps from names that people choose; every other object is a struct.
MAPS = frozenset(
    {"Labels", "Volumes", "ExposedPorts", "Options", "DriverOpts", "Networks", "Ports", "PortBindings", "Sysctls",
     "Tmpfs", "StorageOpt", "Annotations", "Containers", "Data", "Status", "Config.LogConfig"}
)  # fmt: skip


def typed(value: Any, name: str = "", inside: str = "") -> Any:
    """An inspected document with its structs told from its maps."""
    if isinstance(value, list):
        return [typed(item, "", inside) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: typed(item, key, name) for key, item in value.items()}
    return found if name in MAPS or f"{name}.{inside}" in MAPS else Struct(found)


def show(value: Any) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Struct):
        return "{" + " ".join("<nil>" if item is None else show(item) for item in value.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(show(item) for item in value) + "]"
    return str(value)


def truth(value: Any) -> bool:
    return bool(value)


def as_json(value: Any) -> str:
    everything = getattr(value, "everything", None)
    return json.dumps(everything() if everything else value, separators=(",", ":"), ensure_ascii=False)


def index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(str(key), "")
        elif isinstance(value, list | str) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise TemplateError(f"template: error calling index: index out of range: {key}")
            value = value[key]
        else:
            raise TemplateError("template: error calling index: nothing to index")
    return value


def printf(form: str, *values: Any) -> str:
    parts = iter(values)

    def one(match: re.Match[str]) -> str:
        if match[2] == "%":
            return "%"
        value = next(parts, "")
        if match[2] == "q":
            return json.dumps(show(value))
        if match[2] in "dxXobcfeg":
            return ("%" + match[1] + match[2]) % value
        return ("%" + match[1] + "s") % (show(value),)

    return re.sub(r"%([-+ 0#]*\d*(?:\.\d+)?)([a-zA-Z%])", one, form)


FUNCTIONS: dict[str, Any] = {
    "json": as_json,
    "len": lambda value: len(value or ()),
    "index": index,
    "join": lambda values, separator: separator.join(show(v) for v in values or []),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: str(text).lower(),
    "upper": lambda text: str(text).upper(),
    "title": lambda text: str(text).title(),
    "println": lambda *values: " ".join(map(show, values)) + "\n",
    "print": lambda *values: "".join(map(show, values)),
    "printf": printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "not": lambda value: not truth(value),
    "and": lambda *values: next((v for v in values if not truth(v)), values[-1]),
    "or": lambda *values: next((v for v in values if truth(v)), values[-1]),
    "pad": lambda text, before, after: " " * before + text + " " * after if text else text,
    "truncate": lambda text, length: text[:length],
}


def call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except (TypeError, ValueError) as error:
        raise TemplateError(f"template: error calling {name}: {error}") from error
