"""Decisions on atoms are those on pixels."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Category, Vocabulary
from retclip.presets import MergeSettings
from retclip.query.atoms import outline, split_into_atoms
from retclip.query.merge import decide, verdict_of
from retclip.query.surfaces import AtomSurface, PixelSurface

WORDS = Vocabulary("words", (Category(7, ("cat",)), Category(3, ("sky",), is_thing=False), Category(9, ("dog",))))
SETTINGS = st.builds(
    MergeSettings,
    rule=st.sampled_from(["argmax", "greedy"]),
    score_threshold=st.sampled_from([0.0, 0.5]),
    overlap_threshold=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    join_things=st.booleans(),
)


@st.composite
def proposals(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Up to eight masks, rectangles (which touch) or noise, with scores that may tie, and void."""
    random = np.random.default_rng(draw(st.integers(0, 100_000)))
    count, size = draw(st.integers(0, 8)), (draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    masks = random.random((count, *size)) < 0.4
    if draw(st.booleans()):
        for mask in masks:
            (y0, y1), (x0, x1) = (sorted(random.integers(0, side + 1, 2)) for side in size)
            mask[:] = False
            mask[y0:y1, x0:x1] = True
    scores = torch.from_numpy(random.integers(0, 5, (count, len(WORDS))) / 4).float()
    void = torch.from_numpy(random.integers(0, 5, count) / 4).float() if draw(st.booleans()) else None
    return torch.from_numpy(masks), scores, void


@given(proposals(), SETTINGS)
def test_atoms_decide_like_pixels(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None], settings: MergeSettings
) -> None:
    masks, scores, void = case
    verdict = verdict_of(scores, void, settings)
    atoms = split_into_atoms(masks.numpy())
    size = (masks.shape[1], masks.shape[2])
    by_pixel = decide(PixelSurface(MaskSet(masks, size, "test")), verdict, WORDS, settings)
    by_atom = decide(AtomSurface(outline(atoms)), verdict, WORDS, settings)
    np.testing.assert_array_equal(by_atom.ids[atoms.index], by_pixel.ids)
    assert by_atom.segments == by_pixel.segments
    assert by_atom.proposals == by_pixel.proposals
    assert by_atom.labels == by_pixel.labels


def test_labels_name_every_proposal_that_holds_cells() -> None:
    masks = torch.tensor([[[1, 0, 0, 0]], [[0, 0, 1, 1]], [[0, 1, 0, 0]], [[1, 0, 0, 0]]]).bool()
    scores = torch.tensor([[0.9, 0, 0], [0, 0.8, 0], [0, 0.7, 0], [0, 0, 0.2]])
    found = decide(
        PixelSurface(MaskSet(masks, (1, 4), "test")),
        verdict_of(scores, None, MergeSettings()),
        WORDS,
        MergeSettings("greedy"),
    )
    # Both parts of the sky share a segment that the first of them founded; the last finds nothing free.
    assert found.labels == {0: 0, 1: 1, 2: 1}
    assert found.proposals == (0, 1)
