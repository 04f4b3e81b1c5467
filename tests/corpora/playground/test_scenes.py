from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.corpora.playground import CLASSES, SceneSettings, compose
from retclip.corpora.playground.scenes import LEAST_AREA
from retclip.corpora.playground.surfaces import SURFACES


def test_there_are_enough_classes_of_every_kind() -> None:
    assert len(CLASSES) >= 40
    assert len({name for entry in CLASSES for name in entry.names}) == sum(len(entry.names) for entry in CLASSES)
    for is_thing in (True, False):
        group = [entry for entry in CLASSES if entry.is_thing is is_thing]
        assert {entry.seen for entry in group} == {True, False}
    assert {entry.surface for entry in CLASSES if not entry.is_thing} == set(SURFACES)


@given(st.sampled_from(["a", "b", "web"]), st.integers(0, 10**6), st.booleans())
@settings(max_examples=25, deadline=None)
def test_every_pixel_belongs_to_one_visible_segment(domain, number, only_seen) -> None:
    kind = SceneSettings.of(domain, only_seen=only_seen)
    scene = compose(kind, number)
    assert scene.pixels.shape == (kind.height, kind.width, 3)
    counts = np.bincount(scene.ids.ravel())
    assert counts[0] == 0
    assert len(counts) == len(scene.classes) + 1
    assert counts[1:].min() >= LEAST_AREA
    stuff = [column for column in scene.classes if not CLASSES[column].is_thing]
    assert len(stuff) == len(set(stuff)) >= 1
    assert not only_seen or all(CLASSES[column].seen for column in scene.classes)


def test_a_scene_is_a_function_of_its_settings_and_number() -> None:
    first, again = (compose(SceneSettings.of("a"), 5) for _ in range(2))
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.ids, again.ids)
    assert first.captions == again.captions
    others = [
        compose(SceneSettings.of("a"), 6),
        compose(SceneSettings.of("b"), 5),
        compose(SceneSettings.of("a", seed=1), 5),
    ]
    assert not any(np.array_equal(first.pixels, other.pixels) for other in others)


def test_captions_say_nothing_that_is_not_there() -> None:
    for number in range(40):
        scene = compose(SceneSettings.of("web"), number)
        present = [CLASSES[column] for column in scene.classes]
        absent_shapes = {e.name for e in CLASSES} - {name for entry in present for name in entry.names}
        for caption in scene.captions:
            words = f" {caption.casefold()} "
            for name in absent_shapes:
                owners = [entry for entry in present if any(name in other for other in entry.names)]
                assert owners or f" {name} " not in words, (name, caption)


@pytest.mark.parametrize("only_seen", [False, True])
def test_the_domains_look_different(only_seen) -> None:
    mean = {
        d: np.mean(
            [compose(SceneSettings.of(d, only_seen=only_seen), n).pixels.astype(float).std((0, 1)) for n in range(8)]
        )
        for d in "ab"
    }
    assert mean["a"] > 1.15 * mean["b"]
