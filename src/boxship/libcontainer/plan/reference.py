"""The reference page of the vocabulary, generated: docs/reference/plan-operations.md.

``python -m boxship.libcontainer.plan.reference`` prints it; a test compares the committed page.
"""

from .explain import CALLS
from .ops import MAX_SLOTS, OPS


def reference() -> str:
    """The page as Markdown."""
    lines = [
        "# The operations of a plan",
        "",
        "With this page you can read what `boxship-runc explain` prints, and write a plan by hand.",
        "It is generated from `src/boxship/libcontainer/plan/ops.py`; `docs/layers/plan.md` says how plans work.",
        "",
        f"A `Slot` is one of {MAX_SLOTS} kernel handles that the executor keeps, `CWD` or one of `STDIO`.",
        "Every operation may name up to two errno numbers that it tolerates.",
        "",
    ]
    for kind in OPS:
        lines += [f"## {kind.NUMBER}. {kind.NAME}", "", *(line.strip() for line in kind.__doc__.strip().splitlines())]
        lines += ["", f"`{CALLS[kind.NAME]}`", ""]
        if kind.FIELDS:
            lines += ["| field | wire type |", "|---|---|"]
            lines += [f"| `{name}` | {wire} |" for name, wire in zip(kind.FIELDS, kind.WIRE, strict=True)]
            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(reference(), end="")
