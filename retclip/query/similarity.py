"""What the text tower says: likeness of segments to class names."""

from __future__ import annotations

import torch
from torch import Tensor

from retclip.core.vocabulary import Vocabulary
from retclip.ports.encoders import TextEncoder


class TextSimilarity:
    """Scores segments by cosine with class texts; the texts of one vocabulary are encoded once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._cache: tuple[Vocabulary, Tensor] | None = None

    def scores(self, keys: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Unit vectors (N, D) -> (N, C) probabilities over the asked classes, no void."""
        texts = self._texts(vocabulary).to(keys.device)
        counts = [len(category.names) for category in vocabulary]
        return class_probabilities(keys, texts, counts, self._encoder.logit_scale)

    def _texts(self, vocabulary: Vocabulary) -> Tensor:
        if self._cache is None or self._cache[0] != vocabulary:
            names = [name for category in vocabulary for name in category.names]
            self._cache = (vocabulary, self._encoder.encode_names(names))
        return self._cache[1]


def class_probabilities(keys: Tensor, texts: Tensor, names_per_class: list[int], logit_scale: float) -> Tensor:
    """Softmax over classes of scale * cosine, a class being as close as its closest name (FC-CLIP's text side).

    Args:
        keys: (N, D) unit vectors.
        texts: (T, D) unit vectors, one per name, grouped by class.
        names_per_class: how many names each of the C classes has; they sum to T.
        logit_scale: temperature, already exponentiated.

    Returns:
        (N, C), rows sum to 1.
    """
    cosine = keys.float() @ texts.float().T
    best = torch.stack([group.amax(dim=1) for group in torch.split(cosine, names_per_class, dim=1)], dim=1)
    return (logit_scale * best).softmax(dim=1)
