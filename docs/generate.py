"""Writes the generated reference pages; ``make docs``. Tests compare them with what is committed."""

from pathlib import Path

from boxship.cli import main as cli
from boxship.libcontainer.plan.reference import reference

REFERENCE = Path(__file__).parent / "reference"


def command_line() -> str:
    """Every command's help."""
    pages = [f"## boxship {name}\n\n```\n{cli.load(name).describe('boxship')}```\n" for name in sorted(cli.COMMANDS)]
    return "# The command line\n\nGenerated from the commands' declarations by `make docs`.\n\n" + "\n".join(pages)


PAGES = {"plan-operations.md": reference, "command-line.md": command_line}


def main() -> None:
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make())


if __name__ == "__main__":
    main()
