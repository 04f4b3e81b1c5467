"""What a corpus holds, before anything is built from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from retclip.core.vocabulary import Vocabulary, normalise_name
from retclip.ports.corpora import Corpus, CorpusClass, CorpusImage


@dataclass(frozen=True)
class CorpusDescription:
    """Counts over all pictures of a corpus.

    Attributes:
        source: name of the corpus.
        images: pictures on disk.
        labelled: those with at least one label that is present.
        captioned: those with at least one caption.
        classes: size of the corpus's class list.
        images_by_class: pictures by name of class that is wanted, most frequent first.
        absent: statements that a class is absent.
        unmapped: pictures by label that is in no class of the corpus or, where a vocabulary was given, of the latter.
        samples: the first records, where a vocabulary was given of pictures with a class of it.
        warnings: sentences of the corpus, among them counts of missing files.
    """

    source: str
    images: int
    labelled: int
    captioned: int
    classes: int
    images_by_class: dict[str, int]
    absent: int
    unmapped: dict[str, int]
    samples: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def describe(corpus: Corpus, vocabulary: Vocabulary | None = None, limit: int = 3) -> CorpusDescription:
    """Walk a corpus once without decoding a picture.

    Args:
        corpus: an opened corpus.
        vocabulary: classes that are wanted; labels that match none of their names count as unmapped.
        limit: number of sample records.
    """
    classes = _wanted(corpus, vocabulary)
    by_class: Counter[str] = Counter()
    unmapped: Counter[str] = Counter()
    samples: list[dict[str, Any]] = []
    images = labelled = captioned = absent = 0
    for image in corpus.images():
        images += 1
        present = [label.name for label in image.labels if label.present]
        labelled += bool(present)
        captioned += bool(image.captions)
        absent += len(image.labels) - len(present)
        by_class.update({classes[name].name for name in present if name in classes})
        unmapped.update(set(present) - set(classes))
        if len(samples) < limit and (vocabulary is None or not classes.keys().isdisjoint(present)):
            samples.append(_sample(image))
    return CorpusDescription(
        corpus.name, images, labelled, captioned, len(corpus.classes), _ranked(by_class), absent, _ranked(unmapped),
        tuple(samples), tuple(corpus.warnings()),
    )  # fmt: skip


def _wanted(corpus: Corpus, vocabulary: Vocabulary | None) -> dict[str, CorpusClass]:
    """Classes that share a name with the vocabulary (None: all), by raw label."""
    asked = {normalise_name(name) for category in vocabulary or () for name in category.names}
    return {
        known.raw: known
        for known in corpus.classes
        if vocabulary is None or asked & {normalise_name(name) for name in (known.name, *known.aliases)}
    }


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _sample(image: CorpusImage) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "path": str(image.path),
        "split": image.split,
        "labels": [label.name for label in image.labels if label.present],
        "captions": list(image.captions),
        "license": image.license,
    }
