"""Class names as prompts: one text holds as many phrases as the network can read at once."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Span = tuple[int, int]

# Texts -> per text the characters (start, end) of every token; special tokens have no characters: (0, 0).
TokenSpans = Callable[[list[str]], list[list[Span]]]

# [CLS] and [SEP] enclose a prompt; a full stop ends every phrase.
_FRAME_TOKENS = 2
_STOP_TOKENS = 1


@dataclass(frozen=True)
class Prompt:
    """One text for the network.

    Attributes:
        text: phrases in lower case, each ended by a full stop: `cat. traffic light.`
        phrases: per phrase of the text its index among the phrases asked.
        tokens: per phrase of the text the positions of its tokens in the tokenised text.
    """

    text: str
    phrases: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]

    @property
    def chunk(self) -> str:
        """First 12 hex digits of the text's sha256: scores of a phrase are repeatable only beside the same others."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def sanitised(phrase: str) -> str:
    """Lower case, single blanks, without `.` and `?`, which the network takes for ends of phrases."""
    return " ".join(phrase.lower().replace(".", "").replace("?", "").split())


def compose_prompts(phrases: Sequence[str], token_spans: TokenSpans, most_tokens: int) -> list[Prompt]:
    """Texts that together ask for every phrase once; the same set of phrases gives the same texts in any order.

    Phrases that are equal once sanitised are asked under the index of the first; those without any token are not
    asked. A phrase that is longer than a whole prompt is cut to its first tokens.

    Args:
        phrases: as the user spells them.
        token_spans: the network's own tokenizer.
        most_tokens: length of a tokenised text, special tokens included.
    """
    lengths, indices = _askable(phrases, token_spans, most_tokens - _FRAME_TOKENS - _STOP_TOKENS)
    chunks = list(_packed(lengths, most_tokens - _FRAME_TOKENS))
    texts = [". ".join(chunk) + "." for chunk in chunks]
    return [
        Prompt(text, tuple(indices[phrase] for phrase in chunk), _tokens_of(chunk, spans))
        for text, chunk, spans in zip(texts, chunks, token_spans(texts) if texts else [], strict=True)
    ]


def _askable(
    phrases: Sequence[str], token_spans: TokenSpans, most_tokens: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Sanitised phrases in alphabetical order -> number of their tokens, and -> first index in `phrases`."""
    texts = [sanitised(phrase) for phrase in phrases]
    lengths: dict[str, int] = {}
    indices: dict[str, int] = {}
    for index, (text, spans) in enumerate(zip(texts, token_spans(texts) if texts else [], strict=True)):
        visible = [span for span in spans if span[1] > span[0]]
        if not visible:
            continue
        cut = text if len(visible) <= most_tokens else text[: visible[most_tokens - 1][1]]
        lengths[cut] = min(len(visible), most_tokens)
        indices.setdefault(cut, index)
    return {text: lengths[text] for text in sorted(lengths)}, indices


def _packed(lengths: dict[str, int], most_tokens: int) -> Iterator[list[str]]:
    """Phrases in their order, as many in a chunk as fit with their full stops."""
    chunk: list[str] = []
    used = 0
    for phrase, length in lengths.items():
        if chunk and used + length + _STOP_TOKENS > most_tokens:
            yield chunk
            chunk, used = [], 0
        chunk.append(phrase)
        used += length + _STOP_TOKENS
    if chunk:
        yield chunk


def _tokens_of(chunk: Sequence[str], spans: Sequence[Span]) -> tuple[tuple[int, ...], ...]:
    """Positions of every phrase's tokens in the text that joins the phrases with `. `."""
    starts = [0]
    for phrase in chunk:
        starts.append(starts[-1] + len(phrase) + len(". "))
    tokens: list[list[int]] = [[] for _ in chunk]
    for position, (start, end) in enumerate(spans):
        place = bisect_right(starts, start) - 1
        if end > start and end <= starts[place] + len(chunk[place]):
            tokens[place].append(position)
    return tuple(tuple(positions) for positions in tokens)
