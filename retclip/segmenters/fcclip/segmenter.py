"""FC-CLIP in use: pictures in; what one pass yields, or FC-CLIP's own panoptic maps, out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from retclip.adapters.open_clip.prompts import NameRows
from retclip.adapters.open_clip.text_store import TextStore
from retclip.core.errors import require
from retclip.core.masks import Frame, Size
from retclip.core.panoptic import PanopticMap
from retclip.core.vocabulary import Vocabulary, seen_classes
from retclip.segmenters.fcclip.ensemble import EnsembleWeights, geometric_ensemble
from retclip.segmenters.fcclip.inference import PanopticThresholds, panoptic_map
from retclip.segmenters.fcclip.model import FCCLIP
from retclip.segmenters.fcclip.preprocessing import (
    Resolution,
    full_size,
    normalised_batch,
    padded_size,
    resize_picture,
    resized_size,
)
from retclip.segmenters.layers.classification import TextRows

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImagePass:
    """What one image pass yields for one image and one vocabulary of C classes. Tensors stay on the model's device.

    Attributes:
        mask_logits: (Q, h, w) float32 at a quarter of `frame.padded`.
        class_logits: (Q, C + 1) of the trained head, void last.
        embeddings: (Q, D) mask-pooled CLIP vectors in the text space, not normalised: the retrieval keys.
        valid: (Q,) bool, masks with a positive cell at stride 32; elsewhere the embedding means nothing.
        dense: (C', h', w') CLIP features at stride 32 of `frame.padded`, not normalised.
        frame: sizes of batch, image and picture.
    """

    mask_logits: Tensor
    class_logits: Tensor
    embeddings: Tensor
    valid: Tensor
    dense: Tensor
    frame: Frame

    @property
    def in_vocabulary(self) -> Tensor:
        """(Q, C) probabilities of the trained head among the classes, void left out."""
        return self.class_logits[:, :-1].softmax(-1)

    @property
    def void(self) -> Tensor:
        """(Q,) probability that a mask is no object of the vocabulary."""
        return self.class_logits.softmax(-1)[:, -1]

    def full_size(self, queries: Tensor) -> Tensor:
        """Mask logits (n, H, W) of some queries at the picture's own resolution."""
        return full_size(self.mask_logits[queries], self.frame)


@dataclass(frozen=True)
class SegmenterSettings:
    """How the network is used.

    Attributes:
        training_names: all class names of the training set; they decide which classes count as seen.
        ensemble, thresholds, resolution: of the release.
        batch_size: pictures per pass. Only pictures of equal padded size share one, so that a picture's result does not
            depend on its companions.
        precision: float32, or bfloat16 for autocast of all but the pixel decoder.
    """

    training_names: frozenset[str]
    ensemble: EnsembleWeights = field(default_factory=EnsembleWeights)
    thresholds: PanopticThresholds = field(default_factory=PanopticThresholds)
    resolution: Resolution = field(default_factory=Resolution)
    batch_size: int = 1
    precision: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        require(self.batch_size > 0, "SegmenterSettings.batch_size", "> 0", self.batch_size)
        require(
            self.precision in (torch.float32, torch.bfloat16),
            "SegmenterSettings.precision",
            "float32 or bfloat16",
            self.precision,
        )


class FCCLIPSegmenter:
    """Runs FC-CLIP on pictures of any size.

    Args:
        model: the network with its weights, on its device.
        settings: see `SegmenterSettings`.
        store: text rows of this very text tower on disk; None keeps none.
    """

    def __init__(self, model: FCCLIP, settings: SegmenterSettings, store: TextStore | None = None) -> None:
        self.model = model.eval()
        self.settings = settings
        self.names = NameRows(model.backbone.encode_text, SimpleTokenizer(), self.device, store)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.model.void_embedding.weight.device

    @torch.inference_mode()
    def text_rows(self, vocabulary: Vocabulary) -> TextRows:
        """Text vectors of a vocabulary."""
        names = [name for category in vocabulary for name in category.names]
        return TextRows(self.names.rows(names), tuple(len(category.names) for category in vocabulary))

    def passes(self, images: Sequence[Pixels], vocabulary: Vocabulary) -> list[ImagePass]:
        """RGB pictures (H, W, 3) uint8 of any sizes -> what their passes yield, in the same order."""
        found = dict(self.iterate(images, vocabulary))
        return [found[index] for index in range(len(images))]

    def segment(self, images: Sequence[Pixels], vocabulary: Vocabulary) -> list[PanopticMap]:
        """RGB pictures (H, W, 3) uint8 -> panoptic maps at their own sizes, by FC-CLIP's geometric ensemble."""
        # One map at a time: the passes of a whole folder would not fit into memory.
        maps = {index: self.merge(image_pass, vocabulary) for index, image_pass in self.iterate(images, vocabulary)}
        return [maps[index] for index in range(len(images))]

    @torch.inference_mode()
    def merge(self, image_pass: ImagePass, vocabulary: Vocabulary) -> PanopticMap:
        """Panoptic map of one image."""
        probabilities = self.log_probabilities(image_pass, vocabulary).softmax(-1)
        return panoptic_map(
            image_pass.mask_logits, probabilities, image_pass.frame, vocabulary, self.settings.thresholds
        )

    @torch.inference_mode()
    def log_probabilities(self, image_pass: ImagePass, vocabulary: Vocabulary) -> Tensor:
        """(Q, C + 1) log-probabilities after the geometric ensemble, void last."""
        outside = self.model.out_of_vocabulary_logits(image_pass.embeddings, self.text_rows(vocabulary))
        seen = torch.tensor(seen_classes(vocabulary, self.settings.training_names), device=self.device)
        return geometric_ensemble(image_pass.class_logits, outside, seen, image_pass.valid, self.settings.ensemble)

    def iterate(self, images: Sequence[Pixels], vocabulary: Vocabulary) -> Iterator[tuple[int, ImagePass]]:
        """(index, pass) in the order of computing: pictures of equal padded size together."""
        text = self.text_rows(vocabulary)
        for indices, batch in self.batches(images):
            frames = [frame for _, frame in batch]
            yield from zip(indices, self._pass([pixels for pixels, _ in batch], frames, text), strict=True)

    def batches(self, images: Sequence[Pixels]) -> Iterator[tuple[list[int], list[tuple[Pixels, Frame]]]]:
        """(indices, resized pictures with their frames) of equal padded size, at most `batch_size` at a time."""
        sizes = [resized_size(image.shape[0], image.shape[1], self.settings.resolution) for image in images]
        for indices in self._grouped(sizes):
            yield (
                indices,
                [
                    (
                        resize_picture(images[i], sizes[i]),
                        Frame(padded_size([sizes[i]]), sizes[i], (images[i].shape[0], images[i].shape[1])),
                    )
                    for i in indices
                ],
            )

    def _grouped(self, sizes: Sequence[Size]) -> Iterable[list[int]]:
        groups: defaultdict[Size, list[int]] = defaultdict(list)
        for index, size in enumerate(sizes):
            groups[padded_size([size])].append(index)
        step = self.settings.batch_size
        return [group[i : i + step] for group in groups.values() for i in range(0, len(group), step)]

    @torch.inference_mode()
    def _pass(self, images: Sequence[Pixels], frames: Sequence[Frame], text: TextRows) -> list[ImagePass]:
        batch = self.normalised(images)
        precision = self.settings.precision
        with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
            output = self.model(batch)
            final = output.predictions[-1]
            embeddings, valid = self.model.embed(output.dense, final.mask_logits)
        logits = self.model.in_vocabulary_logits(final.class_vectors.float(), text)
        parts = zip(final.mask_logits.float(), logits, embeddings.float(), valid, output.dense.float(), strict=True)
        return [ImagePass(*part, frame) for part, frame in zip(parts, frames, strict=True)]

    def normalised(self, images: Sequence[Pixels]) -> Tensor:
        """Resized pictures -> (B, 3, H, W) on the device, normalised and padded."""
        # np.array copies: torch refuses read-only memory, which Pillow's images are.
        tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
        return normalised_batch(tensors, self.device)
