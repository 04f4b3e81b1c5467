"""Training SAM (Kirillov et al. 2023) from scratch on panoptic annotations: boxes and points in, masks out.

Of the published recipe (appendix A) it keeps the losses and the two kinds of prompts; the rounds in which a mask is
corrected by further points are left out, since nothing in this package asks twice.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss
from transformers import SamConfig, SamImageProcessor, SamModel

from retclip.adapters.transformers_network import load_network
from retclip.core.errors import InputError
from retclip.core.vocabulary import Vocabulary
from retclip.core.weights import read_weights
from retclip.training.augmentation import PADDING_COLOUR, JitterSettings
from retclip.training.coco_panoptic import Folders, read_annotations
from retclip.training.optimiser import Schedule, build_optimiser, step
from retclip.training.prompts import PromptedPicture, PromptedStream, PromptSettings
from retclip.training.state import RunState, append_log, read_own_state, write_state

STATE_FILE, LOG_FILE, EXPORT_FOLDER = "state.pt", "log.jsonl", "export"
WEIGHTS_FILE = "model.safetensors"  # of the export, by the library's own name
# Padding becomes zero, as in the picture that the trained network will be given.
_MEAN, _STD = float(PADDING_COLOUR), 64.0
_FOCAL_WEIGHT = 20.0
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class MaskerTraining:
    """One run, on a CPU.

    Attributes:
        data: data sets in COCO's panoptic layout; their pictures are mixed.
        vocabulary: names every category of them.
        output: folder for the run's state, log and `export/`. A run found there is resumed.
        network: sizes; the side of its input is the jitter's.
        schedule, jitter, prompts: the recipe.
        start: folder that an earlier run exported, to go on with its network; None starts from scratch.
        seed: of initial weights, order, augmentation and prompts.
        save_every, log_every: iterations.
    """

    data: tuple[Folders, ...]
    vocabulary: Vocabulary
    output: Path
    network: SamConfig
    schedule: Schedule
    jitter: JitterSettings
    prompts: PromptSettings = field(default_factory=PromptSettings)
    start: Path | None = None
    seed: int = 0
    save_every: int = 500
    log_every: int = 20

    def identity(self) -> dict[str, Any]:
        """What must agree for a run to be resumed."""
        recipe = {name: asdict(getattr(self, name)) for name in ("schedule", "jitter", "prompts")}
        parts = {"network": self.network.to_dict(), "start": str(self.start), "seed": self.seed, **recipe}
        return {name: json.dumps(part, sort_keys=True) for name, part in parts.items()}


class PromptLosses(NamedTuple):
    """Means over the prompts: focal and dice of the best mask, squared error of all masks' predicted IoU."""

    focal: Tensor
    dice: Tensor
    quality: Tensor

    def total(self) -> Tensor:
        """SAM's mixture: focal and dice 20 : 1, predicted IoU 1."""
        return _FOCAL_WEIGHT * self.focal + self.dice + self.quality


def prompt_losses(logits: Tensor, quality: Tensor, coverage: Tensor) -> PromptLosses:
    """Losses of the answers to n prompts with m masks each; only the best of them is taught (SAM, section 3).

    Args:
        logits: (n, m, h, w).
        quality: (n, m) predicted IoU.
        coverage: (n, h, w) in [0, 1], the share of each cell that the segment covers.
    """
    truth = coverage[:, None].expand_as(logits)
    # Dice already makes up for small masks, so the focal loss weighs inside and outside alike.
    focal = sigmoid_focal_loss(logits, truth, alpha=-1).mean((2, 3))
    probability = logits.sigmoid()
    overlap = (probability * truth).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + truth.sum((2, 3)) + 1)
    best = (_FOCAL_WEIGHT * focal + dice).argmin(1, keepdim=True)
    error = (quality - _iou(logits > 0, truth >= 0.5)).square()
    return PromptLosses(focal.gather(1, best).mean(), dice.gather(1, best).mean(), error.mean())


def _iou(found: Tensor, truth: Tensor) -> Tensor:
    """Of masks (n, m, h, w) bool: (n, m); two empty masks are alike."""
    both, either = ((found & truth).sum((2, 3)), (found | truth).sum((2, 3)))
    return (both + 1) / (either + 1)


def train_masker(settings: MaskerTraining) -> Path:
    """Train, or resume, a run; returns the folder of the network as transformers saves it, in float16.

    Raises:
        InputError: E171..E174 bad annotations, E175 another run's state in the folder, E178 a damaged state, E176
            pictures without a segment.
        ModelError: E201, E202, E204, E207 a `start` that is no such network; E210 a loss that is not finite.
    """
    pictures = [picture for folders in settings.data for picture in read_annotations(folders, settings.vocabulary)]
    shown = [picture for picture in pictures if picture.columns]
    if not shown:
        raise _nothing_to_ask(", ".join(str(folders.annotations) for folders in settings.data))
    run = _Run(settings)
    run.resume()
    stream = PromptedStream(shown, settings.jitter, settings.prompts, settings.seed)
    size = settings.schedule.batch_size
    for first in range(run.iteration * size, settings.schedule.iterations * size, size):
        run.advance([stream[number] for number in range(first, first + size)])
    return run.export()


def _nothing_to_ask(where: str) -> InputError:
    return InputError(
        "E176",
        f"No picture of {where} shows a segment.",
        why="A masker learns from segments that are large enough to point at.",
        fix="Check the annotations, prompts.least_area and the scales of the augmentation.",
    )


class _Run:
    """State of a run: network, optimiser, and the iteration that comes next."""

    def __init__(self, settings: MaskerTraining) -> None:
        self.settings, self.iteration = settings, 0
        torch.manual_seed(settings.seed)
        self.model = (_initialised if settings.start is None else _loaded)(settings)
        self.optimiser = build_optimiser(self.model, settings.schedule)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def advance(self, pictures: Sequence[PromptedPicture]) -> None:
        """One optimiser step on a batch: every prompted segment by its box and by its point."""
        owners = torch.repeat_interleave(torch.tensor([len(picture.prompts.boxes) for picture in pictures]))
        if not len(owners):
            raise _nothing_to_ask(f"batch {self.iteration}")
        by_box, by_point = self._losses(pictures, owners)
        loss = by_box.total() + by_point.total()
        norm = step(loss, self.optimiser, self.scaler, self.settings.schedule, self.iteration)
        self.iteration += 1
        last = self.iteration == self.settings.schedule.iterations
        if last or self.iteration % self.settings.log_every == 0:
            self._log({"loss": loss, "gradient_norm": norm}, by_box, by_point)
        if last or self.iteration % self.settings.save_every == 0:
            self.save()

    def _losses(self, pictures: Sequence[PromptedPicture], owners: Tensor) -> tuple[PromptLosses, PromptLosses]:
        """Of the single mask for boxes and of the several masks for points; `owners` (n,) are the prompts' pictures."""
        images = torch.stack([picture.image for picture in pictures])
        boxes, points, truth = map(torch.cat, zip(*(picture.prompts for picture in pictures), strict=True))
        embeddings = self.model.vision_encoder((images - _MEAN) / _STD).last_hidden_state[owners]
        one = self.model(image_embeddings=embeddings, input_boxes=boxes[:, None], multimask_output=False)
        several = self.model(image_embeddings=embeddings, input_points=points[:, None, None], multimask_output=True)
        coverage = F.adaptive_avg_pool2d(truth.float(), one.pred_masks.shape[-2:])
        by_box, by_point = (
            prompt_losses(output.pred_masks[:, 0], output.iou_scores[:, 0], coverage) for output in (one, several)
        )
        return by_box, by_point

    def _log(self, whole: dict[str, Tensor], by_box: PromptLosses, by_point: PromptLosses) -> None:
        entry = {"iteration": self.iteration, **{name: value.item() for name, value in whole.items()}}
        for kind, losses in (("box", by_box), ("point", by_point)):
            entry |= {f"{kind}_{name}": value.item() for name, value in losses._asdict().items()}
        append_log(self.settings.output / LOG_FILE, entry)

    def save(self) -> None:
        """Write what `resume` needs."""
        parts = (self.model.state_dict(), self.optimiser.state_dict(), self.scaler.state_dict())
        write_state(self.settings.output / STATE_FILE, RunState(*parts, self.iteration, self.settings.identity()))

    def resume(self) -> None:
        """Take up the state found in the output folder, if any."""
        self.settings.output.mkdir(parents=True, exist_ok=True)
        state = read_own_state(self.settings.output / STATE_FILE, self.settings.identity(), _CPU)
        if state is None:
            return
        self.model.load_state_dict(state.model)
        self.optimiser.load_state_dict(state.optimiser)
        self.iteration = state.iteration

    def export(self) -> Path:
        """Write the network as the hub has SAMs; half precision halves the file."""
        folder = self.settings.output / EXPORT_FOLDER
        copy.deepcopy(self.model).half().save_pretrained(folder)
        side = self.settings.jitter.size
        SamImageProcessor(
            size={"longest_edge": side},
            pad_size={"height": side, "width": side},
            image_mean=[_MEAN / 255] * 3,
            image_std=[_STD / 255] * 3,
        ).save_pretrained(folder)
        return folder


def _initialised(settings: MaskerTraining) -> SamModel:
    """A network to be trained from scratch.

    The library only expects to load SAM: its vision tower starts at 1e-10 and its frequencies at hidden_size / 2.
    These are the layers' own defaults and frequencies of deviation 1, as in the original.
    """
    model = SamModel(settings.network)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    torch.nn.init.normal_(model.shared_image_embedding.positional_embedding)
    return _trainable(model)


def _loaded(settings: MaskerTraining) -> SamModel:
    """The network of an earlier run."""
    assert settings.start is not None
    path = settings.start / WEIGHTS_FILE
    return _trainable(load_network(SamModel, settings.network, read_weights(path), path, "the network to go on with"))


def _trainable(model: SamModel) -> SamModel:
    """In training mode; the frequencies of coordinates stay as they were drawn, as in the original."""
    model.train().requires_grad_(True)
    model.shared_image_embedding.positional_embedding.requires_grad_(False)
    return model
