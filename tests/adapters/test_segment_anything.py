"""SAM from its authors' package: against its own predictor, and against the same network in transformers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from benchmarks.models.sam_names import released_names
from retclip.adapters.promptable import PromptedMasker
from retclip.adapters.segment_anything import load_segment_anything
from retclip.adapters.transformers_sam import load_transformers_sam
from retclip.core.errors import ModelError
from retclip.presets import MaskerSettings
from tests.adapters.tiny_sam import original_sam, write_tiny_sam

CPU = torch.device("cpu")
VIT_B = MaskerSettings(library="segment_anything", model="vit_b")
# Sums in another order, through attention and positions that random weights make sharp.
CLOSE = {"atol": 5e-4, "rtol": 5e-4}
BOXES = torch.tensor([[0.0, 0, 90, 60], [10, 5, 40, 50], [89, 59, 90, 60], [30.5, 0, 60.25, 33]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sam(tmp_path_factory.mktemp("sam"), seed=3)


@pytest.fixture(scope="module")
def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return released_names(load_file(folder / "model.safetensors"))


@pytest.fixture
def checkpoint(tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `.pth` file as released, of a network that is small."""
    monkeypatch.setitem(sam_model_registry, "vit_b", original_sam)
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(tensors, path)
    return path


@pytest.fixture
def masker(checkpoint: Path) -> PromptedMasker:
    return load_segment_anything(VIT_B, checkpoint, CPU)


@pytest.fixture
def peer(tensors: dict[str, torch.Tensor]) -> SamPredictor:
    sam: Sam = original_sam()
    sam.load_state_dict(tensors)
    return SamPredictor(sam.eval())


def picture(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 80, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2 + 1, width // 3 : width // 2 + 1] += 150
    return pixels


def asked(peer: SamPredictor, pixels: np.ndarray, boxes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Full-size logits, predicted IoU and low-resolution logits of the library itself."""
    peer.set_image(pixels)
    places = peer.transform.apply_boxes_torch(boxes, pixels.shape[:2])
    return peer.predict_torch(None, None, places, multimask_output=False, return_logits=True)


@pytest.mark.parametrize("size", [(60, 90), (64, 64), (120, 37), (7, 200)])
def test_boxes_are_answered_as_by_the_librarys_predictor(
    masker: PromptedMasker, peer: SamPredictor, size: tuple[int, int]
) -> None:
    pixels = picture(*size)
    boxes = BOXES * torch.tensor([size[1] / 90, size[0] / 60]).repeat(2)
    [found] = masker.masks([pixels], [boxes])
    full, quality, low = asked(peer, pixels, boxes)
    torch.testing.assert_close(found.masks.masks, low[:, 0], **CLOSE)
    torch.testing.assert_close(found.quality, quality[:, 0], **CLOSE)
    torch.testing.assert_close(found.masks.band(0, size[0]), full[:, 0].sigmoid(), **CLOSE)
    clear = full[:, 0].abs() > 1e-3
    for row in range(len(boxes)):
        assert torch.equal(found.masks.region(row)[clear[row]], (full[row, 0] > 0)[clear[row]])


def test_points_are_answered_as_by_the_librarys_predictor(masker: PromptedMasker, peer: SamPredictor) -> None:
    points = torch.tensor([[0.0, 0.0], [45, 30], [89, 59]])
    [found] = masker.point_masks(picture(), points)
    peer.set_image(picture())
    places = peer.transform.apply_coords_torch(points[:, None], (60, 90))
    _, quality, low = peer.predict_torch(places, torch.ones(3, 1), multimask_output=True)
    torch.testing.assert_close(found.masks.masks, low.flatten(0, 1), **CLOSE)
    torch.testing.assert_close(found.quality, quality.flatten(), **CLOSE)


def test_both_libraries_answer_alike_with_the_same_weights(masker: PromptedMasker, folder: Path) -> None:
    other = load_transformers_sam(MaskerSettings(library="sam"), folder, CPU)
    for pixels in (picture(), picture(33, 20, seed=1)):
        [ours], [theirs] = masker.masks([pixels], [BOXES]), other.masks([pixels], [BOXES])
        torch.testing.assert_close(ours.masks.masks, theirs.masks.masks, **CLOSE)
        torch.testing.assert_close(ours.quality, theirs.quality, **CLOSE)
        [points], [same] = masker.point_masks(pixels, BOXES[:, :2]), other.point_masks(pixels, BOXES[:, :2])
        torch.testing.assert_close(points.masks.masks, same.masks.masks, **CLOSE)
        torch.testing.assert_close(points.quality, same.quality, **CLOSE)


def test_chunks_and_companions_change_nothing(checkpoint: Path, masker: PromptedMasker) -> None:
    settings = MaskerSettings(library="segment_anything", model="vit_b", boxes=1)
    pictures = [picture(), picture(1, 1), picture(20, 64, seed=2)]
    boxes = [BOXES, torch.zeros(0, 4), BOXES[:2] / 3]
    together = masker.masks(pictures, boxes)
    one_by_one = load_segment_anything(settings, checkpoint, CPU)
    for one, pixels, asked_boxes in zip(together, pictures, boxes, strict=True):
        [other] = one_by_one.masks([pixels], [asked_boxes])
        assert one.masks.image_size == other.masks.image_size
        torch.testing.assert_close(one.masks.masks, other.masks.masks, **CLOSE)
        torch.testing.assert_close(one.quality, other.quality, **CLOSE)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 2)])
def test_pictures_of_hardly_any_pixels_have_masks(masker: PromptedMasker, size: tuple[int, int]) -> None:
    [found] = masker.masks([picture(*size)], [torch.tensor([[0.0, 0, size[1], size[0]]])])
    assert found.masks.region(0).shape == size
    assert found.masks.for_pooling().any()


def test_a_picture_without_boxes_has_no_masks(masker: PromptedMasker) -> None:
    [found] = masker.masks([picture()], [torch.zeros(0, 4)])
    assert len(found.masks) == 0
    assert found.masks.for_pooling().shape[0] == 0
    assert found.masks.band(0, 60).shape == (0, 60, 90)


def test_the_name_tells_the_weights(masker: PromptedMasker, checkpoint: Path, tensors: dict[str, torch.Tensor]) -> None:
    assert masker.name == f"sam-vit_b@{masker.weights_sha256[:8]}"
    copy = checkpoint.with_suffix(".safetensors")
    save_file(tensors, copy)
    assert load_segment_anything(VIT_B, copy, CPU).name == masker.name
    torch.save({key: value + 1 for key, value in tensors.items()}, checkpoint)
    assert load_segment_anything(VIT_B, checkpoint, CPU).name != masker.name


def test_weights_in_half_precision_are_read_as_float32(
    masker: PromptedMasker, checkpoint: Path, tensors: dict[str, torch.Tensor]
) -> None:
    rounded = {key: value.half() for key, value in tensors.items()}
    torch.save(rounded, checkpoint)
    half = load_segment_anything(VIT_B, checkpoint, CPU)
    torch.save({key: value.float() for key, value in rounded.items()}, checkpoint)
    whole = load_segment_anything(VIT_B, checkpoint, CPU)
    assert half.weights_sha256 == whole.weights_sha256 != masker.weights_sha256
    [found] = half.masks([picture()], [BOXES])
    assert found.masks.masks.dtype == found.quality.dtype == torch.float32


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (json.loads, ("1",))


def refused(path: Path, settings: MaskerSettings = VIT_B) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_segment_anything(settings, path, CPU)
    assert caught.value.fix
    return caught.value


def test_weights_that_cannot_be_used_are_refused(checkpoint: Path, tensors: dict[str, torch.Tensor]) -> None:
    whole = checkpoint.read_bytes()
    assert refused(checkpoint.with_name("none.pth")).code == "E201"
    checkpoint.write_bytes(whole[: len(whole) // 2])
    assert refused(checkpoint).code == "E202"
    checkpoint.write_bytes(pickle.dumps(Payload()))
    assert refused(checkpoint).code == "E204"
    save_file(tensors, checkpoint.with_name("half.safetensors"))
    half = checkpoint.with_name("half.safetensors")
    half.write_bytes(half.read_bytes()[:5000])
    assert refused(half).code == "E202"
    torch.save(dict(list(tensors.items())[:-1]), checkpoint)
    error = refused(checkpoint)
    assert (error.code, "missing" in error.why, "masker.model" in error.fix) == ("E207", True, True)


@pytest.mark.parametrize("model", ["vit_l", "vit_h"])
def test_weights_of_another_size_are_refused_before_memory_is_taken(checkpoint: Path, model: str) -> None:
    error = refused(checkpoint, MaskerSettings(library="segment_anything", model=model))
    assert (error.code, f"'{model}'" in error.what) == ("E207", True)


def test_an_unknown_architecture_is_refused(checkpoint: Path) -> None:
    error = refused(checkpoint, MaskerSettings(library="segment_anything", model="vit_g"))
    assert (error.code, "vit_h" in error.why) == ("E208", True)
