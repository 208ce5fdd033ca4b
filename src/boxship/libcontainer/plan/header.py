"""The C header of the vocabulary, generated: ``python -m boxship.libcontainer.plan.header > native/ops.h``.

The build hook writes it again before it compiles, and a test compares the committed file with the declaration.
"""

from .ops import FINGERPRINT, MAX_FIELDS, MAX_SLOTS, OPS


def _constant(name: str) -> str:
    text = ""
    for index, char in enumerate(name):
        if char.isupper() and index and not name[index - 1].isupper():
            text += "_"
        text += char.upper()
    return text


def header() -> str:
    """The whole text of ``native/ops.h``."""
    lines = [
        "/* Generated from src/boxship/libcontainer/plan/ops.py; a change belongs there. */",
        "#ifndef BOXSHIP_OPS_H",
        "#define BOXSHIP_OPS_H",
        "",
        f"#define OPS_FINGERPRINT {FINGERPRINT:#018x}UL",
        f"#define OPS_COUNT {len(OPS)}",
        f"#define OPS_MAX_FIELDS {MAX_FIELDS}",
        f"#define OPS_MAX_SLOTS {MAX_SLOTS}",
    ]
    for op in OPS:
        name = _constant(op.NAME)
        lines += ["", f"#define OP_{name} {op.NUMBER}"]
        lines += [f"#define {name}_{field.upper()} {index}" for index, field in enumerate(op.FIELDS)]
    return "\n".join([*lines, "", "#endif", ""])


if __name__ == "__main__":
    print(header(), end="")
