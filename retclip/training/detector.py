"""Training Grounding DINO from scratch on panoptic annotations: pictures and class names in, boxes out.

The network is MM-Grounding-DINO's (arXiv 2401.02361): its scores have a scale and a bias, so that training starts from
small ones, as the focal loss wants it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertTokenizer,
    GroundingDinoImageProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
)

from retclip.adapters.grounding_dino.network import token_spans
from retclip.core.errors import InputError
from retclip.core.vocabulary import Vocabulary
from retclip.training.asked_boxes import AskedBoxes, AskedPicture, ViewSettings
from retclip.training.coco_panoptic import Folders, read_annotations
from retclip.training.detection import BoxGuess, DetectionLosses, DetectionLossSettings, detection_losses
from retclip.training.optimiser import Schedule, build_optimiser, step
from retclip.training.state import RunState, append_log, read_own_state, write_state
from retclip.training.word_pieces import write_word_pieces

STATE_FILE, LOG_FILE, EXPORT_FOLDER = "state.pt", "log.jsonl", "export"
_CPU = torch.device("cpu")
# What the enhancers add, the full stop of every phrase first of all, is the same for all names.
_QUIET = 0.02
_TEXT_SIDE = ("text_backbone", "text_projection", "text_enhancer_layer", "layer_norm_text", "text_param")


@dataclass(frozen=True)
class DetectorTraining:
    """One run, on a CPU.

    Attributes:
        data: data sets in COCO's panoptic layout; their pictures are mixed.
        vocabulary: names every category of them; its words become the network's own.
        output: folder for the run's state, log and `export/`. A run found there is resumed.
        network: sizes, but for the number of words; a dropout would make a resumed run another one.
        schedule, view, loss: the recipe.
        seed: of initial weights, order, augmentation and prompts.
        save_every, log_every: iterations.
    """

    data: tuple[Folders, ...]
    vocabulary: Vocabulary
    output: Path
    network: MMGroundingDinoConfig
    schedule: Schedule
    view: ViewSettings
    loss: DetectionLossSettings = field(default_factory=DetectionLossSettings)
    seed: int = 0
    save_every: int = 250
    log_every: int = 20

    def identity(self) -> dict[str, Any]:
        """What must agree for a run to be resumed."""
        recipe = {name: asdict(getattr(self, name)) for name in ("schedule", "view", "loss")}
        names = [list(category.names) for category in self.vocabulary]
        parts = {"network": self.network.to_dict(), "names": names, "seed": self.seed, **recipe}
        return {name: json.dumps(part, sort_keys=True) for name, part in parts.items()}


def train_detector(settings: DetectorTraining) -> Path:
    """Train, or resume, a run; returns the folder of the network as transformers saves it, in float16.

    Raises:
        InputError: E171..E174 bad annotations, E175 another run's state in the folder, E176 no annotated
            picture or classes that one prompt cannot hold, E178 a damaged state.
        ModelError: E210 a loss that is not finite.
    """
    pictures = [picture for folders in settings.data for picture in read_annotations(folders, settings.vocabulary)]
    if not pictures:
        raise InputError(
            "E176",
            "There is no annotated picture to train a detector on.",
            why=f"Read {', '.join(str(folders.annotations) for folders in settings.data) or 'no data set'}.",
            fix="Check the annotation files.",
        )
    run = _Run(settings)
    run.resume()
    stream = AskedBoxes(
        pictures,
        settings.vocabulary,
        lambda texts: token_spans(run.tokenizer, texts),
        settings.network.max_text_len,
        settings.view,
        settings.seed,
    )
    size = settings.schedule.batch_size
    for first in range(run.iteration * size, settings.schedule.iterations * size, size):
        run.advance([stream[number] for number in range(first, first + size)])
    return run.export()


class _Run:
    """State of a run: network, optimiser, and the iteration that comes next."""

    def __init__(self, settings: DetectorTraining) -> None:
        self.settings, self.iteration = settings, 0
        self.folder = settings.output / EXPORT_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        names = " ".join(name for category in settings.vocabulary for name in category.names)
        words = write_word_pieces(self.folder / "vocab.txt", re.findall("[a-z0-9]+", names.lower()))
        self.tokenizer = BertTokenizer.from_pretrained(self.folder, local_files_only=True)
        view = settings.view
        self.image_processor = GroundingDinoImageProcessor(
            size={"shortest_edge": min(view.height, view.width), "longest_edge": 2 * max(view.height, view.width)}
        )
        self.mean, self.std = (
            torch.tensor(values).view(3, 1, 1) * 255
            for values in (self.image_processor.image_mean, self.image_processor.image_std)
        )
        network = copy.deepcopy(settings.network)
        network.text_config.vocab_size = words
        torch.manual_seed(settings.seed)
        self.model = _initialised(network)
        self.optimiser = build_optimiser(self.model, settings.schedule, decay_vectors=False)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def advance(self, pictures: Sequence[AskedPicture]) -> None:
        """One optimiser step on a batch."""
        losses = self._losses(pictures)
        loss = torch.stack([term for layer in losses for term in layer]).sum()
        norm = step(loss, self.optimiser, self.scaler, self.settings.schedule, self.iteration)
        self.iteration += 1
        last = self.iteration == self.settings.schedule.iterations
        if last or self.iteration % self.settings.log_every == 0:
            self._log(loss, norm, losses)
        if last or self.iteration % self.settings.save_every == 0:
            self.save()

    def _losses(self, pictures: Sequence[AskedPicture]) -> list[DetectionLosses]:
        """Of the encoder's proposals and of every layer of the decoder, in this order."""
        images = torch.stack([picture.image for picture in pictures])
        words = self.tokenizer([picture.prompt for picture in pictures], padding=True, return_tensors="pt")
        output = self.model(
            pixel_values=(images - self.mean) / self.std,
            pixel_mask=torch.ones_like(images[:, 0], dtype=torch.long),
            input_ids=words["input_ids"],
            token_type_ids=words["token_type_ids"],
            attention_mask=words["attention_mask"],
        )
        proposals = BoxGuess(output.enc_outputs_class, output.enc_outputs_coord_logits.sigmoid())
        layers = self._layers(output, words["attention_mask"])
        length = words["input_ids"].shape[1]
        targets = [picture.targets.cut(length) for picture in pictures]
        weights = self.settings.loss
        return [
            detection_losses(BoxGuess(guess.logits[..., :length], guess.boxes), targets, copies, weights)
            for guess, copies in [(proposals, weights.proposals), *((layer, 1) for layer in layers)]
        ]

    def _layers(self, output: Any, words: Tensor) -> list[BoxGuess]:
        """Guesses of the decoder's layers; the network itself hands out the last alone."""
        starts = [output.init_reference_points, *output.intermediate_reference_points.unbind(1)]
        return [
            BoxGuess(
                self.model.class_embed[layer](states, output.encoder_last_hidden_state_text, words.bool()),
                (self.model.bbox_embed[layer](states) + start.logit(eps=1e-5)).sigmoid(),
            )
            for layer, (states, start) in enumerate(
                zip(output.intermediate_hidden_states.unbind(1), starts[:-1], strict=True)
            )
        ]

    def _log(self, loss: Tensor, norm: Tensor, losses: Sequence[DetectionLosses]) -> None:
        entry = {"iteration": self.iteration, "loss": loss.item(), "gradient_norm": norm.item()}
        for name, layer in (("proposals", losses[0]), ("boxes", losses[-1])):
            entry |= {f"{name}_{term}": value.item() for term, value in layer._asdict().items()}
        append_log(self.settings.output / LOG_FILE, entry)

    def save(self) -> None:
        """Write what `resume` needs."""
        parts = (self.model.state_dict(), self.optimiser.state_dict(), self.scaler.state_dict())
        write_state(self.settings.output / STATE_FILE, RunState(*parts, self.iteration, self.settings.identity()))

    def resume(self) -> None:
        """Take up the state found in the output folder, if any."""
        state = read_own_state(self.settings.output / STATE_FILE, self.settings.identity(), _CPU)
        if state is None:
            return
        self.model.load_state_dict(state.model)
        self.optimiser.load_state_dict(state.optimiser)
        self.iteration = state.iteration

    def export(self) -> Path:
        """Write the network as the hub has Grounding DINOs; half precision halves the file."""
        copy.deepcopy(self.model).half().save_pretrained(self.folder)
        self.tokenizer.save_pretrained(self.folder)
        self.image_processor.save_pretrained(self.folder)
        return self.folder


def _initialised(config: MMGroundingDinoConfig) -> MMGroundingDinoForObjectDetection:
    """A network to be trained from scratch, with words far apart and a text side that stays as it is drawn.

    The released networks start from a language model. A text tower that knows nothing is taught by the first pictures
    that all things are alike, long before anything tells them apart, and its names fall into one.
    """
    model = MMGroundingDinoForObjectDetection(config).train()
    torch.nn.init.normal_(model.model.text_backbone.embeddings.word_embeddings.weight)
    for name, value in model.named_parameters():
        value.requires_grad_(not any(part in name for part in _TEXT_SIDE))
        if "text_enhancer_layer" in name and value.ndim > 1:
            torch.nn.init.normal_(value, std=_QUIET)
    return model
