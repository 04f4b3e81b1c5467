import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import box_iou
from transformers import GroundingDinoForObjectDetection, MMGroundingDinoForObjectDetection

from retclip.adapters.grounding_dino import GroundingDino, load_grounding_dino
from retclip.adapters.grounding_dino.prompts import Prompt
from retclip.core.errors import ModelError
from retclip.core.weights import read_weights
from retclip.ports.detection import Detections, Detector
from retclip.presets.networks import DetectorSettings
from tests.adapters.tiny_models import write_tiny_grounding_dino

CPU = torch.device("cpu")
SETTINGS = DetectorSettings("grounding_dino")
WORDS = ("cat", "dog", "traffic", "light", "thing")


@pytest.fixture(scope="module", params=["grounding-dino", "mm-grounding-dino"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_grounding_dino(tmp_path_factory.mktemp("tiny"), WORDS, model_type=request.param)


@pytest.fixture(scope="module")
def detector(folder: Path) -> GroundingDino:
    return load_grounding_dino(SETTINGS, folder, CPU)


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Noise, with a bright rectangle so that places differ."""
    pixels = np.random.default_rng(seed).integers(0, 120, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 255
    return pixels


def assert_proper(found: Detections, size: tuple[int, int], phrases: int, threshold: float) -> None:
    height, width = size
    boxes, scores = found.boxes, found.scores
    assert boxes.dtype == scores.dtype == torch.float32
    assert found.phrases.dtype == torch.int64
    assert (boxes >= 0).all()
    assert (boxes <= boxes.new_tensor([width, height, width, height])).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert ((found.phrases >= 0) & (found.phrases < phrases)).all()
    assert (scores >= threshold).all()
    assert (scores <= 1).all()
    assert (scores.diff() <= 0).all()
    assert all(len(chunk) == 12 for chunk in found.chunks)


def assert_same(one: Detections, other: Detections) -> None:
    torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=1e-2)
    torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-4)
    assert torch.equal(one.phrases, other.phrases)
    assert one.chunks == other.chunks


@pytest.mark.parametrize("count", [1, 40, 300, 1200])
def test_any_number_of_classes(detector: GroundingDino, count: int):
    phrases = [f"thing {index}" for index in range(count)]
    (found,) = detector.detect([picture(90, 120)], [phrases], 0.05)
    assert len(found) > 0
    assert_proper(found, (90, 120), count, 0.05)


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (3, 50), (1, 4000), (4000, 5), (4000, 200), (4000, 3000)])
def test_pictures_of_any_size(detector: GroundingDino, size: tuple[int, int]):
    (found,) = detector.detect([picture(*size)], [["cat", "dog"]], 0.01)
    # Of a very narrow picture the network sees mostly the margin: all boxes may lie there.
    assert len(found) > 0 or max(size) > 16 * min(size)
    assert_proper(found, size, 2, 0.01)


@pytest.mark.filterwarnings("error")
def test_views_of_read_only_pixels_are_pictures_too(detector: GroundingDino):
    pixels = picture(90, 120)
    pixels.setflags(write=False)
    (mirrored,) = detector.detect([pixels[:, ::-1]], [["cat"]], 0.01)
    assert_same(mirrored, detector.detect([pixels[:, ::-1].copy()], [["cat"]], 0.01)[0])


def test_it_is_a_detector_named_by_model_and_weights(detector: GroundingDino, folder: Path):
    port: Detector = detector
    assert port.name == f"grounding-dino-base@{detector.weights_sha256[:8]}"
    assert len(detector.weights_sha256) == 64
    assert load_grounding_dino(SETTINGS, folder, CPU).name == detector.name


def test_nothing_asked_finds_nothing(detector: GroundingDino):
    assert detector.detect([], [], 0.3) == []
    for phrases in ([], [""], ["?", " . "]):
        (found,) = detector.detect([picture(64, 64)], [phrases], 0.01)
        assert len(found) == 0
        assert_proper(found, (64, 64), 0, 0.01)


def test_odd_spellings_are_found_under_the_first_of_them(detector: GroundingDino):
    (plain,) = detector.detect([picture(90, 120)], [["a, b", "cat", "st bernard"]], 0.01)
    odd_names = ["Cat?", "cat", "", "St. Bernard", " A,  b", "st bernard"]
    (odd,) = detector.detect([picture(90, 120)], [odd_names], 0.01)
    meant = {4: 0, 0: 1, 3: 2}
    assert_same(replace(odd, phrases=torch.tensor([meant[phrase] for phrase in odd.phrases.tolist()])), plain)


def test_the_order_of_phrases_changes_nothing(detector: GroundingDino):
    asked = ["dog", "traffic light", "cat", "thing 1"]
    (first,) = detector.detect([picture(90, 120)], [asked], 0.01)
    for order in itertools.islice(itertools.permutations(range(4)), 1, 24, 7):
        (found,) = detector.detect([picture(90, 120)], [[asked[place] for place in order]], 0.01)
        asked_as = torch.tensor([order[phrase] for phrase in found.phrases.tolist()])
        assert_same(replace(found, phrases=asked_as), first)


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_pictures_of_a_batch_do_not_change_one_another(folder: Path, batch: int):
    sizes = [(90, 120), (64, 64), (90, 120), (90, 120), (200, 50)]
    pictures = [picture(*size, seed) for seed, size in enumerate(sizes)]
    many = [f"thing {index}" for index in range(60)]
    phrases = [["cat"], ["dog", "cat"], many, ["traffic light", "dog"], []]
    alone = load_grounding_dino(SETTINGS, folder, CPU)
    together = load_grounding_dino(replace(SETTINGS, batch=batch), folder, CPU).detect(pictures, phrases, 0.05)
    assert len(together[2]) > 0
    for found, pixels, asked in zip(together, pictures, phrases, strict=True):
        assert_same(found, alone.detect([pixels], [asked], 0.05)[0])


def test_a_picture_is_seen_once_for_all_its_prompts(detector: GroundingDino, monkeypatch: pytest.MonkeyPatch):
    passes: list[int] = []
    backbone: nn.Module = detector._network._seen.backbone
    handle = backbone.register_forward_hook(lambda _module, inputs, _output: passes.append(len(inputs[0])))
    (found,) = detector.detect([picture(90, 120)], [[f"thing {index}" for index in range(300)]], 0.01)
    handle.remove()
    assert passes == [1]
    assert len(set(found.chunks)) > 1


def test_a_seen_picture_gives_what_the_whole_network_gives(folder: Path, detector: GroundingDino):
    """The library's own forward pass, with its image backbone in place."""
    network = detector._network
    pixels = picture(90, 120)
    views = network.look([pixels])
    mine = network.ask(views, [0], ["cat. traffic light."])
    mm = "mm-" in (folder / "config.json").read_text()
    kind = MMGroundingDinoForObjectDetection if mm else GroundingDinoForObjectDetection
    whole = kind.from_pretrained(folder).eval()
    words = network._tokenizer("cat. traffic light.", return_tensors="pt")
    with torch.inference_mode():
        theirs = whole(pixel_values=views.pixels, pixel_mask=views.mask, **words)
    torch.testing.assert_close(mine.logits, theirs.logits)
    torch.testing.assert_close(mine.boxes, theirs.pred_boxes)


def test_the_threshold_only_takes_boxes_away(detector: GroundingDino):
    asked = [["cat", "dog", "traffic light"]]
    (low,) = detector.detect([picture(90, 120)], asked, 0.01)
    threshold = float(low.scores.median())
    (high,) = detector.detect([picture(90, 120)], asked, threshold)
    assert 0 < len(high) < len(low)
    assert_same(high, low.select(torch.arange(len(high))))


def test_boxes_per_picture_are_limited_to_the_best(folder: Path, detector: GroundingDino):
    asked = [["cat", "dog", "traffic light"]]
    (all_found,) = detector.detect([picture(90, 120)], asked, 0.01)
    (few,) = load_grounding_dino(replace(SETTINGS, most_boxes=3), folder, CPU).detect([picture(90, 120)], asked, 0.01)
    assert_same(few, all_found.select(torch.arange(3)))


def test_overlapping_boxes_of_a_phrase_are_one(folder: Path):
    strict = load_grounding_dino(replace(SETTINGS, nms_iou=0.05), folder, CPU)
    asked = [f"thing {index}" for index in range(200)]
    (found,) = strict.detect([picture(90, 120)], [asked], 0.01)
    overlaps = box_iou(found.boxes, found.boxes).fill_diagonal_(0)
    same = found.phrases[:, None] == found.phrases
    assert overlaps[same].max() <= 0.05 + 1e-6
    assert overlaps.max() <= 0.9 + 1e-6


def test_the_span_decides_how_words_count(folder: Path):
    scores = [
        load_grounding_dino(replace(SETTINGS, span=span), folder, CPU)
        .detect([picture(90, 120)], [["traffic light"]], 0.001)[0]
        .scores.max()
        for span in ("mean", "max")
    ]
    assert scores[0] < scores[1]


def test_a_small_chunk_splits_the_prompt(folder: Path):
    small = load_grounding_dino(replace(SETTINGS, chunk_tokens=8), folder, CPU)
    (found,) = small.detect([picture(90, 120)], [["cat", "dog", "traffic light", "thing"]], 0.01)
    # [CLS] cat . dog . thing . [SEP], and traffic light alone.
    assert len(set(found.chunks)) == 2
    for phrase, chunk in zip(found.phrases.tolist(), found.chunks, strict=True):
        assert (chunk == Prompt("traffic light.", (), ()).chunk) == (phrase == 2)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, float("nan")])
def test_thresholds_outside_their_range_are_refused(detector: GroundingDino, threshold: float):
    with pytest.raises(ValueError, match="threshold"):
        detector.detect([picture(64, 64)], [["cat"]], threshold)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_picture_is_refused(detector: GroundingDino, wrong: npt.NDArray[np.uint8]):
    with pytest.raises(ValueError, match="picture"):
        detector.detect([wrong], [["cat"]], 0.3)


def test_every_picture_needs_its_phrases(detector: GroundingDino):
    with pytest.raises(ValueError, match="phrases"):
        detector.detect([picture(64, 64)], [], 0.3)


def test_weights_that_compute_no_numbers_are_named(tmp_path: Path):
    folder = write_tiny_grounding_dino(tmp_path / "broken", WORDS)
    tensors = read_weights(folder / "model.safetensors")
    tensors["model.text_projection.weight"].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    broken = load_grounding_dino(SETTINGS, folder, CPU)
    with pytest.raises(ModelError) as caught:
        broken.detect([picture(64, 64)], [["cat"]], 0.3)
    assert caught.value.code == "E213"
