"""What recorded text vectors of CLIP say about matching labels by a cosine of 0.95."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.photos


def unit_rows(path):
    rows = np.load(path, allow_pickle=False).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pairs_above(rows, threshold):
    first, second = np.nonzero(np.triu(rows @ rows.T, 1) > threshold)
    return list(zip(first.tolist(), second.tolist(), strict=True))


@pytest.fixture(scope="module")
def folder(test_data):
    return test_data / "clip_text"


@pytest.mark.parametrize(
    ("file", "names", "most"), [("lvis_v1_clip_a+cname", "lvis", 16), ("coco_clip_a+cname", "coco", 0)]
)
def test_few_pairs_of_classes_count_as_the_same(folder, file, names, most):
    """ViT-B/32, one prompt: 16 of LVIS's 723,003 pairs and none of COCO's 3,160 pass 0.95."""
    rows = unit_rows(folder / "detic_vitb32" / f"{file}.npy")
    assert len(rows) == len(json.loads((folder / "detic_vitb32" / "names.json").read_text())[names])
    assert len(pairs_above(rows, 0.95)) == most


def test_what_passes_is_near_in_meaning_but_not_always_the_same(folder):
    names = [entry[0] for entry in json.loads((folder / "detic_vitb32" / "names.json").read_text())["lvis"]]
    rows = unit_rows(folder / "detic_vitb32" / "lvis_v1_clip_a+cname.npy")
    passing = {(names[a], names[b]) for a, b in pairs_above(rows, 0.95)}
    assert passing >= {
        ("alcohol", "liquor"),
        ("cushion", "pillow"),
        ("salmon_(fish)", "salmon_(food)"),
        ("gag", "grits"),
    }


def test_averaged_prompts_lie_closer_together_and_mean_the_same(folder):
    """ViT-B/16, 171 classes: 1 pair above 0.95 with one prompt, 9 with many; every name stays its own nearest."""
    one, many = (
        unit_rows(folder / "zegclip_vitb16" / "text_embedding" / f"coco_{kind}.npy") for kind in ("single", "multi")
    )
    assert [len(pairs_above(rows, 0.95)) for rows in (one, many)] == [1, 9]
    assert ((one @ many.T).argmax(axis=1) == np.arange(len(one))).all()
