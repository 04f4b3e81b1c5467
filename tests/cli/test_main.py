"""The command tree: help, exit codes, and how errors are said."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from retclip import __version__
from retclip.cli import main as entry
from retclip.cli.main import app, main
from retclip.core.errors import InputError, RetclipError


def commands(node: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group of the tree."""
    node = typer.main.get_command(app) if node is None else node
    yield path, node
    for name, child in getattr(node, "commands", {}).items():
        yield from commands(child, (*path, name))


TREE = dict(commands())
LEAVES = [path for path, node in TREE.items() if not hasattr(node, "commands")]


def test_the_commands_of_the_manual_are_there() -> None:
    assert {" ".join(path) for path in LEAVES} >= {
        "doctor", "segment", "index build", "index add-classes", "db list", "db info", "db verify", "db classes",
        "db search", "db delete", "db relabel", "db undo",
    }  # fmt: skip


@pytest.mark.parametrize("path", list(TREE), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], run: Any) -> None:
    outcome = run(*path, "--help")
    assert outcome.code == 0
    assert "Usage: retclip" in re.sub(r"\s+", " ", outcome.out)
    assert outcome.err == ""
    assert TREE[path].help
    for parameter in TREE[path].params:
        assert getattr(parameter, "help", None), f"{path}: {parameter.name} has no help"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_example_in_the_help_parses(path: tuple[str, ...]) -> None:
    example = re.sub(r"\[/?\w*\]", "", TREE[path].epilog).removeprefix("Example: ")
    words = shlex.split(example)
    assert words[: len(path) + 1] == ["retclip", *path]
    with TREE[path].make_context(" ".join(path), words[len(path) + 1 :]) as context:
        assert context.params


@pytest.mark.parametrize("words", [[], ["db"], ["index"]])
def test_a_group_alone_shows_its_help(words: list[str], run: Any) -> None:
    outcome = run(*words)
    assert "Usage" in outcome.out + outcome.err
    assert outcome.code in (0, 2)


def test_version(run: Any) -> None:
    assert run("--version").out == f"retclip {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["dance"], ["db", "info"], ["db", "info", "a", "b"], ["segment", "x.jpg"], ["index", "build"],
        ["index", "build", "--source", "folder", "--limit", "0"], ["db", "search", "pets", "-k", "0"],
        ["index", "build", "--source", "folder", "--limit", "many"], ["segment", "--db", "pets"],
    ],
)  # fmt: skip
def test_wrong_usage_leaves_with_two(words: list[str], home: Path, run: Any) -> None:
    outcome = run(*words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err
    as_json = run(*words, "--json")
    assert (as_json.code, as_json.out) == (2, "")
    assert json.loads(as_json.err)["error"]["code"] == "E120"


CASES: list[tuple[list[str], int, str]] = [
    (["index", "build", "--source", "cityscapes"], 3, "E115"),
    (["index", "build", "--source", "openimage"], 3, "E115"),
    (["index", "build", "--source", "folder"], 3, "E118"),
    (["index", "build", "--source", "folder", "--root", "nowhere"], 3, "E118"),
    (["index", "add-classes", "--db", "pets"], 3, "E120"),
    (["index", "add-classes", "--db", "pets", "--images", "a", "--fallback", "b"], 3, "E120"),
    (["index", "add-classes", "--db", "cats", "--images", "a"], 5, "E306"),
    (["index", "add-classes", "--db", "pets", "--classes", "x", "--fallback", "cityscapes"], 3, "E115"),
    (["index", "add-classes", "--db", "pets@1", "--images", "."], 3, "E120"),
    (["db", "info", "a b"], 5, "E306"),
    (["segment", "none.jpg", "--db", "pets"], 3, "E101"),
    (["db", "info", "pets@99"], 5, "E306"),
    (["db", "info", "pet"], 5, "E306"),
    (["db", "search", "pets"], 3, "E120"),
    (["db", "search", "pets", "--text", "red"], 4, "E209"),
    (["db", "delete", "pets", "--yes"], 3, "E120"),
    (["db", "delete", "pets@2", "--label", "red", "--yes"], 3, "E120"),
    (["db", "delete", "pets", "--label", "zebra", "--yes"], 5, "E309"),
    (["db", "relabel", "pets", "zebra", "horse"], 5, "E309"),
    (["db", "relabel", "pets", "red", " "], 3, "E120"),
    (["db", "classes", "pets", "--missing-for", "@coco"], 3, "E121"),
    (["doctor", "--models", "nothing"], 3, "E141"),
]


@pytest.mark.parametrize(("words", "code", "name"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_errors_are_three_lines_or_json_and_never_on_stdout(
    words: list[str], code: int, name: str, home: Path, run: Any
) -> None:
    plain = run(*words)
    assert plain.code == code
    assert plain.out == ""
    lines = plain.err.strip().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("error "))
    assert lines[start].startswith(f"error {name} ")
    assert [line[:6] for line in lines[start + 1 :]] == ["  why:", "  fix:"]
    as_json = run(*words, "--json")
    assert as_json.code == code
    assert as_json.out == ""
    assert as_json.error["code"] == name
    assert set(as_json.error) == {"code", "message", "why", "hint", "docs_url"}
    assert all(as_json.error.values())


def test_missing_sources_say_what_to_do_instead(home: Path, run: Any) -> None:
    assert "table" in run("index", "build", "--source", "cityscapes").err
    assert "did you mean 'openimages'" in run("index", "build", "--source", "openimage").err
    segment = run("segment", __file__, "--db", "ade20k")
    assert segment.code == 5
    assert "There is no database 'ade20k'" in segment.err
    assert "pets" in run("db", "info", "pet").err


def test_running_out_of_memory_is_a_resource_error(monkeypatch: pytest.MonkeyPatch, run: Any, home: Path) -> None:
    def explode(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("retclip.shards.list_databases", explode)
    outcome = run("db", "list", "--json")
    assert outcome.code == 7
    assert outcome.error["code"] == "E402"


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_an_interrupt_leaves_with_130(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, run: Any, home: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retclip.shards.list_databases", interrupt)
    outcome = run("db", "list", *words)
    assert outcome.code == 130
    assert "what was written is kept" in outcome.err


def test_faults_of_our_own_are_not_dressed_up(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr("retclip.shards.list_databases", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["db", "list"])


def test_every_error_class_reaches_its_exit_code(monkeypatch: pytest.MonkeyPatch, run: Any, home: Path) -> None:
    def kinds(kind: type[RetclipError]) -> Iterator[type[RetclipError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from kinds(child)

    for kind in kinds(RetclipError):
        if kind.__init__ is not RetclipError.__init__:
            continue

        def fail(kind: type[RetclipError] = kind) -> None:
            raise kind("E999", "what", why="why", fix="fix")

        monkeypatch.setattr("retclip.shards.list_databases", fail)
        assert run("db", "list").code == kind.exit_code


def test_as_a_program_it_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["retclip", "index", "build", "--source", "cityscapes"])
    with pytest.raises(SystemExit) as caught:
        entry.main()
    assert caught.value.code == InputError.exit_code


HEAVY = ("torch", "torchvision", "timm", "skimage", "PIL", "scipy")


@pytest.mark.parametrize(
    "words", [["--help"], ["index", "build", "--help"], ["segment", "--help"], ["db", "info", "pets"], ["db", "list"]]
)
def test_small_commands_load_no_heavy_library(words: list[str], home: Path) -> None:
    code = (
        "import json, sys\nfrom retclip.cli.main import main\n"
        f"code = main({words!r})\n"
        f"print(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]
