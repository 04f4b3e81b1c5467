"""What long runs have in common: the plan before, the report after, and a polite stop in between."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retclip.cli.console import Speech, make_table
from retclip.cli.options import too_many
from retclip.core.errors import FailuresError

if TYPE_CHECKING:
    from retclip.core.vocabulary import Vocabulary
    from retclip.indexer.report import RunReport
    from retclip.ports.corpora import Corpus


def show_plan(corpus: Corpus, vocabulary: Vocabulary | None, speech: Speech) -> None:
    """What a run would look at: counts, samples, and the labels that are no class of the corpus or not asked for."""
    from retclip.corpora import describe

    facts = describe(corpus, vocabulary)
    classes = [f"{name} {count}" for name, count in facts.images_by_class.items()]
    samples = [f"{sample}" for sample in facts.samples]
    rows = [
        ("source", facts.source),
        ("pictures", f"{facts.images:,}"),
        ("with labels", f"{facts.labelled:,}"),
        ("with captions", f"{facts.captioned:,}"),
        ("verified absent", f"{facts.absent:,}"),
        (
            "classes",
            f"{len(classes)} of {facts.classes} occur: {', '.join(classes[:12])}{', ...' if len(classes) > 12 else ''}",
        ),
        ("unmapped labels", ", ".join(facts.unmapped) or "none"),
        *(("sample", text) for text in samples),
        *(("note", text) for text in facts.warnings),
    ]
    speech.data(facts.to_json(), make_table(("plan", "pictures"), rows))
    speech.note("Nothing was written. Leave out --dry-run to start; interruption is safe.")


def show_report(outcome: RunReport, file: Path | None, speech: Speech) -> None:
    """What a run did, every failed picture by name; also as JSON into `file`."""
    from retclip.core.files import write_json

    if file is not None:
        write_json(file, outcome.to_json())
    for warning in outcome.warnings:
        speech.note(f"note: {warning}")
    rows = [
        ("database", f"{outcome.database} version {outcome.version}"),
        ("pictures", outcome.images),
        ("segments added", outcome.added),
        ("already there", outcome.known),
        ("left out by the cap", outcome.capped),
        ("classes", len(outcome.classes)),
        ("units resumed", outcome.resumed_units),
        ("failed pictures", len(outcome.failures)),
        ("content hash", outcome.content_hash),
        ("seconds", f"{outcome.seconds:.1f}"),
    ]
    for failure in outcome.failures:
        speech.note(f"failed {failure.path}: {failure.code} {failure.message}")
    speech.data(outcome.to_json(), make_table(("run", "value"), rows))


def judge(outcome: RunReport, max_failures: float) -> None:
    """Raise FailuresError when more pictures failed than allowed (a share below 1, or a number)."""
    if too_many(len(outcome.failures), outcome.images, max_failures):
        raise FailuresError(
            "E601",
            f"{len(outcome.failures)} of {outcome.images} pictures failed.",
            why="More than --max-failures allows; everything else is in the database.",
            fix="See the list above; mend or remove those pictures and run the same command again.",
        )


@contextmanager
def stop_after_unit() -> Iterator[Callable[[], None]]:
    """Yields a check to call between units: Ctrl-C lets the running unit finish, a second one stops at once."""
    asked: list[bool] = []

    def ask(_number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
