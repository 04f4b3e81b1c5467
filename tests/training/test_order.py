"""The order of samples."""

from hypothesis import given
from hypothesis import strategies as st

from retclip.training.order import EndlessShuffle


@given(count=st.integers(1, 40), seed=st.integers(0, 5), number=st.integers(0, 3))
def test_every_pass_sees_every_item_once(count, seed, number):
    order = EndlessShuffle(count, seed)
    assert sorted(order[number * count + place] for place in range(count)) == list(range(count))


@given(places=st.lists(st.integers(0, 200), min_size=1, max_size=20))
def test_a_place_does_not_depend_on_what_was_asked_before(places):
    order = EndlessShuffle(17, seed=3)
    assert [order[place] for place in places] == [EndlessShuffle(17, seed=3)[place] for place in places]


def test_passes_and_seeds_differ():
    first, other = EndlessShuffle(50, 0), EndlessShuffle(50, 1)
    one, two = ([first[place] for place in range(begin, begin + 50)] for begin in (0, 50))
    assert one != two
    assert one != [other[place] for place in range(50)]
