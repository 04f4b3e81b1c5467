"""The class table: names, aliases, merges, deletions."""

import pytest

from retclip.core.errors import DatabaseError
from retclip.shards.classes import ClassEntry, ClassTable


@pytest.fixture
def table():
    table = ClassTable((), 0)
    for name in ("cat", "dog", "tree"):
        table.find_or_add(name)
    return table


def test_names_compare_without_case_and_underscores(table):
    assert table.find_or_add("Traffic Light") == table.find("traffic_light") == 3
    assert table.next_id == 4


def test_merges_are_followed_and_deletion_takes_all(table):
    table.relabel("cat", "dog")
    table.relabel("dog", "animal")
    table.relabel("animal", "tree")
    assert [table.effective(c) for c in range(3)] == [2, 2, 2]
    assert table.find("cat") == 2
    assert set(table[2].aliases) == {"cat", "dog", "animal"}
    table.delete(2)
    assert [table.effective(c) for c in range(3)] == [-1, -1, -1]
    assert table.find_or_add("cat") == 3


def test_deletion_frees_all_names_of_a_class_and_no_other(table):
    table.relabel("cat", "kitty")
    table.relabel("kitty", "dog")
    table.declare("tree", ["oak"])
    table.delete(1)
    assert not any(table.knows(name) for name in ("cat", "kitty", "dog"))
    assert (table.find("oak"), table.find_or_add("kitty")) == (2, 3)


def test_renaming_to_an_own_alias_or_another_spelling(table):
    table.relabel("cat", "kitty")
    table.relabel("kitty", "cat")
    assert (table[0].name, table[0].aliases) == ("cat", ("kitty",))
    table.relabel("cat", "Cat")
    assert (table[0].name, table[0].aliases) == ("Cat", ("kitty",))


def test_relabel_tells_whether_anything_changed(table):
    assert [table.relabel("cat", new) for new in ("cat", "Cat", "Cat", "dog")] == [False, True, False, True]
    assert not table.relabel("cat", "dog")


def test_an_alias_may_leave_its_class_for_one_of_its_own(table):
    table.relabel("cat", "dog")
    table.declare("dog", ["hound"])
    assert table.destination("dog", {1}) == table.destination("Cat", {2}) == 1
    assert table.destination("Cat", {1, 2}) == table.destination("cat", {1}) == 3
    assert (table[3].name, table[1].aliases) == ("Cat", ("hound",))
    assert [table.effective(c) for c in range(4)] == [1, 1, 2, 3]
    assert table.copy().find("cat") == table.find("cat") == 3


def test_unknown_names_get_a_suggestion(table):
    with pytest.raises(DatabaseError, match=r"E309(.|\n)*near: tree"):
        table.find("tre")
    with pytest.raises(ValueError, match="new label"):
        table.relabel("cat", "  ")


def test_declared_aliases_lead_to_the_class_unless_they_are_taken(table):
    assert table.declare("cat", ["kitty", "Dog", "CAT", "Kitty"])
    assert table[0].aliases == ("kitty",)
    assert (table.find("kitty"), table.find("dog")) == (0, 1)
    assert not table.declare("cat", ["kitty"])
    with pytest.raises(DatabaseError, match="E309"):
        table.declare("lion", ["leo"])


def test_copies_are_independent(table):
    copy = table.copy()
    copy.delete(0)
    copy.find_or_add("car")
    assert table.effective(0) == 0
    assert table.next_id == 3


def test_tables_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match="next_class_id"):
        ClassTable([ClassEntry(5, "x")], 5)
    with pytest.raises(ValueError, match="existing class"):
        ClassTable([ClassEntry(0, "x", (), "merged", 3)], 5)
    with pytest.raises(ValueError, match="circle"):
        ClassTable([ClassEntry(0, "x", (), "merged", 1), ClassEntry(1, "y", (), "merged", 0)], 2)
    with pytest.raises(ValueError, match="class id"):
        ClassTable([ClassEntry(-1, "x")], 5)
    with pytest.raises(ValueError, match="next_class_id"):
        ClassTable([ClassEntry(1 << 40, "x")], (1 << 40) + 1)
    entry = ClassEntry(0, "x", ("a",), "merged", 1)
    assert ClassEntry.from_json(entry.to_json(3, 1)) == entry
    with pytest.raises(ValueError, match="class state"):
        ClassEntry.from_json({**entry.to_json(0, 0), "state": "lost"})
