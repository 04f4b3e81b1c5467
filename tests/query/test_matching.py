"""Which stored classes answer for which asked ones."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.vocabulary import Category, Vocabulary, normalise_name
from retclip.query.matching import match_labels, vocabulary_of, with_stored_kinds
from retclip.shards import StoredClass
from tests.fakes import ColourEncoder, ColourTexts


def stored(number: int, name: str, *aliases: str) -> StoredClass:
    return StoredClass(number, name, aliases, True, 1)


def words(*names: tuple[str, ...]) -> Vocabulary:
    return Vocabulary("words", tuple(Category(10 + n, entry) for n, entry in enumerate(names)))


def test_equal_names_and_synonyms_are_told_apart() -> None:
    vocabulary = words(("couch", "sofa"), ("Dining_Table",), ("zebra",))
    labels = match_labels(vocabulary, [stored(4, "sofa"), stored(7, "dining  table"), stored(9, "horse")])
    assert labels.column == {4: 0, 7: 1}
    assert [(m.requested, m.stored, m.method, m.similarity) for m in labels.matches] == [
        ("couch", ("sofa",), "synonym", 1.0),
        ("Dining_Table", ("dining  table",), "name", 1.0),
        ("zebra", (), "none", 0.0),
    ]
    assert labels.ambiguous == ()


def test_aliases_of_the_database_count_as_names() -> None:
    labels = match_labels(words(("motorbike",)), [stored(1, "motorcycle", "Motorbike")])
    assert labels.column == {1: 0}
    assert labels.matches[0].method == "synonym"


def test_several_stored_classes_may_answer_for_one() -> None:
    labels = match_labels(words(("animal", "cat", "dog")), [stored(1, "dog"), stored(2, "cat"), stored(3, "animal")])
    assert labels.column == {1: 0, 2: 0, 3: 0}
    assert labels.matches[0].stored == ("animal", "cat", "dog")
    assert labels.matches[0].method == "name"


def test_more_shared_names_win_then_the_first_name_then_the_order() -> None:
    bank = stored(1, "bank", "shore")
    assert match_labels(words(("bank",), ("river side", "shore", "bank")), [bank]).column == {1: 1}
    by_first = match_labels(words(("money", "bank"), ("bank", "money")), [stored(1, "bank")])
    assert by_first.column == {1: 1}
    assert by_first.ambiguous == ()
    tie = match_labels(words(("money house", "bank"), ("river side", "bank")), [stored(1, "bank")])
    assert tie.column == {1: 0}
    assert tie.ambiguous == (("bank", ("money house", "river side")),)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_own_name_of_a_stored_class_beats_its_aliases(order: tuple[int, int]) -> None:
    """After a merge the name that was merged away is an alias, and results must not carry it."""
    leaf = stored(1, "autumn leaf", "red star", "star")
    entries = [("red star", "star"), ("maple leaf", "Autumn_Leaf")]
    labels = match_labels(words(*(entries[place] for place in order)), [leaf])
    assert labels.column == {1: order.index(1)}
    assert labels.ambiguous == ()


def test_class_texts_decide_what_names_do_not() -> None:
    texts = ColourTexts(ColourEncoder())
    vocabulary = words(("red",), ("blue",), ("table",))
    labels = match_labels(vocabulary, [stored(1, "crimson"), stored(2, "chair"), stored(3, "blue")], texts)
    assert labels.column == {1: 0, 3: 1}
    assert [match.method for match in labels.matches] == ["text", "name", "none"]
    assert labels.matches[0].similarity > 0.999
    strict = match_labels(vocabulary, [stored(1, "crimson")], texts, threshold=1.0)
    assert strict.column.get(1) in (None, 0)  # a cosine of exactly 1 may round to either side
    assert match_labels(vocabulary, [stored(1, "crimson")]).column == {}


def test_names_are_not_asked_again_as_texts() -> None:
    texts = ColourTexts(ColourEncoder())
    match_labels(words(("red",)), [stored(1, "red")], texts)
    assert texts.encoded == []


NAME = st.sampled_from(["cat", "Cat", "dog", "dog_house", "dog house", "sofa", "couch", "car"])


@given(
    st.lists(st.lists(NAME, min_size=1, max_size=3), min_size=1, max_size=4).filter(
        lambda lists: max(Counter(normalise_name(names[0]) for names in lists).values()) == 1
    ),
    st.lists(st.lists(NAME, min_size=1, max_size=3), max_size=4),
)
def test_a_match_shares_a_name_and_no_better_one_is_left(asked: list[list[str]], known: list[list[str]]) -> None:
    vocabulary = words(*map(tuple, asked))
    classes = [stored(n, *names) for n, names in enumerate(known)]
    labels = match_labels(vocabulary, classes)
    sets = [{normalise_name(n) for n in names} for names in asked]
    for item in classes:
        mine = {normalise_name(n) for n in (item.name, *item.aliases)}
        shared = [(normalise_name(item.name) in names, len(mine & names)) for names in sets]
        assert (item.id in labels.column) == (max(shared) > (False, 0))
        if item.id in labels.column:
            assert shared[labels.column[item.id]] == max(shared)
    for column, match in enumerate(labels.matches):
        answers = [item.name for item in classes if labels.column.get(item.id) == column]
        assert sorted(match.stored) == sorted(answers)
        assert (match.method == "none") == (not answers)


def test_vocabulary_of_a_database_keeps_ids_kinds_and_aliases() -> None:
    sky = StoredClass(5, "sky", ("clouds",), False, 3)
    vocabulary = vocabulary_of("db@1", [sky, stored(8, "cat")])
    assert vocabulary.categories == (Category(5, ("sky", "clouds"), False), Category(8, ("cat",)))
    assert match_labels(vocabulary, [sky, stored(8, "cat")]).column == {5: 0, 8: 1}


def test_text_match_is_one_cosine_per_stored_class() -> None:
    texts = ColourTexts(ColourEncoder())
    labels = match_labels(words(("blue", "red")), [stored(1, "scarlet")], texts)
    cosine = texts.encode_names(["scarlet"]) @ texts.encode_names(["red"]).T
    torch.testing.assert_close(torch.tensor(labels.matches[0].similarity), cosine[0, 0])


def test_a_class_list_that_is_silent_takes_thing_or_stuff_from_the_database() -> None:
    silent = [Category(n, (name,), kind_stated=False) for n, name in enumerate(("sky", "dog", "unicorn"))]
    stated = Category(3, ("river",), True)
    vocabulary = Vocabulary("v", (*silent, stated))
    known = [StoredClass(n, name, (), name == "dog", 1) for n, name in enumerate(("sky", "dog", "river"))]
    resolved = with_stored_kinds(vocabulary, known, match_labels(vocabulary, known))
    assert [category.is_thing for category in resolved] == [False, True, True, True]
