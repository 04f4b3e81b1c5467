"""A class list held against a database before a run."""

from __future__ import annotations

from retclip.core.vocabulary import Category, Vocabulary
from retclip.query.gaps import missing_classes, vocabulary_gaps, with_foreign_names
from retclip.query.matching import match_labels
from retclip.shards import StoredClass
from tests.fakes import ColourEncoder, ColourTexts

STORED = (
    StoredClass(0, "red", ("scarlet",), True, 12),
    StoredClass(1, "blue", (), True, 3),
    StoredClass(2, "grey", (), False, 40),
)


def asked(*names: tuple[str, ...]) -> Vocabulary:
    return Vocabulary("asked", tuple(Category(index, synonyms) for index, synonyms in enumerate(names)))


def test_every_class_is_stored_thin_or_missing() -> None:
    vocabulary = asked(("scarlet", "ruby"), ("blue",), ("zebra",))
    report = vocabulary_gaps(vocabulary, STORED, match_labels(vocabulary, STORED), few=10)
    assert [(gap.requested, gap.state, gap.exemplars, gap.stored) for gap in report.classes] == [
        ("scarlet", "stored", 12, ("red",)),
        ("blue", "few", 3, ("blue",)),
        ("zebra", "missing", 0, ()),
    ]
    assert [gap.requested for gap in report.having("missing")] == ["zebra"]
    assert report.to_json()["classes"][1]["state"] == "few"


def test_a_missing_class_names_its_nearest_label_only_where_texts_can_be_compared() -> None:
    texts = ColourTexts(ColourEncoder())
    vocabulary = asked(("navy",), ("lemon", "yellow"))
    labels = match_labels(vocabulary, STORED, texts)
    report = vocabulary_gaps(vocabulary, STORED, labels, 1, texts)
    navy, lemon = report.classes
    assert (navy.state, navy.method, navy.nearest) == ("stored", "text", None)
    assert lemon.state == "missing"
    assert lemon.nearest is not None
    label, cosine = lemon.nearest
    assert label in {item.name for item in STORED}
    assert -1 <= cosine <= 0.95
    without = vocabulary_gaps(vocabulary, STORED, match_labels(vocabulary, STORED), few=1)
    assert [gap.nearest for gap in without.classes] == [None, None]


def test_collisions_ambiguity_and_spelling_are_told() -> None:
    vocabulary = asked(("screen", "red"), ("St. Bernard",), ("monitor", "screen", "red"))
    report = vocabulary_gaps(vocabulary, STORED, match_labels(vocabulary, STORED), few=1)
    assert report.collisions == dict.fromkeys(("screen", "red"), ("screen", "monitor"))
    assert report.ambiguous == (("red", ("screen", "monitor")),)
    assert report.punctuated == ("St. Bernard",)


def test_missing_classes_keep_their_ids_and_synonyms() -> None:
    vocabulary = asked(("red",), ("zebra", "quagga"))
    missing = missing_classes(vocabulary, match_labels(vocabulary, STORED))
    assert missing is not None
    assert missing.categories == (vocabulary[1],)
    assert missing_classes(asked(("red",)), match_labels(asked(("red",)), STORED)) is None


def test_labels_found_by_their_texts_become_names() -> None:
    vocabulary = asked(("navy",), ("scarlet",), ("zebra",))
    labels = match_labels(vocabulary, STORED, ColourTexts(ColourEncoder()))
    widened = with_foreign_names(vocabulary, labels)
    assert [category.names for category in widened] == [("navy", "blue"), ("scarlet", "red"), ("zebra",)]
