"""Words of captions and class names in one comparable form: lower case, singular."""

from __future__ import annotations

import re
from functools import lru_cache

# Sentence ends are words too: negations and depictions do not reach beyond them. The full stop of `St.` is none.
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|[;!?]|(?<=[^\W_]{3})\.")
SENTENCE_ENDS = frozenset(".;!?")

_IRREGULAR_PLURALS = """
    men man  women woman  children child  people person  persons person  feet foot  teeth tooth  geese goose  mice mouse
    oxen ox  dice die  lice louse  knives knife  wives wife  lives life  leaves leaf  loaves loaf  shelves shelf
    bookshelves bookshelf  wolves wolf  calves calf  halves half  scarves scarf  hooves hoof  thieves thief  elves elf
    buses bus  lenses lens  gases gas  skis ski  taxis taxi  kiwis kiwi  tvs tv  cookies cookie  brownies brownie
    hoodies hoodie  movies movie  smoothies smoothie  zombies zombie  birdies birdie  shoes shoe  canoes canoe  toes toe
    snowshoes snowshoe  horseshoes horseshoe  oboes oboe  cacti cactus  fungi fungus  policemen policeman
    firemen fireman  snowmen snowman  fishermen fisherman  sportsmen sportsman  gentlemen gentleman
"""
_IRREGULAR = dict(zip(_IRREGULAR_PLURALS.split()[::2], _IRREGULAR_PLURALS.split()[1::2], strict=True))
_NO_PLURALS = ("ss", "us", "is")
_LONG_ENDINGS = ("sses", "xes", "ches", "shes", "oes")


def find_words(text: str) -> list[str]:
    """Words of a text in the order they stand, each in its comparable form; ends of sentences are words."""
    return list(map(comparable_word, _TOKEN.findall(text)))


def find_spans(text: str) -> list[tuple[int, int]]:
    """Start and end (half-open, characters of the text) of every word that `find_words` gives."""
    return [match.span() for match in _TOKEN.finditer(text)]


# Captions repeat few words very often; the bound keeps hostile text from filling the memory.
@lru_cache(maxsize=1 << 16)
def comparable_word(token: str) -> str:
    """Lower case, without possessive 's, plural nouns as singulars (English rules and a table of irregular ones)."""
    word = token.lower().replace("’", "'")
    word = word.removesuffix("'s")
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 3 or not word.endswith("s") or word.endswith(_NO_PLURALS):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(_LONG_ENDINGS) else word[:-1]
