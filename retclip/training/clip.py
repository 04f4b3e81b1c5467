"""Training a CLIP from nothing on pictures and their captions (Radford et al. 2021, sections 2.3 to 2.5)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save_file
from torch import Tensor, nn

from retclip.adapters.open_clip.backbones import MAX_LOGIT_SCALE, text_features
from retclip.adapters.open_clip.releases import CONFIG_FILE
from retclip.core.errors import InputError
from retclip.core.weights import load_strictly, read_weights
from retclip.segmenters.fcclip.preprocessing import normalised_batch
from retclip.segmenters.fcclip.variants import Variant, build_clip, clip_config, variant_named
from retclip.training.captioned import CaptionBatch, CaptionedPictures
from retclip.training.optimiser import Schedule, build_optimiser, step
from retclip.training.state import RunState, append_log, read_own_state, write_state

STATE_FILE, LOG_FILE, EXPORT_FOLDER, WEIGHTS_FILE = "state.pt", "log.jsonl", "export", "open_clip_model.safetensors"
# ConvNeXt starts with sleeping blocks (weights of 0.02, layer scales of 1e-6) and has hundreds of epochs to wake them.
# In runs of minutes it learns more from weights that keep the variance, and blocks that take part at once.
_LAYER_SCALE = 0.5
_OTHER_START = "Start from the weights of a run with the same variant."


@dataclass(frozen=True)
class ClipTraining:
    """One run.

    Attributes:
        output: folder for the run's state, log and `export/`. A run found there is resumed.
        variant: FC-CLIP variant whose frozen CLIP this becomes.
        start: weights of that CLIP to go on from; None starts from nothing.
        schedule: the recipe.
        device: `cpu` or `cuda`.
        amp: image tower in bfloat16.
        seed: of initial weights; the pictures have their own.
        save_every, log_every: iterations.
    """

    output: Path
    variant: Variant | str = "playground"
    start: Path | None = None
    schedule: Schedule = field(
        default_factory=lambda: Schedule(2_000, 128, 2e-3, (), 0.05, clip=1.0, decay="cosine", warmup=100)
    )
    device: str = "cpu"
    amp: bool = True
    seed: int = 0
    save_every: int = 200
    log_every: int = 20

    def identity(self, pictures: CaptionedPictures) -> dict[str, Any]:
        """What must agree for a run to be resumed."""
        variant = variant_named(self.variant) if isinstance(self.variant, str) else self.variant
        supply = [len(pictures), pictures.seed, asdict(pictures.crop)]
        recipe = json.dumps([asdict(self.schedule), supply])
        return {"variant": variant.name, "seed": self.seed, "amp": self.amp, "recipe": recipe}


def contrastive_loss(images: Tensor, texts: Tensor, log_scale: Tensor, belongs: Tensor) -> Tensor:
    """Mean of the cross entropies picture to texts and text to pictures (CLIP, figure 3).

    A text may belong to several pictures and a picture have several texts, which then share its probability equally
    (UniCL, Yang et al. 2022, section 3.2). With the identity as `belongs` this is CLIP's own loss.

    Args:
        images, texts: (B, D) and (T, D), not normalised.
        log_scale: logarithm of the inverse temperature, one number.
        belongs: (B, T) bool; a picture or text without partner adds nothing.
    """
    scale = log_scale.exp().clamp(max=MAX_LOGIT_SCALE)
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    shares = belongs.to(logits.dtype)
    by_picture = shares / shares.sum(1, keepdim=True).clamp(min=1)
    by_text = shares / shares.sum(0, keepdim=True).clamp(min=1)
    return (F.cross_entropy(logits, by_picture) + F.cross_entropy(logits.T, by_text.T)) / 2


def train_clip(
    settings: ClipTraining, pictures: CaptionedPictures, on_step: Callable[[int, float], None] = lambda done, loss: None
) -> Path:
    """Train, or resume, a run; returns its `export/`, a folder that open_clip's adapter reads.

    Args:
        settings: the run.
        pictures: what it learns from.
        on_step: called with the iterations done and the loss after each.

    Raises:
        InputError: E231 fewer pictures than a batch needs, E175 another run's state in the folder, E178 a damaged one.
        ModelError: E210 a gradient that is not finite.
    """
    size = settings.schedule.batch_size
    if len(pictures) < size:
        raise InputError(
            "E231",
            f"{len(pictures):,} pictures cannot fill a batch of {size:,}.",
            why="A picture would be compared with its own caption as a wrong one.",
            fix="Choose a smaller batch, or give more pictures.",
        )
    run = _Run(settings, pictures)
    run.resume()
    while run.iteration < settings.schedule.iterations:
        loss = run.advance(pictures.batch(run.iteration, size))
        on_step(run.iteration, loss)
    run.finish()
    return settings.output / EXPORT_FOLDER


class _Run:
    """State of a run: network, optimiser, and the iteration that comes next."""

    def __init__(self, settings: ClipTraining, pictures: CaptionedPictures) -> None:
        self.settings, self.iteration = settings, 0
        self.pictures, self.identity = pictures, settings.identity(pictures)
        self.device = torch.device(settings.device)
        torch.manual_seed(settings.seed)
        self.variant = variant_named(settings.variant) if isinstance(settings.variant, str) else settings.variant
        self.clip = new_clip(self.variant)
        if settings.start is not None:
            load_strictly(self.clip, read_weights(settings.start), settings.start, self.variant.name, _OTHER_START)
        self.bag = bag_of_phrases(self.clip.visual.trunk.num_features, pictures.frequencies)
        self.network = nn.ModuleDict({"clip": self.clip, "bag": self.bag}).to(self.device)
        self.optimiser = build_optimiser(self.network, settings.schedule, decay_vectors=False)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)  # bfloat16 needs none

    def advance(self, batch: CaptionBatch) -> float:
        """One optimiser step; returns its loss."""
        images = normalised_batch(list(batch.images), self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.amp):
            pooled = self.clip.visual.trunk(images)
            seen = self.clip.visual.head(pooled).float()
        captions, phrases = (text_features(self.clip, t.to(self.device)) for t in (batch.captions, batch.phrases))
        own = torch.eye(len(seen), dtype=torch.bool, device=self.device)
        whole = contrastive_loss(seen, captions, self.clip.logit_scale, own)
        parts = contrastive_loss(seen, phrases, self.clip.logit_scale, batch.named.to(self.device))
        # Every phrase on its own: while texts are still alike, this alone tells the image tower what to look at.
        bag = F.binary_cross_entropy_with_logits(self.bag(pooled.float()), batch.bag.to(self.device), reduction="sum")
        bag = bag / len(seen)
        loss = whole + parts + bag
        norm = step(loss, self.optimiser, self.scaler, self.settings.schedule, self.iteration)
        self.iteration += 1
        last = self.iteration == self.settings.schedule.iterations
        if last or self.iteration % self.settings.log_every == 0:
            self._log({"loss": loss, "captions": whole, "phrases": parts, "bag": bag, "gradient_norm": norm})
        if last or self.iteration % self.settings.save_every == 0:
            self.save()
        return loss.item()

    def _log(self, figures: dict[str, Tensor]) -> None:
        entry = {
            "iteration": self.iteration,
            "learning_rate": self.settings.schedule.rate(self.iteration - 1),
            "logit_scale": self.clip.logit_scale.exp().item(),
            **{name: value.item() for name, value in figures.items()},
        }
        append_log(self.settings.output / LOG_FILE, entry)

    def save(self) -> None:
        """Write what `resume` needs."""
        state = RunState(
            self.network.state_dict(),
            self.optimiser.state_dict(),
            self.scaler.state_dict(),
            self.iteration,
            self.identity,
        )
        write_state(self.settings.output / STATE_FILE, state)

    def resume(self) -> None:
        """Take up the state found in the output folder, if any."""
        self.settings.output.mkdir(parents=True, exist_ok=True)
        state = read_own_state(self.settings.output / STATE_FILE, self.identity, self.device)
        if state is None:
            return
        self.network.load_state_dict(state.model)
        self.optimiser.load_state_dict(state.optimiser)
        self.iteration = state.iteration

    def finish(self) -> None:
        """Write the release: every word that no text taught gets the mean of those that were taught."""
        weights = {name: value.detach().cpu() for name, value in self.clip.state_dict().items()}
        table = weights["token_embedding.weight"].clone()
        table[~self.pictures.taught] = table[self.pictures.taught].mean(0)
        export_clip(weights | {"token_embedding.weight": table}, self.variant, self.pictures.crop.size, self._exported)

    @property
    def _exported(self) -> Path:
        return self.settings.output / EXPORT_FOLDER


def new_clip(variant: Variant) -> CLIP:
    """The CLIP of a variant with random weights, ready to be trained as a whole."""
    clip: CLIP = build_clip(variant.image, variant.text, variant.dim).clip_model.requires_grad_(True)
    with torch.no_grad():
        for name, value in clip.visual.named_parameters():
            if name.endswith(".gamma"):
                value.fill_(_LAYER_SCALE)
            elif value.ndim > 1:
                nn.init.trunc_normal_(value, std=value[0].numel() ** -0.5)
    return clip.train()


def bag_of_phrases(features: int, frequencies: Tensor) -> nn.Linear:
    """A head that says which phrases the captions of a picture have; it starts with how often each occurs.

    Joulin et al. 2016, "Learning visual features from large weakly supervised data"; needed in training alone.
    """
    head = nn.Linear(features, len(frequencies))
    share = frequencies.clamp(1e-3, 1 - 1e-3)
    with torch.no_grad():
        head.weight.normal_(std=0.03)
        head.bias.copy_((share / (1 - share)).log())
    return head


def export_clip(weights: dict[str, Tensor], variant: Variant, size: int, folder: Path) -> None:
    """Write a folder with open_clip_config.json and weights in float16.

    Args:
        weights: of the whole CLIP; buffers outside its state dict are no part of them.
        variant: whose towers they are.
        size: side of the squares it was trained on, pixels.
        folder: created if needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = clip_config(variant.image, variant.text, variant.dim)
    config["vision_cfg"] |= {"image_size": size}
    preprocessing = {"size": size, "mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD, "interpolation": "bicubic"}
    content = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    half = {name: value.half().contiguous() for name, value in weights.items()}
    save_file(half, folder / WEIGHTS_FILE, metadata={"format": "pt"})
