"""Pictures and prompts on their way into a promptable network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from retclip.adapters.promptable import PromptedMasker, SquareInput
from retclip.core.errors import ModelError
from tests.adapters.tiny_sam import original_sam

SAM = SquareInput(64, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), padded=True)
SAM2 = SquareInput(64, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), padded=False)
sizes = st.tuples(st.integers(1, 150), st.integers(1, 150))


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


class Echo:
    """Answers every prompt with the prompt's own coordinates."""

    name, weights_sha256, device, square = "echo@00000000", "0" * 64, torch.device("cpu"), SAM

    def __init__(self) -> None:
        self.embedded = 0
        self.chunks: list[int] = []

    def embed(self, pixels: torch.Tensor) -> Any:
        self.embedded += 1
        return pixels.mean()

    def decode_boxes(self, embedding: Any, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.chunks.append(len(boxes))
        return boxes.view(-1, 2, 2) + embedding, boxes[:, 0]

    def decode_points(self, embedding: Any, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.chunks.append(len(points))
        return points[:, None, None].repeat(1, 3, 1, 1), points[:, :1].repeat(1, 3)


@given(sizes)
def test_pixels_are_those_of_sams_own_predictor(size: tuple[int, int]) -> None:
    if min(size) * 64 / max(size) < 0.5:  # the predictor cannot take slivers
        assert min(SAM.content(size)) == 1
        return
    picture = noise(size)
    resized = torch.from_numpy(ResizeLongestSide(64).apply_image(picture)).permute(2, 0, 1)
    assert torch.equal(SAM.pixels(picture)[0], original_sam().preprocess(resized))
    assert SAM.content(size) == tuple(resized.shape[1:])


@given(sizes, st.integers(0, 99))
def test_places_are_those_of_sams_own_predictor(size: tuple[int, int], seed: int) -> None:
    boxes = torch.rand(5, 4, generator=torch.Generator().manual_seed(seed)) * 150
    if SAM.content(size) == ResizeLongestSide.get_preprocess_shape(*size, 64):
        wanted = ResizeLongestSide(64).apply_boxes_torch(boxes, size)
        torch.testing.assert_close(SAM.places(boxes, size), wanted)
    corner = torch.tensor([[float(size[1]), float(size[0])]])
    torch.testing.assert_close(SAM2.places(corner, size), torch.tensor([[64.0, 64.0]]))


@given(sizes)
def test_every_picture_fits_its_square(size: tuple[int, int]) -> None:
    frame = SAM.frame(size)
    assert frame is not None
    assert max(frame.content) == 64
    assert frame.output == size
    assert SAM2.frame(size) is None
    assert SAM.pixels(noise(size)).shape == SAM2.pixels(noise(size)).shape == (1, 3, 64, 64)


@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 5))
def test_ragged_boxes_are_answered_in_order_a_chunk_at_a_time(counts: list[int], prompts: int) -> None:
    network = Echo()
    pictures = [noise((20 + index, 40), index) for index in range(len(counts))]
    boxes = [torch.arange(count * 4.0).view(count, 4) + index for index, count in enumerate(counts)]
    answers = PromptedMasker(network, prompts).masks(pictures, boxes)
    assert [len(answer.masks) for answer in answers] == counts
    assert network.embedded == sum(count > 0 for count in counts)
    assert all(chunk <= prompts for chunk in network.chunks)
    for picture, asked, answer in zip(pictures, boxes, answers, strict=True):
        assert answer.masks.image_size == picture.shape[:2]
        torch.testing.assert_close(answer.quality, asked[:, 0] * 64 / 40)


@given(st.integers(0, 9), st.integers(1, 5))
def test_points_are_answered_in_order_a_chunk_at_a_time(count: int, prompts: int) -> None:
    network = Echo()
    points = torch.arange(count * 2.0).view(count, 2)
    chunks = list(PromptedMasker(network, prompts).point_masks(noise((40, 40)), points))
    assert sum(network.chunks) == count
    assert all(len(chunk.masks) <= 3 * prompts for chunk in chunks)
    quality = torch.cat([torch.zeros(0), *(chunk.quality for chunk in chunks)])
    torch.testing.assert_close(quality, (points[:, 0] * 64 / 40).repeat_interleave(3))


@pytest.mark.parametrize("boxes", [torch.zeros(4), torch.zeros(2, 2), torch.tensor([[0, 0, 1, float("nan")]])])
def test_prompts_of_another_kind_are_refused(boxes: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="boxes"):
        PromptedMasker(Echo(), 4).masks([noise((8, 8))], [boxes])


def test_views_and_read_only_pictures_are_taken_and_left_as_they_are() -> None:
    whole = noise((30, 20))
    view = whole[::-2, ::-1]
    whole.setflags(write=False)
    assert torch.equal(SAM.pixels(view), SAM.pixels(view.copy()))
    assert torch.equal(SAM.pixels(whole), SAM.pixels(noise((30, 20))))


def test_pictures_and_boxes_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        PromptedMasker(Echo(), 4).masks([noise((8, 8))], [])


def test_answers_that_are_no_numbers_are_an_error() -> None:
    network = Echo()
    network.embed = lambda pixels: torch.tensor(float("nan"))  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="no numbers") as caught:
        PromptedMasker(network, 4).masks([noise((8, 8))], [torch.ones(1, 4)])
    assert caught.value.code == "E216"
