"""`retclip prepare`: ground truth in COCO panoptic format from the raw trees of evaluation sets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import JsonOption, QuietOption

EPILOG = "Example: retclip prepare --dataset ade20k-panoptic --root /data/ADEChallengeData2016 --split val"


def prepare(
    dataset: Annotated[str, typer.Option(help="ade20k-panoptic or cityscapes.")],
    root: Annotated[Path, typer.Option(help="The raw tree; results are written into it.")],
    split: Annotated[str, typer.Option(help="train or val.")] = "val",
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Accept another number of pictures.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make panoptic and instance ground truth from a raw tree, and check that it is complete."""
    from retclip.evaluation.preparation import prepare as write_truth

    speech = Speech(json, quiet)
    with speech.progress("prepare", "pictures") as line:
        made = write_truth(dataset, root, split, incomplete, line.update)
    rows = [(key, str(value)) for key, value in asdict(made).items()]
    speech.data(
        {key: str(v) if isinstance(v, Path) else v for key, v in asdict(made).items()},
        make_table(("written", ""), rows),
    )
