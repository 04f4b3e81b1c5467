from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retclip.corpora import open_corpus
from retclip.corpora.playground import CLASSES, SceneSettings, compose
from retclip.corpora.playground.export import write_coco
from retclip.evaluation.datasets import load_seen_classes, open_evaluation_set
from retclip.vocabularies import load_vocabulary
from scripts.make_playground_lists import lists


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("playground")
    write_coco(folder, "val", SceneSettings.of("a"), 3)
    return folder


def test_the_coco_reader_gives_back_what_was_drawn(root: Path) -> None:
    corpus = open_corpus("coco", root, "val")
    images = list(corpus.images())
    assert len(images) == 3
    for number, image in enumerate(images):
        scene = compose(SceneSettings.of("a"), 10_000_000 + number)
        assert np.array_equal(image.read().pixels, scene.pixels)
        assert image.captions == scene.captions
        regions = corpus.regions(image, scene.ids.shape, "masks")
        assert [region.label for region in regions] == [CLASSES[column].name for column in scene.classes]
        for index, region in enumerate(regions, start=1):
            assert np.array_equal(region.mask, scene.ids == index)


def test_the_evaluation_set_knows_all_names_and_the_seen_classes(root: Path) -> None:
    dataset = open_evaluation_set("playground", root, "val")
    assert [category.names for category in dataset.vocabulary] == [entry.names for entry in CLASSES]
    seen = load_seen_classes("playground_seen", dataset.vocabulary)
    assert seen == {column for column, entry in enumerate(CLASSES) if entry.seen}


def test_an_interrupted_drawing_goes_on(root: Path, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(done: int) -> None:
        if done == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        write_coco(tmp_path, "val", SceneSettings.of("a"), 3, stop)
    write_coco(tmp_path, "val", SceneSettings.of("a"), 3)
    written = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert written == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((root / path).read_bytes() == (tmp_path / path).read_bytes() for path in written)


def test_the_class_lists_in_the_package_are_those_of_the_classes() -> None:
    import retclip

    for name, text in lists().items():
        assert (Path(retclip.__file__).parent / name).read_text(encoding="utf-8") == text
    assert len(load_vocabulary("@playground")) == len(CLASSES)
    assert [c.name for c in load_vocabulary("@playground-seen")] == [c.name for c in CLASSES if c.seen]
