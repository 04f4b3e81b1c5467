from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.vocabulary import Category, Vocabulary, normalise_name


@given(st.text())
def test_normalising_twice_changes_nothing(name: str) -> None:
    assert normalise_name(normalise_name(name)) == normalise_name(name)


@pytest.mark.parametrize("written", ["Traffic Light", "traffic_light", "  traffic \t light "])
def test_case_underscores_and_blanks_do_not_count(written: str) -> None:
    assert normalise_name(written) == "traffic light"


def test_columns_follow_the_order_of_the_categories() -> None:
    vocabulary = Vocabulary("v", (Category(7, ("sea", "ocean"), False), Category(2, ("boat",))))
    assert vocabulary.names == ("sea", "boat")
    assert len(vocabulary) == 2
    assert [category.id for category in vocabulary] == [7, 2]
    assert vocabulary[1].is_thing


def test_shared_synonyms_name_all_their_owners() -> None:
    vocabulary = Vocabulary(
        "v", (Category(0, ("tv", "Screen")), Category(1, ("blind", "screen")), Category(2, ("tree",)))
    )
    assert vocabulary.shared_names() == {"screen": ("tv", "blind")}


def test_names_become_things_with_ids_from_zero() -> None:
    vocabulary = Vocabulary.from_names("v", ["pier", "kayak"])
    assert [(c.id, c.name, c.is_thing) for c in vocabulary] == [(0, "pier", True), (1, "kayak", True)]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ((), "at least one category"),
        ((Category(1, ("a",)), Category(1, ("b",))), "Vocabulary ids"),
        ((Category(1, ("hot dog",)), Category(2, ("Hot_Dog",))), "unique first names"),
    ],
)
def test_ambiguous_vocabularies_are_refused(categories: tuple[Category, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary("v", categories)


@pytest.mark.parametrize(("number", "names"), [(-1, ("a",)), (0, ()), (0, ("a", " "))])
def test_wrong_categories_are_refused(number: int, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="Category"):
        Category(number, names)
