"""How the rows of a block are cut into tiles."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from retclip.shards.search import scan


@given(rows=st.integers(1, 70_000), queries=st.integers(0, 1_024), limit=st.sampled_from([1, 50, 1 << 22]))
def test_tiles_cover_all_rows_in_order_and_are_about_equal(rows, queries, limit):
    before, scan._TILE_SCORES = scan._TILE_SCORES, limit
    try:
        tiles = scan._tiles(rows, queries)
    finally:
        scan._TILE_SCORES = before
    sizes = [end - begin for begin, end in tiles]
    assert (tiles[0][0], tiles[-1][1]) == (0, rows)
    assert all(first[1] == second[0] for first, second in pairwise(tiles))
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == 1 or (max(sizes) - 1) * queries < limit
