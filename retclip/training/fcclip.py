"""Training FC-CLIP's heads on panoptic annotations; the CLIP stays frozen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from retclip.core.errors import InputError, ModelError
from retclip.core.vocabulary import Vocabulary
from retclip.segmenters.fcclip.checkpoint import load_clip_weights
from retclip.segmenters.fcclip.model import FCCLIP, ClassWeights
from retclip.segmenters.fcclip.preprocessing import DIVISOR, normalised_batch
from retclip.segmenters.fcclip.text import encode_names
from retclip.segmenters.fcclip.variants import Variant, build_fcclip, variant_named
from retclip.segmenters.layers.classification import TextRows
from retclip.training.augmentation import JitterSettings
from retclip.training.coco_panoptic import Folders, JitteredStream, Sample, read_annotations
from retclip.training.distributed import Workers, join_workers
from retclip.training.losses import Guess, LossSettings, LossTerms, set_losses
from retclip.training.optimiser import Schedule, build_optimiser, step
from retclip.training.points import Uniform
from retclip.training.state import RunState, append_log, read_own_state, write_state

STATE_FILE, WEIGHTS_FILE, LOG_FILE = "state.pt", "model.safetensors", "log.jsonl"


@dataclass(frozen=True)
class TrainSettings:
    """One training run; the defaults are the released recipe.

    Attributes:
        folders: of the data set, in COCO's panoptic layout.
        vocabulary: its classes with all their names; category ids as in the annotations.
        output: folder for the run's state, log and weights. A run found there is resumed.
        variant: name or description of the network.
        clip_weights: open_clip's weights of the frozen CLIP; None leaves it random, which only tests want.
        schedule, loss, jitter: the recipe.
        device: `cpu` or `cuda`.
        amp: mixed precision: float16 with loss scaling on a GPU, bfloat16 on a CPU.
        seed: of initial weights, sample order, augmentation and points.
        loader_processes: that read images, per worker.
        save_every, log_every: iterations.
    """

    folders: Folders
    vocabulary: Vocabulary
    output: Path
    variant: Variant | str = "convnext-large"
    clip_weights: Path | None = None
    schedule: Schedule = field(default_factory=Schedule)
    loss: LossSettings = field(default_factory=LossSettings)
    jitter: JitterSettings = field(default_factory=JitterSettings)
    device: str = "cuda"
    amp: bool = True
    seed: int = 0
    loader_processes: int = 4
    save_every: int = 5_000
    log_every: int = 20

    def identity(self, workers: int) -> dict[str, Any]:
        """What must agree for a run to be resumed."""
        variant = variant_named(self.variant) if isinstance(self.variant, str) else self.variant
        names = [list(category.names) for category in self.vocabulary]
        return {
            "variant": variant.name,
            "seed": self.seed,
            "batch_size": self.schedule.batch_size,
            "workers": workers,
            "iterations": self.schedule.iterations,
            "names": json.dumps(names),
        }


class TrainedNetwork(nn.Module):
    """The network as the gradient exchange wants it: one forward pass that uses every trained parameter."""

    def __init__(self, model: FCCLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, text: TextRows) -> list[Guess]:
        """Normalised images -> the guesses of all layers, the final one last."""
        predictions = self.model(images, every_layer=True).predictions
        return [Guess(self.model.in_vocabulary_logits(p.class_vectors, text), p.mask_logits) for p in predictions]


@dataclass(frozen=True)
class Step:
    """One finished step: iterations done of all, and the loss of this worker's images."""

    iteration: int
    iterations: int
    loss: float


@dataclass(frozen=True)
class TrainReport:
    """A finished run.

    Attributes:
        weights: the whole network in the released layout.
        iterations: of the run; resumed_from: how many of them an earlier call had done.
        loss: of the last step of this call, None if nothing was left to do.
    """

    weights: Path
    iterations: int
    resumed_from: int
    loss: float | None


def train(settings: TrainSettings, on_step: Callable[[Step], None] = lambda step: None) -> TrainReport:
    """Train, or resume, a run; leaves `model.safetensors` in the released layout in `settings.output`.

    Under `torchrun` every process calls this and the batch is divided among them.

    Args:
        settings: the run.
        on_step: called after every step. A KeyboardInterrupt it raises ends the run with its state saved.

    Raises:
        InputError: E171..E174 bad annotations, E175 another run's state in the folder, E176 settings that cannot work,
            E178 a damaged state.
        ModelError: weights that do not fit (E2xx), E210 a loss that is not finite.
    """
    with join_workers(settings.device) as workers:
        _check(settings, workers)
        pictures = read_annotations(settings.folders, settings.vocabulary)
        if not pictures:
            raise _impossible(f"{settings.folders.annotations} annotates no image.", "Check the annotation file.")
        run = _Run(settings, workers)
        run.resume()
        first, loss = run.iteration, None
        stream = JitteredStream(pictures, settings.jitter, settings.seed)
        for samples in _batches(stream, settings, workers, first):
            loss = run.advance(samples)
            try:
                on_step(Step(run.iteration, settings.schedule.iterations, loss))
            except KeyboardInterrupt:
                run.save()
                raise
        run.finish()
        return TrainReport(settings.output / WEIGHTS_FILE, run.iteration, first, loss)


def _check(settings: TrainSettings, workers: Workers) -> None:
    images, size = settings.schedule.batch_size, settings.jitter.size
    if images % workers.count:
        raise _impossible(f"{workers.count} workers cannot share {images} images.", "Choose a multiple as batch size.")
    if size % DIVISOR:
        raise _impossible(f"Squares of {size} pixels do not fit the strides.", f"Choose a multiple of {DIVISOR}.")


def _impossible(what: str, fix: str) -> InputError:
    return InputError("E176", what, why="This run could not do a single step.", fix=fix)


def _batches(stream: JitteredStream, settings: TrainSettings, workers: Workers, first: int) -> Iterable[list[Sample]]:
    """This worker's share of every batch from iteration `first` on."""
    share = settings.schedule.batch_size // workers.count
    numbers = [
        iteration * settings.schedule.batch_size + workers.rank * share + place
        for iteration in range(first, settings.schedule.iterations)
        for place in range(share)
    ]
    return DataLoader(
        stream,
        batch_size=share,
        sampler=numbers,
        num_workers=settings.loader_processes,
        collate_fn=list,
        persistent_workers=False,
    )


class _Run:
    """State of a run: network, optimiser, scaler, and the iteration that comes next."""

    def __init__(self, settings: TrainSettings, workers: Workers) -> None:
        self.settings, self.workers, self.iteration = settings, workers, 0
        torch.manual_seed(settings.seed)
        self.model = build_fcclip(settings.variant)
        # The released buffer has the training set's length, whatever the variant's default says.
        self.model.criterion = ClassWeights(len(settings.vocabulary))
        if settings.clip_weights is not None:
            load_clip_weights(settings.clip_weights, self.model)
        self.model.to(workers.device).train()
        self.text = self._text_rows()
        self.optimiser = build_optimiser(self.model, settings.schedule)
        on_gpu = workers.device.type == "cuda"
        self.precision = torch.float16 if on_gpu else torch.bfloat16
        self.scaler = torch.amp.GradScaler(workers.device.type, enabled=settings.amp and on_gpu)
        self.network: nn.Module = TrainedNetwork(self.model)
        if workers.count > 1:
            self.network = DistributedDataParallel(self.network, device_ids=[workers.device] if on_gpu else None)

    def _text_rows(self) -> TextRows:
        names = [category.names for category in self.settings.vocabulary]
        return encode_names(names, self.model.backbone.encode_text, SimpleTokenizer(), self.workers.device)

    def advance(self, samples: list[Sample]) -> float:
        """One optimiser step on this worker's share of a batch; returns its loss."""
        device = self.workers.device
        targets = [sample.targets.to(device) for sample in samples]
        images = normalised_batch([sample.image for sample in samples], device)
        with torch.autocast(device.type, self.precision, enabled=self.settings.amp):
            guesses = self.network(images, self.text)
        masks = max(1.0, self.workers.mean(sum(len(target.labels) for target in targets)))
        weights = self.model.criterion.empty_weight
        terms = set_losses(guesses, targets, weights, masks, self.settings.loss, self._uniform())
        total = torch.stack([term for layer in terms for term in layer]).sum()
        if not torch.isfinite(total):
            raise ModelError(
                "E210",
                f"The loss is {total.item()} at iteration {self.iteration}.",
                why="Training has diverged; the last saved state is still good.",
                fix="Resume without amp, or with a smaller learning rate.",
            )
        norm = step(total, self.optimiser, self.scaler, self.settings.schedule, self.iteration)
        self.iteration += 1
        last = self.iteration == self.settings.schedule.iterations
        if last or self.iteration % self.settings.log_every == 0:
            self._log(total.item(), norm.item(), terms[-1])
        if last or self.iteration % self.settings.save_every == 0:
            self.save()
        return total.item()

    def _uniform(self) -> Uniform:
        """Random numbers that depend on seed, iteration and rank only, so that a resumed run draws the same."""
        words = np.random.SeedSequence([self.settings.seed, 2, self.iteration, self.workers.rank]).generate_state(2)
        generator = torch.Generator(self.workers.device).manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
        return lambda shape: torch.rand(shape, generator=generator, device=self.workers.device)

    def _log(self, total: float, norm: float, final: LossTerms) -> None:
        if self.workers.is_first:
            entry = {
                "iteration": self.iteration,
                "loss": total,
                "gradient_norm": norm,
                "learning_rate": self.settings.schedule.rate(self.iteration - 1),
                **{name: value.item() for name, value in final._asdict().items()},
            }
            append_log(self.settings.output / LOG_FILE, entry)

    def save(self) -> None:
        """Write what `resume` needs."""
        if not self.workers.is_first:
            return
        trained = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        state = RunState(
            trained,
            self.optimiser.state_dict(),
            self.scaler.state_dict(),
            self.iteration,
            self.settings.identity(self.workers.count),
        )
        write_state(self.settings.output / STATE_FILE, state)

    def resume(self) -> None:
        """Take up the state found in the output folder, if any."""
        self.settings.output.mkdir(parents=True, exist_ok=True)
        identity = self.settings.identity(self.workers.count)
        state = read_own_state(self.settings.output / STATE_FILE, identity, self.workers.device)
        if state is None:
            return
        unknown = self.model.load_state_dict(state.model, strict=False).unexpected_keys
        assert not unknown, unknown  # the identity agreed, so the names do
        self.optimiser.load_state_dict(state.optimiser)
        self.scaler.load_state_dict(state.scaler)
        self.iteration = state.iteration

    def finish(self) -> None:
        """Write the whole network in the released layout."""
        if self.workers.is_first:
            weights = {key: value.contiguous() for key, value in self.model.state_dict().items()}
            save_file(weights, self.settings.output / WEIGHTS_FILE, metadata={"format": "pt"})
