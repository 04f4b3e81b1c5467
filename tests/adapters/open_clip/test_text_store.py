"""Text rows on disk: what comes back, what damage does, and two processes at once."""

import json
import multiprocessing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip import CLIP
from safetensors.torch import save_file

from retclip.adapters.open_clip import text_store as module
from retclip.adapters.open_clip.text_store import TextStore, text_digest

ROWS = {"cat": torch.tensor([0.6, 0.8]), "hot dog": torch.tensor([1.0, 0.0])}


@pytest.fixture
def store(tmp_path):
    return TextStore(tmp_path / "text" / "tower.safetensors")


def same(found, expected):
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_absent_file_is_an_empty_store(store):
    assert store.read() == {}


def test_rows_come_back_in_order_and_later_ones_join_them(store):
    store.add(ROWS)
    store.add({"Ärmel 👕": torch.tensor([0.0, 1.0])})
    assert same(store.read(), {**ROWS, "Ärmel 👕": torch.tensor([0.0, 1.0])})


def test_the_oldest_names_give_way(store, monkeypatch):
    monkeypatch.setattr(module, "MOST_NAMES", 2)
    store.add(ROWS)
    store.add({"sky": torch.tensor([0.0, 1.0])})
    assert list(store.read()) == ["hot dog", "sky"]


@given(cut=st.floats(0, 0.999), flip=st.integers(0, 10**6))
def test_no_damage_is_ever_believed(tmp_path_factory, cut, flip):
    store = TextStore(tmp_path_factory.mktemp("text") / "tower.safetensors")
    store.add(ROWS)
    path = store._path
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    assert store.read() == {}
    changed = bytearray(whole)
    changed[flip % len(whole)] ^= 1
    path.write_bytes(changed)
    found = store.read()
    assert found == {} or same(found, ROWS)  # a byte of padding says nothing
    store.add(ROWS)
    assert same(store.read(), ROWS)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"names": json.dumps(["cat"]), "sha256": "0"},
        {"names": json.dumps(["cat", "dog"]), "sha256": "0"},
        {"names": "{", "sha256": "0"},
        {"names": "7", "sha256": "0"},
    ],
)
def test_foreign_files_count_as_empty_and_are_named(store, metadata, caplog):
    store._path.parent.mkdir()
    save_file({"rows": torch.zeros(2, 2)}, store._path, metadata)
    assert store.read() == {}
    assert str(store._path) in caplog.text


def test_a_giant_file_is_not_even_opened(store, monkeypatch):
    store.add(ROWS)
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    monkeypatch.setattr(module, "safe_open", lambda *_: pytest.fail("opened"))
    assert store.read() == {}


def test_a_file_that_is_replaced_while_it_is_opened_counts_as_empty(store, monkeypatch):
    store.add(ROWS)

    def smaller(*_):
        raise RuntimeError("size <304> is smaller than the required mapping size <328>")

    monkeypatch.setattr(module, "safe_open", smaller)
    assert store.read() == {}


def test_a_crash_before_the_rename_leaves_the_old_rows_and_no_litter(store, monkeypatch):
    store.add(ROWS)
    monkeypatch.setattr(type(store._path), "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.add({"sky": torch.zeros(2)})
    assert same(store.read(), ROWS)
    assert [path.name for path in store._path.parent.iterdir()] == [store._path.name]


def test_a_folder_that_cannot_be_written_costs_the_rows_and_nothing_else(tmp_path, caplog):
    (tmp_path / "text").write_text("a file where the folder should be")
    TextStore(tmp_path / "text" / "tower.safetensors").add(ROWS)
    assert "was not written" in caplog.text


def add_many(path, start):
    store = TextStore(path)
    for number in range(start, start + 20):
        store.add({f"name {number}": torch.full((2,), float(number))})
        assert all(torch.equal(row, torch.full((2,), float(name.split()[1]))) for name, row in store.read().items())


def test_two_processes_never_see_each_others_files_half_written(tmp_path):
    path = tmp_path / "tower.safetensors"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_many, args=(path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    rows = TextStore(path).read()  # of names that both wrote at the same time one may have lost its own
    assert rows
    assert all(row.tolist() == [float(name.split()[1])] * 2 for name, row in rows.items())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def clip(heads=2, **changes):
    torch.manual_seed(0)
    text = {"context_length": 8, "vocab_size": 50, "width": 8, "heads": heads, "layers": 1}
    vision = {"layers": 1, "width": 8, "head_width": 4, "patch_size": 8, "image_size": 8}
    return CLIP(**{"embed_dim": 4, "vision_cfg": vision, "text_cfg": text, **changes})


def test_the_digest_knows_all_that_decides_a_row_and_nothing_else():
    first = text_digest(clip(), ("a {}",), "bpe")
    other_image = clip()
    torch.nn.init.zeros_(other_image.visual.proj)
    assert text_digest(other_image, ("a {}",), "bpe") == first
    other_text = clip()
    torch.nn.init.zeros_(other_text.text_projection)
    changed = [
        text_digest(other_text, ("a {}",), "bpe"),
        text_digest(clip(quick_gelu=True), ("a {}",), "bpe"),
        text_digest(clip(heads=4), ("a {}",), "bpe"),
        text_digest(clip(), ("the {}",), "bpe"),
        text_digest(clip(), ("a {}",), "wordpiece"),
    ]
    assert len({first, *changed}) == 6
