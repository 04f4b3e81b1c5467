"""Entry point: the command tree, exit codes and error messages."""

from __future__ import annotations

import sys
from typing import Annotated

import click
import typer

from retclip import __version__
from retclip.cli import db, doctor, index, segment
from retclip.cli.console import error_text
from retclip.core.errors import RetclipError

INTERRUPTED = 130

app = typer.Typer(
    name="retclip", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Open-vocabulary panoptic segmentation taught by adding examples, not by training.",
    epilog="First steps: [bold]retclip doctor[/], then [bold]retclip index build --help[/].",
)
app.add_typer(index.app, name="index")
app.add_typer(db.app, name="db")
app.command("segment", epilog=segment.EPILOG)(segment.segment)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"retclip {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Open-vocabulary panoptic segmentation taught by adding examples, not by training."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: docs/errors.md lists them.

    Exits instead of returning when called as a program.
    """
    words = sys.argv[1:] if arguments is None else arguments
    code = _run(words)
    if arguments is None:
        sys.exit(code)
    return code


def _run(words: list[str]) -> int:
    try:
        result = app(words, standalone_mode=False)
    except RetclipError as error:
        print(error_text(error, as_json="--json" in words), file=sys.stderr)  # noqa: T201
        return error.exit_code
    except click.exceptions.Exit as exit_request:
        return int(exit_request.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted; finished work is kept, the same command goes on from there", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except MemoryError:
        print("error E402 Out of memory.\n  fix: lower index.batch or encoder.short_side in the preset", file=sys.stderr)  # noqa: T201
        return 7
    return int(result) if isinstance(result, int) else 0
