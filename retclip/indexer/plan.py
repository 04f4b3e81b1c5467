"""What is to be done: fixed units of pictures, each with a key that says whether it was done before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from retclip.core.identity import FeatureSpace
from retclip.core.vocabulary import Vocabulary, normalise_name
from retclip.ports.corpora import Corpus, CorpusClass, CorpusImage

if TYPE_CHECKING:  # it imports torch, and plans are made before missing networks are told
    from retclip.indexer.regions import RegionSource


@dataclass(frozen=True)
class BuildRequest:
    """What to take from a corpus.

    Attributes:
        corpus: where pictures and labels come from.
        source: where the regions of a picture come from.
        vocabulary: only regions of these classes; None takes all.
        limit: at most so many pictures.
        per_class_cap: at most so many live segments of one class in the database.
        batch: pictures per unit.
        min_area: smaller regions (pixels) are left out.
        thumbnails: longest side of stored thumbnails in pixels, 0 = none.
        shard_rows: segments per shard.
        models: networks that take part, as `Transaction.record_models` wants them.
    """

    corpus: Corpus
    source: RegionSource
    vocabulary: Vocabulary | None = None
    limit: int | None = None
    per_class_cap: int | None = None
    batch: int = 8
    min_area: int = 1
    thumbnails: int = 128
    shard_rows: int = 262_144
    models: tuple[Mapping[str, str], ...] = ()

    def images(self) -> Iterator[CorpusImage]:
        """The pictures to look at, in the corpus's own order."""
        return islice(self.corpus.images(), self.limit)

    def size(self) -> int | None:
        """How many pictures there are; None where only reading them all could tell."""
        size = self.corpus.size()
        return size if size is None or self.limit is None else min(size, self.limit)

    def wanted(self) -> dict[str, CorpusClass]:
        """Corpus classes to take, by raw label."""
        return wanted_classes(self.corpus, self.vocabulary)

    def job(self, space: FeatureSpace) -> str:
        """Name of the ledger: equal for runs whose units can stand in for each other."""
        classes = sorted((item.raw, item.name, item.is_thing) for item in self.wanted().values())
        settings = [space.fingerprint, self.corpus.name, self.source.identity, classes, self.min_area]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def wanted_classes(corpus: Corpus, vocabulary: Vocabulary | None) -> dict[str, CorpusClass]:
    """Classes of a corpus that share a name with an asked category (None: all), by raw label."""
    if vocabulary is None:
        return {item.raw: item for item in corpus.classes}
    asked = {normalise_name(name) for category in vocabulary for name in category.names}
    return {
        item.raw: item
        for item in corpus.classes
        if asked & {normalise_name(name) for name in (item.raw, item.name, *item.aliases)}
    }


@dataclass(frozen=True)
class WorkUnit:
    """Pictures that are encoded together; `key` changes when a picture's file or image labels change.

    Corrected masks or boxes do not change it: forget an interrupted run (`--restart`) after correcting them.
    """

    key: str
    images: tuple[CorpusImage, ...]


def work_units(images: Iterable[CorpusImage], batch: int) -> Iterator[WorkUnit]:
    """Cut a stream of pictures into units of `batch`. Raises nothing for vanished files: the build reports them."""
    iterator = iter(images)
    while members := tuple(islice(iterator, batch)):
        yield WorkUnit(_key(members), members)


def _key(images: tuple[CorpusImage, ...]) -> str:
    facts = []
    for image in images:
        try:
            status = image.path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
        except OSError:
            stamp = []
        labels = [[label.name, label.present, label.confidence] for label in image.labels]
        facts.append([image.source, image.split, image.image_id, stamp, labels])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
