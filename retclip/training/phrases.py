"""Noun phrases of captions by English function words alone: no class list, no parser."""

from __future__ import annotations

from retclip.corpora.caption_words import SENTENCE_ENDS, find_words

# What stands between noun phrases of simple captions, numbers included: `two red stars` names what `a red star` names.
_FUNCTION_WORDS = """
    a an the this that these those some many several few it there he she they is are was were has have
    and or but with without on in at by of off for from to into over under above below behind beside between near front
    one two three four five six seven eight nine ten
"""
_BETWEEN = SENTENCE_ENDS | set(_FUNCTION_WORDS.split())


def noun_phrases(caption: str) -> set[str]:
    """`Two red stars on sand, a hut` -> {"red star", "sand", "hut"}: lower case, singular, without articles."""
    found = set()
    for clause in caption.split(","):
        words: list[str] = []
        for word in [*find_words(clause), "and"]:
            if word not in _BETWEEN:
                words.append(word)
            elif words:
                found.add(" ".join(words))
                words = []
    return found
