from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from retclip.core.errors import InputError
from retclip.core.masks import Frame, MaskSet
from retclip.core.sealed import read_sealed
from retclip.query.atoms import outline, split_into_atoms
from retclip.query.observations import ObservationStore, ObservedImage
from retclip.query.scoring import Observation

IDENTITY = {"feature_space": "abc", "scales": [1.0, 2.0]}


def observed(masks: torch.Tensor, **tables: torch.Tensor) -> ObservedImage:
    keys = torch.randn(len(masks), 5, generator=torch.Generator().manual_seed(1))
    return ObservedImage("d" * 64, MaskSet(masks, (6, 8), "regions"), Observation(keys, **tables))


def binary(count: int) -> torch.Tensor:
    return torch.rand(count, 6, 8, generator=torch.Generator().manual_seed(count)) < 0.4


@pytest.mark.parametrize("count", [0, 1, 9, 17])
def test_what_is_stored_comes_back_to_the_bit(tmp_path, count):
    image = observed(binary(count), clip=torch.rand(count, 3), void=torch.rand(count))
    store = ObservationStore(tmp_path / "o", IDENTITY)
    assert "a/../b" not in store
    store.store("a/../b", image)
    back = ObservationStore(tmp_path / "o", IDENTITY).load("a/../b")
    assert "a/../b" in store
    assert torch.equal(back.masks.masks, image.masks.masks)
    assert torch.equal(back.observation.keys, image.observation.keys)
    assert torch.equal(back.observation.clip, image.observation.clip)
    assert torch.equal(back.observation.void, image.observation.void)
    assert back.observation.in_vocab is None
    assert (back.sha256, back.masks.origin, back.masks.image_size) == (image.sha256, "regions", (6, 8))
    assert store.load_keys("a/../b")[0] == image.sha256
    # Ids come from files of strangers: nothing is written outside the folder.
    assert {path.parent for path in tmp_path.rglob("*.safetensors")} == {tmp_path / "o"}


def test_soft_masks_keep_sixteen_bits(tmp_path):
    logits = torch.linspace(-8, 8, 2 * 3 * 4).view(2, 3, 4)
    store = ObservationStore(tmp_path, IDENTITY)
    store.store("x", observed(logits))
    torch.testing.assert_close(store.load("x").masks.masks, logits, rtol=1e-3, atol=1e-3)


def test_logits_may_be_kept_to_the_bit(tmp_path):
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(3))
    store = ObservationStore(tmp_path, IDENTITY, np.float32)
    store.store("x", observed(logits))
    assert torch.equal(store.load("x").masks.masks, logits)
    assert store.load_outline("x").outline is None


def test_outlines_and_indices_are_those_of_the_masks(tmp_path):
    image = observed(binary(9), clip=torch.rand(9, 3))
    store = ObservationStore(tmp_path, IDENTITY)
    store.store("x", image)
    found = store.load_outline("x")
    expected = outline(split_into_atoms(image.masks.masks.numpy()))
    for name in ("inside", "size", "box", "touching"):
        np.testing.assert_array_equal(getattr(found.outline, name), getattr(expected, name))
    assert torch.equal(found.observation.keys, image.observation.keys)
    assert torch.equal(found.observation.clip, image.observation.clip)
    np.testing.assert_array_equal(found.outline.inside[store.load_index("x")], image.masks.masks.permute(1, 2, 0))


def test_frame_and_validity_come_back(tmp_path):
    """Without its frame a padded network's masks would be stretched over the picture."""
    frame = Frame((32, 32), (24, 32), (6, 8))
    masks = MaskSet(torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)).half().float(), (6, 8), "f", frame)
    valid = torch.tensor([True, False, True])
    store = ObservationStore(tmp_path, IDENTITY)
    store.store("x", ObservedImage("d" * 64, masks, Observation(torch.rand(3, 5), valid=valid)))
    back = store.load("x")
    assert back.masks.frame == frame
    assert torch.equal(back.masks.band(0, 6), masks.band(0, 6))
    assert torch.equal(back.observation.valid, valid)


def test_another_run_is_refused_and_named(tmp_path):
    ObservationStore(tmp_path, IDENTITY)
    with pytest.raises(InputError, match="E165") as caught:
        ObservationStore(tmp_path, IDENTITY | {"scales": [1.0]})
    assert "scales" in caught.value.why


def test_a_changed_byte_of_a_key_is_damage(tmp_path):
    store = ObservationStore(tmp_path, IDENTITY)
    image = observed(binary(3))
    store.store("x", image)
    (path,) = tmp_path.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[data.index(image.observation.keys.numpy().tobytes())] ^= 1
    path.write_bytes(data)
    for load in (store.load, store.load_outline, store.load_keys):
        with pytest.raises(InputError, match="E165"):
            load("x")


def test_files_of_the_version_before_have_no_seals_and_are_read(tmp_path):
    store = ObservationStore(tmp_path, IDENTITY)
    store.store("x", observed(binary(3)))
    (path,) = tmp_path.glob("*.safetensors")
    arrays, notes = read_sealed(path)
    path.write_bytes(save(arrays, dict(notes)))
    assert torch.equal(store.load("x").masks.masks, binary(3))


def test_a_missing_file_is_not_to_be_deleted(tmp_path):
    with pytest.raises(InputError, match=r"E165 .* is missing") as caught:
        ObservationStore(tmp_path, IDENTITY).load_outline("x")
    assert "--keep" in caught.value.fix
    assert "elete" not in caught.value.fix


def test_damaged_files_are_named(tmp_path):
    store = ObservationStore(tmp_path, IDENTITY)
    store.store("x", observed(binary(3)))
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"E165 Cannot read the observation .*x-"):
        store.load("x")
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(InputError, match="E165 Cannot read"):
        ObservationStore(tmp_path, IDENTITY)
