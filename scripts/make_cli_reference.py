"""Write docs/cli.md from the command line's own help: python scripts/make_cli_reference.py [--check]."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from retclip.cli.main import app

TARGET = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HEAD = """# Command line

Written by `python scripts/make_cli_reference.py`; a test fails when it is not up to date. Data goes to stdout,
everything else to stderr; `--json` prints data as JSON and an error as one JSON object, the last line of stderr;
it asks nothing, so commands that ask want `--yes` beside it.

Exit codes: 0 done, 1 unexpected error or "no" to a question, 2 usage, 3 invalid input, 4 model not available,
5 database problem, 6 finished with failed pictures above `--max-failures`, 7 disk or memory, 130 interrupted (finished
work is kept).
"""


def reference() -> str:
    """The whole page."""
    return HEAD + "".join(_sections(get_command(app), ("retclip",)))


def _sections(command: Any, path: tuple[str, ...]) -> list[str]:
    if hasattr(command, "commands"):
        return [part for name, child in command.commands.items() for part in _sections(child, (*path, name))]
    lines = [f"\n## `{' '.join(path)}`\n\n{(command.help or '').strip()}\n\n"]
    if command.epilog:
        lines.append(f"```\n{command.epilog.removeprefix('Example: ')}\n```\n\n")
    lines.append("| argument | meaning | default |\n|---|---|---|\n")
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        names = (
            ", ".join(f"`{name}`" for name in parameter.opts)
            if parameter.opts[0].startswith("-")
            else f"`{parameter.name.upper()}`"
        )
        default = "" if parameter.default in (None, False, ()) or parameter.required else f"`{parameter.default}`"
        meaning = (getattr(parameter, "help", "") or "").replace("|", "\\|")
        lines.append(f"| {names} | {meaning} | {'required' if parameter.required else default} |\n")
    return ["".join(lines)]


def main() -> int:
    """Write the page, or compare it under --check."""
    text = reference()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.is_file() and TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
