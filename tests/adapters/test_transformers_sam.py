"""SAM and SAM 2 from transformers: against the library's own processors, and with folders that nobody vouches for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
    SamImageProcessor,
    SamModel,
    SamProcessor,
)

from retclip.adapters.promptable import PromptedMasker
from retclip.adapters.transformers_sam import load_transformers_sam
from retclip.core.errors import ModelError
from retclip.presets import MaskerSettings
from tests.adapters.tiny_sam import SIDE, write_tiny_sam, write_tiny_sam2

CPU = torch.device("cpu")
SAM = MaskerSettings(library="sam", model="facebook/sam-vit-base")
SAM2 = MaskerSettings(library="sam2", model="facebook/sam2.1-hiera-tiny")
CLOSE = {"atol": 5e-4, "rtol": 5e-4}
# The miniature SAM 2 answers with logits to 37, and rounding of its float32 input alone moves them by 3e-3.
CLOSE_SAM2 = {"atol": 6e-3, "rtol": 5e-4}
BOXES = torch.tensor([[0.0, 0, 64, 48], [10, 5, 40, 40], [63, 47, 64, 48]])
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each generation; tests that change files work on a copy."""
    place = tmp_path_factory.mktemp("maskers")
    return {"sam": write_tiny_sam(place / "sam", seed=1), "sam2": write_tiny_sam2(place / "sam2", seed=2)}


@pytest.fixture
def copied(tmp_path: Path, folders: dict[str, Path]) -> Path:
    for file in folders["sam"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def masker(folders: dict[str, Path], settings: MaskerSettings) -> PromptedMasker:
    return load_transformers_sam(settings, folders[settings.library], CPU)


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    pixels = np.random.default_rng(height).integers(0, 80, (height, width, 3), dtype=np.uint8)
    pixels[height // 3 : height // 2 + 1, width // 3 : width // 2 + 1] += 150
    return pixels


def test_sam_answers_as_the_librarys_own_processor_asks(folders: dict[str, Path]) -> None:
    # 48 x 64 pixels fill the network's 64 x 64 without resizing, in which the library rounds by one level of 255.
    side = {"height": SIDE, "width": SIDE}
    processor = SamProcessor(SamImageProcessor(size={"longest_edge": SIDE}, pad_size=side))
    model = SamModel.from_pretrained(folders["sam"]).eval()
    inputs = processor(images=picture(), input_boxes=[BOXES.tolist()], return_tensors="pt")
    with torch.no_grad():
        output = model(**{key: inputs[key] for key in ("pixel_values", "input_boxes")}, multimask_output=False)
    [full] = processor.image_processor.post_process_masks(
        output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False, pad_size=side
    )
    [found] = masker(folders, SAM).masks([picture()], [BOXES])
    torch.testing.assert_close(found.masks.masks, output.pred_masks[0, :, 0], **CLOSE)
    torch.testing.assert_close(found.quality, output.iou_scores[0, :, 0], **CLOSE)
    torch.testing.assert_close(found.masks.band(0, 48), full[:, 0].sigmoid(), **CLOSE)


def test_sam2_answers_as_the_librarys_own_processor_asks(folders: dict[str, Path]) -> None:
    processor = Sam2Processor(Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}), target_size=SIDE)
    model = Sam2Model.from_pretrained(folders["sam2"]).eval()
    pixels = picture(SIDE, SIDE)
    inputs = processor(images=pixels, input_boxes=[BOXES.tolist()], return_tensors="pt")
    with torch.no_grad():
        output = model(**{key: inputs[key] for key in ("pixel_values", "input_boxes")}, multimask_output=False)
    [full] = processor.image_processor.post_process_masks(output.pred_masks, inputs["original_sizes"], binarize=False)
    [found] = masker(folders, SAM2).masks([pixels], [BOXES])
    torch.testing.assert_close(found.masks.masks, output.pred_masks[0, :, 0], **CLOSE_SAM2)
    torch.testing.assert_close(found.quality, output.iou_scores[0, :, 0], **CLOSE_SAM2)
    torch.testing.assert_close(found.masks.band(0, SIDE), full[:, 0].sigmoid(), **CLOSE_SAM2)


@pytest.mark.parametrize("size", [(97, 33), (20, 150), (64, 10)])
def test_resized_pixels_differ_from_the_processors_by_rounding_alone(
    folders: dict[str, Path], size: tuple[int, int]
) -> None:
    side = {"height": SIDE, "width": SIDE}
    theirs = SamImageProcessor(size={"longest_edge": SIDE}, pad_size=side)(picture(*size), return_tensors="pt")
    squeezed = Sam2ImageProcessor(size=side)(picture(*size), return_tensors="pt")
    level = 1 / 255 / 0.224
    for settings, wanted in ((SAM, theirs), (SAM2, squeezed)):
        square = masker(folders, settings)._network.square
        difference = (square.pixels(picture(*size)) - wanted["pixel_values"]).abs()
        assert difference.max() < 1.01 * level


@pytest.mark.parametrize("settings", [SAM, SAM2])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (200, 90)])
def test_pictures_of_any_size_have_masks(
    folders: dict[str, Path], settings: MaskerSettings, size: tuple[int, int]
) -> None:
    boxes = torch.tensor([[0.0, 0, size[1], size[0]], [0, 0, 1, 1]])
    whole, none = masker(folders, settings).masks([picture(*size), picture()], [boxes, torch.zeros(0, 4)])
    assert [whole.masks.region(row).shape for row in range(2)] == [size, size]
    assert whole.masks.for_pooling().flatten(1).any(1).all()
    assert len(none.masks) == len(none.quality) == 0


@pytest.mark.parametrize("settings", [SAM, SAM2])
def test_chunks_change_nothing_and_prompts_matter(folders: dict[str, Path], settings: MaskerSettings) -> None:
    one_by_one = MaskerSettings(library=settings.library, model=settings.model, boxes=1)
    points = torch.tensor([[3.0, 4.0], [40, 20], [60, 45]])
    [together] = masker(folders, settings).masks([picture()], [BOXES])
    [alone] = masker(folders, one_by_one).masks([picture()], [BOXES])
    torch.testing.assert_close(together.masks.masks, alone.masks.masks, **CLOSE)
    assert not torch.allclose(together.masks.masks[0], together.masks.masks[1], atol=0.01)
    [at_once] = masker(folders, settings).point_masks(picture(), points)
    parts = list(masker(folders, one_by_one).point_masks(picture(), points))
    assert [len(part.masks) for part in parts] == [3, 3, 3]
    torch.testing.assert_close(torch.cat([part.masks.masks for part in parts]), at_once.masks.masks, **CLOSE)
    torch.testing.assert_close(torch.cat([part.quality for part in parts]), at_once.quality, **CLOSE)


def test_names_tell_model_and_weights(tmp_path: Path, folders: dict[str, Path]) -> None:
    found = masker(folders, SAM2)
    assert found.name == f"sam2.1-hiera-tiny@{found.weights_sha256[:8]}"
    assert masker(folders, SAM).name.startswith("sam-vit-base@")
    other = load_transformers_sam(SAM, write_tiny_sam(tmp_path, seed=9), CPU)
    assert other.weights_sha256 != masker(folders, SAM).weights_sha256


def test_the_still_picture_network_of_sam2_is_read_too(tmp_path: Path, folders: dict[str, Path]) -> None:
    Sam2Model.from_pretrained(folders["sam2"]).save_pretrained(tmp_path)
    Sam2ImageProcessor().save_pretrained(tmp_path)
    assert load_transformers_sam(SAM2, tmp_path, CPU).name == masker(folders, SAM2).name


def test_the_video_network_has_every_weight_of_the_released_sizes() -> None:
    with torch.device("meta"):
        video = set(Sam2VideoModel(Sam2VideoConfig()).state_dict())
        still = set(Sam2Model(Sam2Model.config_class()).state_dict())
    assert still < video


def test_both_of_sams_twin_tensors_may_be_in_the_file(copied: Path, folders: dict[str, Path]) -> None:
    tensors = load_file(copied / "model.safetensors")
    twins = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
    [present] = [name for name in twins if name in tensors]
    for names in (twins, twins[:1]):
        save_file({**tensors, **{name: tensors[present].clone() for name in names}}, copied / "model.safetensors")
        assert load_transformers_sam(SAM, copied, CPU).name == masker(folders, SAM).name


def refused(folder: Path, settings: MaskerSettings = SAM) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_transformers_sam(settings, folder, CPU)
    assert caught.value.why
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    error = refused(copied)
    assert (error.code, name in error.what) == ("E202", True)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "none")
    assert (error.code, "none" in error.what) == ("E201", True)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_half_file_is_refused(copied: Path, name: str) -> None:
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[: len(whole) // 2])
    error = refused(copied)
    assert (error.code, name in error.what) == ("E202", True)


def test_a_folder_of_the_other_generation_is_refused(folders: dict[str, Path]) -> None:
    assert refused(folders["sam"], SAM2).code == "E215"
    error = refused(folders["sam2"], SAM)
    assert (error.code, "sam2_video" in error.why) == ("E215", True)


def test_weights_of_another_network_are_refused(copied: Path, folders: dict[str, Path]) -> None:
    tensors = load_file(copied / "model.safetensors")
    save_file(dict(list(tensors.items())[3:]), copied / "model.safetensors")
    error = refused(copied)
    assert (error.code, "missing" in error.why) == ("E207", True)
    save_file(load_file(folders["sam2"] / "model.safetensors"), copied / "model.safetensors")
    assert refused(copied).code == "E207"


def test_weights_that_are_no_numbers_are_found_out(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    save_file({key: value * float("nan") for key, value in tensors.items()}, copied / "model.safetensors")
    with pytest.raises(ModelError, match="no numbers") as caught:
        load_transformers_sam(SAM, copied, CPU).masks([picture()], [BOXES])
    assert caught.value.code == "E216"


HOSTILE: dict[str, Change] = {
    "a part is missing": lambda document: document.pop("vision_config"),
    "a part is no table": lambda document: document.update(mask_decoder_config=[1, 2]),
    "a billion layers": lambda document: document["vision_config"].update(num_hidden_layers=10**9),
    "layers by name": lambda document: document["vision_config"].update(num_hidden_layers="many"),
    "terabytes of weights": lambda document: document["vision_config"].update(hidden_size=2**20, num_attention_heads=1),
    "parts that do not meet": lambda document: document["prompt_encoder_config"].update(image_size=128),
    "patches of nothing": lambda document: document["vision_config"].update(patch_size=0),
    "an unknown activation": lambda document: document["vision_config"].update(hidden_act="os.system"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_descriptions_that_contradict_themselves_or_the_weights_are_refused(copied: Path, change: Change) -> None:
    document = json.loads((copied / "config.json").read_text())
    change(document)
    (copied / "config.json").write_text(json.dumps(document))
    error = refused(copied)
    assert (error.code, "config.json" in error.what) == ("E215", True)


def test_entries_that_size_nothing_are_passed_over(copied: Path, folders: dict[str, Path]) -> None:
    document = json.loads((copied / "config.json").read_text())
    hook = {"attn_implementation": "stranger/kernel", "auto_map": {"AutoModel": "code.Network"}, "dtype": "float16"}
    document.update(hook)
    document["vision_config"].update(hook)
    (copied / "config.json").write_text(json.dumps(document))
    assert load_transformers_sam(SAM, copied, CPU).name == masker(folders, SAM).name


@pytest.mark.parametrize("std", [[0, 1, 1], [1, 1], "grey", [1, 1, None], [1, 1, float("nan")]])
def test_a_normalisation_that_is_none_is_refused(copied: Path, std: object) -> None:
    path = copied / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": std}))
    error = refused(copied)
    assert (error.code, path.name in error.what) == ("E215", True)
