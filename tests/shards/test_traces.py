"""Byte strings are found at every place of a file, also across the pieces in which it is read."""

import secrets

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.shards import traces
from retclip.shards.traces import Traces


@settings(max_examples=60)
@given(
    data=st.binary(max_size=80),
    strings=st.lists(st.binary(min_size=8, max_size=12), max_size=4),
    planted=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 3)), max_size=4),
    chunk=st.integers(1, 40),
)
def test_occurrences_are_those_of_a_plain_search(tmp_path_factory, data, strings, planted, chunk):
    for place, which in planted:
        if which < len(strings):
            data = data[:place] + strings[which] + data[place:]
    path = tmp_path_factory.mktemp("traces") / "file"
    path.write_bytes(data)
    expected = sorted(s for s in set(strings) for n in range(len(data)) if data[n : n + len(s)] == s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traces, "_CHUNK_BYTES", chunk)
        assert sorted(Traces(strings).in_file(path)) == expected


def test_a_string_of_zeros_and_one_other_byte_is_recognised_by_that_byte(tmp_path):
    needle = bytes(40) + b"\x07" + bytes(20)
    (tmp_path / "file").write_bytes(bytes(1 << 20) + needle + bytes(1 << 20))
    assert list(Traces([needle]).in_file(tmp_path / "file")) == [needle]


def test_many_strings_in_a_large_file(tmp_path):
    rng = np.random.default_rng(0)
    data = bytearray(rng.bytes(9 << 20))
    needles = [rng.bytes(64) for _ in range(300)]
    places = rng.choice(len(data) // 64 - 1, 300, replace=False) * 64 + 13
    for place, needle in zip(places.tolist(), needles, strict=True):
        data[place : place + 64] = needle
    (tmp_path / "file").write_bytes(data)
    assert sorted(Traces([*needles, secrets.token_bytes(64)]).in_file(tmp_path / "file")) == sorted(needles)


def test_nothing_is_found_of_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"anything at all")
    assert list(Traces([]).in_file(tmp_path / "file")) == []
