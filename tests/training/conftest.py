"""A miniature panoptic data set: two photos of coloured shapes, written in COCO's layout."""

import json
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from retclip.core.panoptic import ids_to_rgb
from retclip.core.vocabulary import Category, Vocabulary
from retclip.training.augmentation import JitterSettings
from retclip.training.coco_panoptic import Folders
from retclip.training.fcclip import TrainSettings
from retclip.training.losses import LossSettings
from retclip.training.optimiser import Schedule
from retclip.training.points import PointSettings

CATEGORIES = (Category(7, ("sky", "clouds"), is_thing=False), Category(21, ("ball",)), Category(90, ("box", "crate")))
SKY, BALL, BOX, CROWD = 11, 258, 70_000, 5


@pytest.fixture
def vocabulary():
    return Vocabulary("shapes", CATEGORIES)


@pytest.fixture
def folders(tmp_path):
    """Two photos, 64 x 80, each with sky, a ball and a box; the first also has a crowd of balls."""
    images, segments = tmp_path / "photos", tmp_path / "panoptic"
    images.mkdir()
    segments.mkdir()
    entries = []
    for number in range(2):
        ids = shapes(number)
        colours = {SKY: (120, 170, 250), BALL: (220, 40, 40), BOX: (30, 140, 60), CROWD: (200, 60, 60)}
        pixels = np.zeros((*ids.shape, 3), np.uint8)
        for segment, colour in colours.items():
            pixels[ids == segment] = colour
        Image.fromarray(pixels).save(images / f"{number}.png")
        Image.fromarray(ids_to_rgb(ids)).save(segments / f"{number}.png")
        described = [(SKY, 7, 0), (BALL, 21, 0), (BOX, 90, 0)] + ([(CROWD, 21, 1)] if number == 0 else [])
        entries.append(
            {
                "image_id": number,
                "file_name": f"{number}.png",
                "segments_info": [{"id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in described],
            }
        )
    table = [{"id": number, "file_name": f"{number}.png"} for number in range(2)]
    annotations = tmp_path / "panoptic.json"
    annotations.write_text(json.dumps({"images": table, "annotations": entries}))
    return Folders(images, annotations, segments)


def shapes(number):
    ids = np.full((64, 80), SKY, np.int32)
    y, x = np.mgrid[:64, :80]
    ids[(y - 22) ** 2 + (x - 20 - 30 * number) ** 2 < 200] = BALL
    ids[40:60, 45 - 30 * number : 75 - 30 * number] = BOX
    if number == 0:
        ids[:8, 60:] = CROWD
    return ids


@pytest.fixture
def settings(folders, vocabulary, tmp_path):
    """A run of the tiny variant that takes seconds on a CPU."""
    return TrainSettings(
        folders,
        vocabulary,
        tmp_path / "run",
        variant="tiny",
        device="cpu",
        amp=False,
        loader_processes=0,
        schedule=Schedule(iterations=4, batch_size=2, learning_rate=1e-3, steps=(), clip=1.0),
        loss=LossSettings(points=PointSettings(loss=128, matching=128)),
        jitter=JitterSettings(size=64, smallest=0.9, largest=1.2),
        save_every=2,
        log_every=1,
    )


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def _fixed_randomness():
    """One seed, and one thread: on tensors this small, threads spend their time waiting for each other."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
