import json

import numpy as np
import pytest
import torch
from PIL import Image

from retclip.core.errors import ImageError, InputError
from retclip.core.vocabulary import Vocabulary
from retclip.training.augmentation import JitterSettings
from retclip.training.coco_panoptic import JitteredStream, read_annotations, read_pair, targets_of


def rewritten(folders, change):
    data = json.loads(folders.annotations.read_text())
    change(data)
    folders.annotations.write_text(json.dumps(data))


def code(folders, vocabulary):
    with pytest.raises(InputError) as raised:
        read_annotations(folders, vocabulary)
    return raised.value.code


def test_crowds_are_left_out_and_ids_become_columns(folders, vocabulary):
    first, second = read_annotations(folders, vocabulary)
    assert sorted(first.columns.values()) == [0, 1, 2]
    assert first.columns == second.columns
    pixels, ids = read_pair(first)
    targets = targets_of(ids, first.columns)
    assert pixels.shape == (*ids.shape, 3)
    assert targets.masks.sum((1, 2)).tolist() == [(ids == number).sum() for number in sorted(first.columns)]
    assert targets.labels.tolist() == [first.columns[number] for number in sorted(first.columns)]


def test_a_segment_that_the_crop_lost_is_no_target():
    targets = targets_of(np.full((4, 5), 3, np.int32), {3: 1, 9: 0})
    assert targets.labels.tolist() == [1]
    assert targets.masks.all()
    assert targets_of(np.zeros((4, 5), np.int32), {3: 1}).masks.shape == (0, 4, 5)


def test_sample_k_depends_on_seed_and_k_alone(folders, vocabulary):
    pictures = read_annotations(folders, vocabulary)
    jitter = JitterSettings(size=48)
    stream = JitteredStream(pictures, jitter, seed=3)
    forward = [stream[k] for k in range(6)]
    backward = [JitteredStream(pictures, jitter, seed=3)[k] for k in reversed(range(6))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.targets.masks, other.targets.masks)
        assert torch.equal(one.targets.labels, other.targets.labels)
    assert any(
        not torch.equal(a.image, JitteredStream(pictures, jitter, seed=4)[k].image) for k, a in enumerate(forward)
    )


def test_every_epoch_shows_every_picture_once(folders, vocabulary):
    pictures = read_annotations(folders, vocabulary)
    stream = JitteredStream(pictures, JitterSettings(size=32), seed=0)
    shown = [stream.pictures[stream._order[k]].image.name for k in range(20)]
    assert all(sorted(shown[k : k + 2]) == ["0.png", "1.png"] for k in range(0, 20, 2))
    assert len({tuple(shown[k : k + 2]) for k in range(0, 20, 2)}) == 2  # the order changes


@pytest.mark.parametrize("text", ["", "[]", '{"images": [], "annotations": [{}]}', "{" * 5])
def test_a_file_of_another_kind_is_refused(folders, vocabulary, text):
    folders.annotations.write_text(text)
    assert code(folders, vocabulary) == "E171"


def test_a_missing_file_is_refused(folders, vocabulary):
    folders.annotations.unlink()
    assert code(folders, vocabulary) == "E171"


def test_a_category_without_a_name_is_refused(folders, vocabulary):
    assert code(folders, Vocabulary("less", vocabulary.categories[:2])) == "E172"


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png"])
@pytest.mark.parametrize("table", ["images", "annotations"])
def test_paths_out_of_the_folder_are_refused(folders, vocabulary, name, table):
    rewritten(folders, lambda data: data[table][0].update(file_name=name))
    assert code(folders, vocabulary) == "E173"


def test_pictures_that_do_not_fit_together_are_refused(folders, vocabulary):
    picture = read_annotations(folders, vocabulary)[0]
    Image.new("RGB", (9, 9)).save(picture.segments)
    with pytest.raises(InputError) as raised:
        read_pair(picture)
    assert raised.value.code == "E174"


def test_a_damaged_photo_is_named(folders, vocabulary):
    picture = read_annotations(folders, vocabulary)[0]
    picture.image.write_bytes(picture.image.read_bytes()[:60])
    with pytest.raises(ImageError, match=picture.image.name):
        read_pair(picture)
