"""A corpus whose captions say what its pictures show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from retclip.core.errors import InputError
from retclip.core.vocabulary import Vocabulary, normalise_name
from retclip.corpora.caption_miner import CaptionMiner
from retclip.ports.corpora import Corpus, CorpusClass, CorpusImage, ImageLabel, Region, RegionKind


class MinedCorpus:
    """Another corpus, with labels mined from its captions added to its own.

    A mined label never replaces a statement of the corpus: where it says that a class is there, or was verified to be
    absent, the caption is not heard. The confidence of a mined label is the share of the picture's captions that
    mention the class; people mention what matters, so five captions out of five are more than one out of five.

    Args:
        corpus: any corpus with captions.
        vocabulary: the classes to look for.
        min_count: classes that fewer captions of the corpus mention are not mined; more than 1 costs a walk through
            all captions when the corpus is opened.

    Raises:
        InputError: E108 if min_count is above 1 and leaves no class.
    """

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, min_count: int = 1) -> None:
        self._corpus, self._miner, self._vocabulary = corpus, CaptionMiner(vocabulary), vocabulary
        self._classes, self._raw = _join(corpus.classes, vocabulary)
        self._rare: list[str] = []
        if min_count > 1:
            self._drop_rare(min_count)

    @property
    def name(self) -> str:
        """Name of the corpus inside."""
        return self._corpus.name

    @property
    def classes(self) -> tuple[CorpusClass, ...]:
        """Classes of the corpus, then those of the vocabulary that it does not have under any of their names."""
        return self._classes

    def size(self) -> int | None:
        """Pictures that `images` gives."""
        return self._corpus.size()

    def images(self) -> Iterator[CorpusImage]:
        """Pictures of the corpus in its order, also those whose captions name no class.

        Raises:
            InputError: E108 after the last picture if there were captions and none of them named a class.
        """
        captions = mined = 0
        for image in self._corpus.images():
            labels = self._labels(image)
            captions, mined = captions + len(image.captions), mined + len(labels)
            known = {label.name for label in image.labels}
            added = tuple(label for label in labels if label.name not in known)
            yield replace(image, labels=(*image.labels, *added)) if added else image
        if captions and not mined:
            raise self._nothing(captions)

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """Regions that the corpus has annotated; captions have none."""
        return self._corpus.regions(image, size, kind)

    def warnings(self) -> list[str]:
        """Those of the corpus, names that several classes share, and classes that were too rare."""
        found = self._corpus.warnings()
        for name, owners in self._miner.ambiguous.items():
            found.append(f"'{name}' is a name of {', '.join(owners)} and is not looked for in captions")
        if self._rare:
            found.append(f"{len(self._rare):,} classes are mentioned too rarely: {', '.join(self._rare[:5])}")
        return found

    def _labels(self, image: CorpusImage) -> list[ImageLabel]:
        counts: Counter[str] = Counter()
        for caption in image.captions:
            # No set: labels keep one order between runs, units of work are known by it.
            counts.update(dict.fromkeys((mention.name for mention in self._miner.mine(caption)), 1))
        share = 1 / max(len(image.captions), 1)
        return [
            ImageLabel(self._raw[name], "caption", count * share, True)
            for name, count in counts.items()
            if name in self._raw
        ]

    def _drop_rare(self, min_count: int) -> None:
        counts: Counter[str] = Counter()
        captions = 0
        for image in self._corpus.images():
            for caption in image.captions:
                captions += 1
                counts.update({mention.name for mention in self._miner.mine(caption)})
        self._rare = [name for name in self._vocabulary.names if 0 < counts[name] < min_count]
        kept = {name for name, count in counts.items() if count >= min_count}
        self._raw = {name: raw for name, raw in self._raw.items() if name in kept}
        if not kept:
            raise self._nothing(captions)

    def _nothing(self, captions: int) -> InputError:
        names = self._vocabulary.names
        return InputError(
            "E108",
            f"Captions matched no class (0 of {captions:,}).",
            why=f"The class list has {len(names):,} names such as {', '.join(repr(name) for name in names[:3])}.",
            fix="Add synonyms to the classes (name, synonym, ...), or check that captions are in their language.",
        )


def _join(known: tuple[CorpusClass, ...], vocabulary: Vocabulary) -> tuple[tuple[CorpusClass, ...], dict[str, str]]:
    """All classes, and the raw label to use for every category of the vocabulary.

    A category is a class of the corpus if the class's own name or label is one of the category's names; for several
    the first name decides.
    """
    own = {normalise_name(name): item.raw for item in reversed(known) for name in (item.raw, item.name)}
    raw, added = {}, []
    for category in vocabulary:
        match = next((own[normalise_name(name)] for name in category.names if normalise_name(name) in own), None)
        raw[category.name] = match or category.name
        if match is None:
            added.append(CorpusClass(category.name, category.name, category.names[1:], category.is_thing))
    return (*known, *added), raw
