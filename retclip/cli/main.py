"""Entry point: the command tree, exit codes and error messages."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, cast

import typer

from retclip import __version__
from retclip.cli import (
    classes,
    corpora,
    db,
    db_care,
    db_edit,
    db_exchange,
    db_health,
    db_index,
    demo,
    doctor,
    evaluate,
    index,
    models,
    prepare,
    rescore,
    segment,
    train,
    tune,
)
from retclip.cli.console import error_text
from retclip.core.errors import InputError, ResourceError, RetclipError, is_out_of_memory

USAGE = 2
INTERRUPTED = 130
# Typer has its own copy of click, and no public name for this class.
_UsageError = cast(type[Exception], typer.BadParameter.__base__)

app = typer.Typer(
    name="retclip",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Open-vocabulary panoptic segmentation taught by adding examples, not by training.",
    epilog="First steps: [bold]retclip demo[/], then [bold]retclip doctor[/] and [bold]retclip index build --help[/].",
)
app.command("demo", epilog=demo.EPILOG)(demo.demo)
app.add_typer(index.app, name="index")
db_edit.register(db.app)
db_care.register(db.app)
db_health.register(db.app)
db_exchange.register(db.app)
db_index.register(db.app)
app.add_typer(db.app, name="db")
app.command("segment", epilog=segment.EPILOG)(segment.segment)
app.command("rescore", epilog=rescore.EPILOG)(rescore.rescore)
app.command("eval", epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command("tune", epilog=tune.EPILOG)(tune.tune)
app.command("prepare", epilog=prepare.EPILOG)(prepare.prepare)
app.add_typer(classes.app, name="classes")
app.add_typer(corpora.app, name="corpora")
app.add_typer(models.app, name="models")
app.add_typer(train.app, name="train")
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"retclip {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Open-vocabulary panoptic segmentation taught by adding examples, not by training."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: docs/errors.md lists them.

    Exits instead of returning when called as a program.
    """
    words = sys.argv[1:] if arguments is None else arguments
    with _hushed(not {"-q", "--quiet"}.isdisjoint(words)):
        code = _run(words)
    if arguments is None:
        sys.exit(code)
    return code


@contextmanager
def _hushed(quiet: bool) -> Iterator[None]:
    """Under --quiet, keep warnings of the library off stderr."""
    logger = logging.getLogger("retclip")
    level = logger.level
    if quiet:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _run(words: list[str]) -> int:
    try:
        # Usage errors come as a box of text from Typer unless they are raised.
        code = app(words, prog_name="retclip", standalone_mode="--json" not in words) or 0
    except _UsageError as error:
        print(error_text(_misuse(error), as_json=True), file=sys.stderr)
        return USAGE
    except RetclipError as error:
        return _fail(error, words)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        problem = ResourceError(
            "E402",
            "Out of memory.",
            why=str(error).splitlines()[0] if str(error) else "The pictures or the database do not fit.",
            fix="Use smaller pictures, lower index.batch in the preset, or --device cpu.",
        )
        return _fail(problem, words)
    except SystemExit as request:
        code = request.code if isinstance(request.code, int) else 0
    if code == INTERRUPTED:
        print("interrupted: what was written is kept; index commands go on from there", file=sys.stderr)
    return code


def _misuse(error: Any) -> InputError:
    """A usage error in our own words; Typer's knows the command where it happened."""
    command = error.ctx.command_path if error.ctx else "retclip"
    return InputError("E120", error.format_message(), why=f"{command} does not take that.", fix=f"See {command} --help")


def _fail(error: RetclipError, words: list[str]) -> int:
    print(error_text(error, as_json="--json" in words), file=sys.stderr)
    return error.exit_code
