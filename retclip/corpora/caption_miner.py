"""Which classes a caption says are in its picture, by the words of a class list alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple

from retclip.core.vocabulary import Vocabulary
from retclip.corpora.caption_words import SENTENCE_ENDS, find_spans, find_words

Method = Literal["name", "singular", "phrase"]
_Words = tuple[str, ...]

_NEGATORS = frozenset({"no", "not", "without", "never", "neither", "nor", "lacking", "missing"})
# What is said behind one of these is no longer about the negator or the painting before it.
_PLACES = frozenset(
    {"on", "in", "at", "with", "near", "next", "beside", "behind", "under", "above", "over", "by", "from", "while"}
)
_CONTRASTS = _PLACES | SENTENCE_ENDS | {"but", "and", "except"}
_NEGATION_REACH = 4
_DEPICTIONS = frozenset(
    {"painting", "drawing", "sketch", "illustration", "cartoon", "mural", "caricature", "engraving"}
    | {"sculpture", "statue", "figurine", "carving"}
)
_DEPICTION_REACH = 6


class MinedLabel(NamedTuple):
    """One mention of a class.

    Attributes:
        name: first name of the class.
        synonym: the name of it that was met, as the class list spells it (or what a phrase counts as).
        surface: the words of the caption.
        span: their place in the caption, half-open, in characters.
        method: `name` letter by letter except for case, `singular` where number or possessive differ, `phrase` by the
            list of phrases (`mountain bike` counts as `bike`).
    """

    name: str
    synonym: str
    surface: str
    span: tuple[int, int]
    method: Method


@dataclass(frozen=True)
class _Meaning:
    name: str | None
    synonym: str
    is_phrase: bool


class _Node:
    """words: what may follow; meaning: of the words up to here, if they are complete."""

    __slots__ = ("meaning", "words")

    def __init__(self) -> None:
        self.words: dict[str, _Node] = {}
        self.meaning: _Meaning | None = None


class CaptionMiner:
    """Finds the names of a class list in captions: longest name first, singular and plural alike.

    Not counted are words that form a longer phrase (`hot dog stand`, see caption_phrases.txt), words within reach of a
    negation (`no cars allowed`) and what is only depicted (`a painting of a horse`). A name that several classes share
    belongs to the class that has it as first name, else to none (`ambiguous`).

    Attributes:
        ambiguous: names that were left out -> first names of the classes that share them.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        owners, self.ambiguous = _owners(vocabulary)
        self._root = _Node()
        for words, meaning in owners.items():
            self._learn(words, meaning)
        for words, shown in _phrases():
            if words not in owners:
                owner = owners.get(shown)
                self._learn(words, _Meaning(owner.name if owner else None, " ".join(shown), True))

    def mine(self, caption: str) -> list[MinedLabel]:
        """Mentions in the order they stand; a class may come several times."""
        words = find_words(caption)
        first = self._root.words
        if first.keys().isdisjoint(words):
            return []
        found, free = [], 0
        spans: list[tuple[int, int]] = []
        for start, word in enumerate(words):
            if start < free or word not in first:
                continue
            length, meaning = self._longest(words, start)
            free = start + length
            if meaning and meaning.name and not _is_negated(words, start) and not _is_depicted(words, start):
                spans = spans or find_spans(caption)
                found.append(_label(meaning, meaning.name, caption, (spans[start][0], spans[free - 1][1])))
        return found

    def _learn(self, words: _Words, meaning: _Meaning) -> None:
        node = self._root
        for word in words:
            node = node.words.setdefault(word, _Node())
        node.meaning = meaning

    def _longest(self, words: Sequence[str], start: int) -> tuple[int, _Meaning | None]:
        node, length, meaning = self._root, 0, None
        for position in range(start, len(words)):
            following = node.words.get(words[position])
            if following is None:
                break
            node = following
            if node.meaning is not None:
                length, meaning = position + 1 - start, node.meaning
        return length, meaning


def _label(meaning: _Meaning, name: str, caption: str, span: tuple[int, int]) -> MinedLabel:
    surface = caption[span[0] : span[1]]
    is_equal = surface.casefold() == meaning.synonym.casefold()
    method: Method = "phrase" if meaning.is_phrase else "name" if is_equal else "singular"
    return MinedLabel(name, meaning.synonym, surface, span, method)


def _comparable(text: str) -> _Words:
    return tuple(word for word in find_words(text.replace("_", " ")) if word not in SENTENCE_ENDS)


def _owners(vocabulary: Vocabulary) -> tuple[dict[_Words, _Meaning], dict[str, tuple[str, ...]]]:
    claims: defaultdict[_Words, dict[str, str]] = defaultdict(dict)
    for category in vocabulary:
        for synonym in category.names:
            claims[_comparable(synonym)].setdefault(category.name, synonym)
    owners, ambiguous = {}, {}
    for words, claimants in claims.items():
        firsts = [name for name in claimants if _comparable(name) == words] if len(claimants) > 1 else list(claimants)
        if len(firsts) == 1:
            owners[words] = _Meaning(firsts[0], claimants[firsts[0]], False)
        else:
            ambiguous[" ".join(words)] = tuple(claimants)
    owners.pop((), None)
    return owners, ambiguous


@cache
def _phrases() -> tuple[tuple[_Words, _Words], ...]:
    """Phrase and what it counts as, () for nothing, both as comparable words."""
    text = resources.files("retclip.corpora").joinpath("caption_phrases.txt").read_text(encoding="utf-8")
    lines = (line.partition("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return tuple((_comparable(phrase), _comparable(shown)) for phrase, _, shown in lines)


def _is_negated(words: Sequence[str], start: int) -> bool:
    for word in _before(words, start, _NEGATION_REACH):
        if word in _NEGATORS or word.endswith("n't"):
            return True
        if word in _CONTRASTS:
            return False
    return False


def _is_depicted(words: Sequence[str], start: int) -> bool:
    last = ""
    for word in _before(words, start, _DEPICTION_REACH):
        if last == "of" and word in _DEPICTIONS:
            return True
        if word in _PLACES or word in SENTENCE_ENDS:
            return False
        last = word
    return False


def _before(words: Sequence[str], start: int, reach: int) -> Iterable[str]:
    return reversed(words[max(0, start - reach) : start])
