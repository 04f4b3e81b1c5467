"""Noun phrases of captions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.training.phrases import noun_phrases


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("Two red stars on sand, a hut", {"red star", "sand", "hut"}),
        ("There is an autumn leaf in front of a brick wall in the scene.", {"autumn leaf", "brick wall", "scene"}),
        ("grass", {"grass"}),
        ("snow, night sky and grass", {"snow", "night sky", "grass"}),
        ("three striped fish with pebbles", {"striped fish", "pebble"}),
        ("a boat; the sea", {"boat", "sea"}),
        ("and of the", set()),
        ("", set()),
    ],
)
def test_phrases_stand_between_function_words(caption, phrases):
    assert noun_phrases(caption) == phrases


@given(st.lists(st.sampled_from(["red star", "hut", "sea"]), max_size=4))
def test_a_list_names_what_it_lists(names):
    assert noun_phrases(", ".join(f"a {name}" for name in names)) == set(names)
