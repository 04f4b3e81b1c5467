"""`retclip corpora`: what can be read, and fetching the part of a corpus that some classes need."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.indexing import MaxFailures
from retclip.cli.options import JsonOption, QuietOption, parse_share, too_many
from retclip.core.errors import FailuresError, InputError

app = typer.Typer(no_args_is_help=True, help="Collections of labelled pictures.")


class Fetchable(StrEnum):
    """Corpora of which a part can be fetched."""

    OPENIMAGES = "openimages"


class Drawable(StrEnum):
    """Corpora that are drawn by a program."""

    PLAYGROUND = "playground"


class PlaygroundDomain(StrEnum):
    """Kinds of the playground's pictures."""

    A = "a"
    B = "b"
    WEB = "web"


class PlaygroundSplit(StrEnum):
    """Parts that share no scene."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@app.command(
    epilog="Example: retclip corpora make playground --root playground/a --domain a --split val --pictures 200"
)
def make(
    corpus: Annotated[Drawable, typer.Argument(help="The corpus.")],
    root: Annotated[Path, typer.Option(help="Folder to write into, in COCO's layout.")],
    domain: Annotated[
        PlaygroundDomain,
        typer.Option(help="a and b: the same classes as two data sets would show them; web: captioned pictures."),
    ] = PlaygroundDomain.A,
    split: Annotated[PlaygroundSplit, typer.Option(help="train, val or test; they share no scene.")] = (
        PlaygroundSplit.TRAIN
    ),
    pictures: Annotated[int, typer.Option(min=1, max=1_000_000, help="Scenes of the split, from its first on.")] = 200,
    only_seen: Annotated[bool, typer.Option(help="Scenes without the classes that training must not see.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Another world of scenes of the same kind.")] = 0,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw scenes with exact masks, labels and captions; the same command always writes the same pixels."""
    from retclip.corpora.playground import CLASSES, SceneSettings
    from retclip.corpora.playground.export import write_coco

    speech = Speech(json, quiet)
    settings = SceneSettings.of(domain.value, only_seen=only_seen, seed=seed)
    with speech.progress("draw", "scenes") as line:
        write_coco(root, split.value, settings, pictures, lambda done: line.update(done, pictures))
    document = {
        "root": str(root),
        "domain": domain.value,
        "split": split.value,
        "pictures": pictures,
        "classes": len(CLASSES),
        "only_seen": only_seen,
        "seed": seed,
    }
    speech.data(document, make_table(("playground", "value"), [(key, str(value)) for key, value in document.items()]))


@app.command(
    epilog='Example: retclip corpora fetch openimages --root /data/openimages --classes "Kite,Canoe" --per-class 200'
)
def fetch(
    corpus: Annotated[Fetchable, typer.Argument(help="The corpus.")],
    root: Annotated[Path, typer.Option(help="Folder with its label and class tables; photos go into it.")],
    classes: Annotated[str, typer.Option(help="Class list: a file, @ade150, or names separated by commas.")],
    per_class: Annotated[int, typer.Option(min=1, help="Photos of a class, at most.")] = 200,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Photos asked for at a time.")] = 8,
    mirror: Annotated[
        str | None, typer.Option(help="Another host: photos at URL/<split>/<id>.jpg; default: the data set's own.")
    ] = None,
    max_failures: MaxFailures = "1%",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fetch only photos that people verified to show the asked classes; interrupted, it goes on where it stopped."""
    from retclip.corpora.openimages_fetch import BASE_URL, FetchRequest, fetch_images
    from retclip.corpora.openimages_layout import known_split
    from retclip.vocabularies import load_vocabulary

    speech = Speech(json, quiet)
    allowed = parse_share(max_failures)
    if mirror is not None and not mirror.startswith(("https://", "http://")):
        why = "Photos are asked for over http or https."
        raise InputError("E120", f"--mirror {mirror} is no address.", why=why, fix="Give it with https:// before it.")
    names = load_vocabulary(classes).names
    request = FetchRequest(root, names, per_class, known_split(split), workers, base_url=mirror or BASE_URL)
    with speech.progress("fetch", "photos") as line:
        report = fetch_images(request, line.update)
    rows = [(name, count) for name, count in report.photos_by_class.items()]
    speech.data(
        {"corpus": corpus.value, **asdict(report), "image_ids": str(report.image_ids)},
        make_table(("class", "photos "), rows),
    )
    speech.note(f"{report.fetched} photos fetched, {report.present} were there, {len(report.failed)} failed")
    wanted = report.fetched + report.present + len(report.failed)
    if too_many(len(report.failed), wanted, allowed):
        first = next(iter(report.failed.items()))
        raise FailuresError(
            "E601",
            f"{len(report.failed)} of {wanted} photos could not be fetched.",
            why=f"{first[0]}: {first[1]}",
            fix="Run the same command again: it asks for the missing ones alone.",
        )
