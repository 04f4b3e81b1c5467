"""`retclip train`: heads of our own networks, trained on annotated photos."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import DeviceOption, JsonOption, QuietOption
from retclip.cli.runs import stop_after_unit
from retclip.core.errors import InputError, ModelError

if TYPE_CHECKING:
    from retclip.training.fcclip import TrainSettings

app = typer.Typer(no_args_is_help=True, help="Train the heads of our own networks.")
DATASETS = ("coco-panoptic",)


@app.command(
    epilog="Example: retclip train fcclip --dataset coco-panoptic --root coco/ --variant convnext-large "
    "--clip-weights clip.safetensors --out run"
)
def fcclip(
    root: Annotated[Path, typer.Option(help="Where the data set lies.")],
    out: Annotated[Path, typer.Option(help="Folder for state, log and weights; a run found there goes on.")],
    dataset: Annotated[str, typer.Option(help="coco-panoptic, or any set in its layout.")] = DATASETS[0],
    split: Annotated[str, typer.Option(help="Part of the data set.")] = "train2017",
    classes: Annotated[
        str, typer.Option(help="Class list with the annotations' category ids: @name or a file.")
    ] = "@coco133",
    variant: Annotated[
        str, typer.Option(help="convnext-large, rn50, rn101, rn50x4, rn50x16, rn50x64, tiny, or playground.")
    ] = "convnext-large",
    clip_weights: Annotated[Path | None, typer.Option(help="open_clip's weights of the frozen CLIP.")] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 368_750,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos a step, over all workers.")] = 16,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Of AdamW; a tenth from 8/9 and 26/27 of the steps.")
    ] = 1e-4,
    size: Annotated[int, typer.Option(min=32, help="Side of the square crops, a multiple of 32.")] = 1024,
    points: Annotated[int, typer.Option(min=1, help="Points a mask is compared at.")] = 12_544,
    amp: Annotated[bool, typer.Option(help="Mixed precision.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order, augmentation and points.")] = 0,
    processes: Annotated[int, typer.Option(min=0, help="That read photos, per worker.")] = 4,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between saved states.")] = 5_000,
    log_every: Annotated[int, typer.Option(min=1, help="Steps between lines of log.jsonl.")] = 20,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train FC-CLIP's heads on a frozen CLIP. Interrupted, the same command goes on; `torchrun` shares the work."""
    from retclip.assembly import choose_device
    from retclip.segmenters.fcclip.variants import variant_named
    from retclip.training.augmentation import JitterSettings
    from retclip.training.coco_panoptic import Folders
    from retclip.training.fcclip import TrainSettings
    from retclip.training.losses import LossSettings
    from retclip.training.optimiser import Schedule
    from retclip.training.points import PointSettings
    from retclip.vocabularies import load_vocabulary

    if dataset not in DATASETS:
        raise InputError(
            "E115", f"Unknown data set '{dataset}'.", why=f"Known are {', '.join(DATASETS)}.", fix="Correct --dataset."
        )
    speech = Speech(json, quiet or os.environ.get("RANK", "0") != "0")
    released = variant_named(variant).open_clip_weights
    if released and clip_weights is None:
        raise ModelError(
            "E201",
            f"The variant {variant} needs CLIP weights to train on.",
            why="Heads trained on a random CLIP are worth nothing.",
            fix=f"Add --clip-weights FILE with open_clip's {released}.",
        )
    if clip_weights is None:
        speech.note(f"note: the variant {variant} has no released CLIP; the frozen CLIP stays random.")
    steps = (-(-iterations * 8 // 9), iterations * 26 // 27)  # the release's 327,778 and 355,092 of 368,750
    settings = TrainSettings(
        folders=Folders.of_coco(root, split),
        vocabulary=load_vocabulary(classes),
        output=out,
        variant=variant,
        clip_weights=clip_weights,
        schedule=Schedule(iterations, batch_size, learning_rate, steps),
        loss=replace(LossSettings(), points=PointSettings(points, points)),
        jitter=JitterSettings(size),
        device=str(choose_device(device)),
        amp=amp,
        seed=seed,
        loader_processes=processes,
        save_every=save_every,
        log_every=log_every,
    )
    _run(settings, speech)


def _run(settings: TrainSettings, speech: Speech) -> None:
    from retclip.training.fcclip import Step, train

    began = time.monotonic()
    with speech.progress("train", "steps") as line, stop_after_unit() as check:

        def observe(step: Step) -> None:
            line.update(step.iteration, step.iterations, f"loss {step.loss:.3f}")
            check()

        report = train(settings, observe)
    if report.resumed_from:
        speech.note(f"resumed after step {report.resumed_from}")
    document = {
        "schema": "retclip.train/1",
        "weights": str(report.weights),
        "iterations": report.iterations,
        "resumed_from": report.resumed_from,
        "loss": report.loss,
        "seconds": round(time.monotonic() - began, 1),
    }
    if os.environ.get("RANK", "0") == "0":
        speech.data(document, make_table(("run", "value"), [(key, str(value)) for key, value in document.items()]))
