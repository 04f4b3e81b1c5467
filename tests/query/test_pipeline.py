"""The walk of a segmentation, with an encoder that sees colours and, where wanted, reads colour words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retclip.core.errors import DatabaseError, EmptyDatabase, FeatureSpaceMismatch
from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.results import SegmentationResult
from retclip.core.vocabulary import Category, Vocabulary
from retclip.ports.encoders import DenseFeatures, embed_regions
from retclip.ports.proposals import Proposals
from retclip.presets import FusionSettings, MergeSettings, Preset, RetrievalSettings
from retclip.query.ensemble import ExpertScores, combine
from retclip.query.matching import vocabulary_of
from retclip.query.merge import merge_panoptic
from retclip.query.pipeline import Models, RetrievalSegmenter
from retclip.query.provenance import Evidence, explain
from retclip.query.question import TrainedHead
from retclip.shards import Database
from tests.fakes import COLOURS, ColourEncoder, ColourTexts, StripProposer, picture_of, strips

PRESET = Preset("test", retrieval=RetrievalSettings(k=4))


def segmenter(
    database: Database,
    count: int,
    vocabulary: Vocabulary | None = None,
    *,
    text: bool = False,
    preset: Preset = PRESET,
) -> RetrievalSegmenter:
    encoder = ColourEncoder()
    models = Models(encoder, StripProposer(count), ColourTexts(encoder) if text else None)
    return RetrievalSegmenter(models, database, vocabulary or vocabulary_of("all", database.classes), preset)


def labels_of(result: SegmentationResult) -> list[str]:
    return [explanation.label for explanation in result.explanations]


def test_stripes_get_the_colours_that_the_database_remembers(stripes: Database) -> None:
    colours = ["blue", "red", "grey", "green"]
    result = segmenter(stripes, 4).segment([picture_of(colours)])[0]
    assert labels_of(result) == colours
    assert [segment.is_thing for segment in result.panoptic.segments] == [True, True, False, True]
    names = result.vocabulary.names
    assert [names[c] for c in result.semantic[0, [2, 14, 26, 40]]] == colours
    assert np.array_equal(result.panoptic.ids[0], np.repeat([1, 2, 3, 4], 12))


def test_every_label_is_explained_by_stored_segments(stripes: Database) -> None:
    result = segmenter(stripes, 2).segment([picture_of(["green", "blue"])])[0]
    for explanation in result.explanations:
        assert explanation.decided_by == "retrieval"
        assert explanation.shares == {"retrieval": pytest.approx(1.0), "clip": 0.0, "in-vocab": 0.0}
        assert explanation.scores["clip"] is None
        assert explanation.scores["in-vocab"] is None
        assert explanation.match.method == "name"
        nearest = explanation.neighbors[0]
        assert nearest.label == nearest.stored.label == explanation.label
        assert nearest.distance < 1e-3
        assert [n.distance for n in explanation.neighbors] == sorted(n.distance for n in explanation.neighbors)
        assert 0 < len(explanation.neighbors) <= PRESET.retrieval.k


def test_only_the_asked_classes_are_given(stripes: Database) -> None:
    vocabulary = Vocabulary("two", (Category(40, ("red",)), Category(2, ("grey",), False)))
    result = segmenter(stripes, 3, vocabulary).segment([picture_of(["blue", "red", "green"])])[0]
    assert set(labels_of(result)) <= {"red", "grey"}
    assert {segment.category_id for segment in result.panoptic.segments} <= {40, 2}


def test_the_text_tower_names_what_the_database_never_saw(stripes: Database) -> None:
    vocabulary = Vocabulary.from_names("v", ["lemon", "red", "blue"])
    preset = replace(PRESET, fusion=FusionSettings(gamma=0.1))
    result = segmenter(stripes, 2, vocabulary, text=True, preset=preset).segment([picture_of(["yellow", "red"])])[0]
    assert labels_of(result) == ["lemon", "red"]
    lemon, red = result.explanations
    assert lemon.match.method == "none"
    assert "no_exemplars" in lemon.flags
    assert lemon.decided_by == "clip"
    assert lemon.shares["clip"] == pytest.approx(1.0)
    assert lemon.scores["retrieval"] == 0.0
    assert red.shares["retrieval"] > 0
    assert red.scores["clip"] is not None


def test_without_any_stored_class_the_text_tower_decides_alone(stripes: Database) -> None:
    vocabulary = Vocabulary.from_names("v", ["lemon", "chair"])
    result = segmenter(stripes, 1, vocabulary, text=True).segment([picture_of(["yellow"])])[0]
    explanation = result.explanations[0]
    assert explanation.label == "lemon"
    assert explanation.neighbors == ()
    assert {"no_exemplars", "no_neighbors"} <= set(explanation.flags)


def test_without_any_stored_class_and_without_text_it_refuses(stripes: Database) -> None:
    with pytest.raises(DatabaseError, match="lemon") as caught:
        segmenter(stripes, 1, Vocabulary.from_names("v", ["lemon", "chair"]))
    assert caught.value.code == "E309"
    assert "add-classes" in caught.value.fix


def test_three_experts_reach_the_explanation(stripes: Database) -> None:
    """Retrieval and text from the pipeline, a trained head from literals: one table, one map, three shares."""
    vocabulary = Vocabulary.from_names("v", ["red", "blue", "lemon"])
    pipeline = segmenter(stripes, 2, vocabulary, text=True)
    picture = picture_of(["red", "blue"])
    encoder = ColourEncoder()
    keys = torch.nn.functional.normalize(
        encoder.spread(
            torch.stack(
                [v.flatten(1).mean(dim=1) for v in encoder.encode_images([picture.pixels])[0].values.chunk(2, 2)]
            )
        ),
        dim=1,
    )
    asked = pipeline.score(keys)
    in_vocab = torch.tensor([[0.6, 0.3, 0.1], [0.05, 0.05, 0.9]])
    experts = ExpertScores(asked.experts.retrieval, asked.experts.clip, in_vocab, torch.tensor([0.1, 0.2]))
    fusion = FusionSettings("arithmetic", 0.4, 0.7, 0.3)
    fused = combine(experts, torch.tensor([True, True, False]), fusion)
    torch.testing.assert_close(fused.scores.sum(dim=1), torch.tensor([0.9, 0.8]))
    masks = MaskSet(strips(picture.size, 2), picture.size, "strips")
    merged = merge_panoptic(masks, fused.scores, experts.void, vocabulary, MergeSettings())
    evidence = Evidence(experts, fused, asked.neighbors, asked.labels, vocabulary, stripes)
    explanations = explain(evidence, merged.panoptic.segments, merged.proposals)
    assert [e.label for e in explanations] == ["red", "blue"]
    for explanation, row in zip(explanations, range(2), strict=True):
        column = vocabulary.names.index(explanation.label)
        assert sum(explanation.shares.values()) == pytest.approx(1.0)
        assert min(explanation.shares.values()) > 0
        assert explanation.scores["in-vocab"] == pytest.approx(float(in_vocab[row, column]))
        assert explanation.decided_by == max(explanation.shares, key=lambda name: explanation.shares[name])
        assert [name for name, _ in explanation.runner_up] == sorted(
            {*vocabulary.names} - {explanation.label},
            key=lambda n: -float(fused.scores[row, vocabulary.names.index(n)]),
        )


@pytest.mark.parametrize("minmax", ["query", "image", "classes"])
@pytest.mark.parametrize("rule", ["minmax", "voting"])
@pytest.mark.parametrize("text", [False, True])
def test_a_picture_without_proposals_is_an_empty_map(stripes: Database, minmax: str, rule: str, text: bool) -> None:
    retrieval = replace(PRESET.retrieval, minmax=minmax, rule=rule)  # type: ignore[arg-type]
    pipeline = segmenter(stripes, 0, text=text, preset=replace(PRESET, retrieval=retrieval))
    result = pipeline.segment([picture_of(["red"])])[0]
    assert result.explanations == ()
    assert (result.panoptic.ids == 0).all()
    assert (result.semantic == -1).all()
    assert len(result.instances.score) == 0


def test_pictures_of_different_sizes_do_not_disturb_one_another(stripes: Database) -> None:
    pipeline = segmenter(stripes, 2)
    first = picture_of(["red", "blue"])
    second = Picture(picture_of(["green", "grey"]).pixels[:17, :41].copy(), "0" * 64, "other.png")
    together = pipeline.segment([first, second])
    for result, picture in zip(together, (first, second), strict=True):
        alone = pipeline.segment([picture])[0]
        assert np.array_equal(alone.panoptic.ids, result.panoptic.ids)
        assert labels_of(alone) == labels_of(result)
        assert result.panoptic.ids.shape == picture.size


def test_a_database_of_another_encoder_is_refused(stripes: Database) -> None:
    models = Models(ColourEncoder("fake/other"), StripProposer(1))
    with pytest.raises(FeatureSpaceMismatch, match="fake/other") as caught:
        RetrievalSegmenter(models, stripes, vocabulary_of("all", stripes.classes), PRESET)
    assert "encoder: fake/colour != fake/other" in caught.value.why


def test_an_empty_database_is_refused(tmp_path: Path) -> None:
    empty = Database.create(tmp_path / "empty.retdb", ColourEncoder().space, {})
    with pytest.raises(EmptyDatabase):
        segmenter(empty, 1, Vocabulary.from_names("v", ["red"]))


def test_notes_say_which_experts_are_silent_and_which_labels_are_ambiguous(stripes: Database) -> None:
    vocabulary = Vocabulary("v", (Category(0, ("warm", "red")), Category(1, ("signal", "red"))))
    notes = segmenter(stripes, 1, vocabulary).notes
    assert any("gamma is 1" in note for note in notes)
    assert any("alpha and beta" in note for note in notes)
    assert any("'red' fits 'warm' and 'signal'; 'warm' is used" in note for note in notes)
    assert not any("gamma is 1" in note for note in segmenter(stripes, 1, text=True).notes)


def test_the_run_names_version_and_settings_in_plain_json(stripes: Database) -> None:
    run = segmenter(stripes, 1).segment([picture_of(["red"])])[0].run
    assert json.loads(json.dumps(run)) == json.loads(json.dumps(run, default=list))
    assert run["db"] == [{"name": "stripes", "version": stripes.version, "feature_space": stripes.space.fingerprint}]
    assert run["retrieval"]["k"] == PRESET.retrieval.k


@dataclass(frozen=True)
class LogitProposer:
    """Logits at a quarter of the picture's size: left, right, and one that is negative everywhere."""

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        height, width = pictures[0].size
        half = strips((height // 4, width // 4), 2).float() * 20 - 10
        return [Proposals(MaskSet(torch.cat([half, torch.full_like(half[:1], -9.0)]), (height, width), "logits"))]


def test_proposals_may_be_logits_at_another_size(stripes: Database) -> None:
    models = Models(ColourEncoder(), LogitProposer())
    vocabulary = vocabulary_of("all", stripes.classes)
    result = RetrievalSegmenter(models, stripes, vocabulary, PRESET).segment([picture_of(["green", "red"])])[0]
    assert labels_of(result) == ["green", "red"]
    assert result.panoptic.ids.shape == (24, 48)


@dataclass(frozen=True)
class KnowingProposer:
    """Two strips whose pass already knows everything: keys, trained scores, void, and which keys may be looked up."""

    valid: tuple[bool, bool] = (True, True)

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        encoder, found = ColourEncoder(), []
        for picture in pictures:
            masks = strips(picture.size, 2)
            keys = embed_regions(encoder, encoder.encode_images([picture.pixels])[0], masks)
            in_vocab = torch.tensor([[0.1, 0.9], [0.1, 0.9]])
            known = (keys, in_vocab, torch.tensor([0.05, 0.1]), torch.tensor(self.valid))
            found.append(Proposals(MaskSet(masks, picture.size, "strips"), *known))
        return found


def knowing(
    database: Database, proposer: KnowingProposer, preset: Preset = PRESET
) -> tuple[RetrievalSegmenter, ColourEncoder]:
    encoder = ColourEncoder()
    head = TrainedHead(frozenset({"blue"}), "0" * 64)
    models = Models(encoder, proposer, ColourTexts(ColourEncoder()), head)
    return RetrievalSegmenter(models, database, Vocabulary.from_names("v", ["red", "blue"]), preset), encoder


def test_what_the_proposer_knows_is_not_computed_again(stripes: Database) -> None:
    pipeline, encoder = knowing(stripes, KnowingProposer())
    result = pipeline.segment([picture_of(["red", "blue"]), picture_of(["red", "red"])])[0]
    assert encoder.calls == 0
    assert labels_of(result) == ["red", "blue"]
    for explanation in result.explanations:
        assert min(explanation.shares.values()) > 0
        assert explanation.scores["in-vocab"] == pytest.approx({"red": 0.1, "blue": 0.9}[explanation.label])
    assert result.run["vocabulary"]["seen"] == 1
    assert result.run["head"] == {"weights_sha256": "0" * 64}
    assert any("1 of 2 asked classes were seen" in note for note in pipeline.notes)


def test_seen_classes_listen_less_to_the_database(stripes: Database) -> None:
    """With alpha 0 the seen class keeps its trained score; with beta 1 the unseen one has none of it."""
    preset = replace(PRESET, fusion=FusionSettings(alpha=0.0, beta=1.0))
    pipeline, _ = knowing(stripes, KnowingProposer(), preset)
    _, observation = pipeline.observe(picture_of(["red", "blue"]))
    evidence = pipeline.question.weigh(observation)
    red, blue = evidence.fused.shares[0]
    assert (red[2], blue[2]) == (0.0, 1.0)


@pytest.mark.parametrize("only_valid", [True, False])
def test_a_region_without_cells_is_not_looked_up(stripes: Database, only_valid: bool) -> None:
    """Its CLIP score counts as released, or with `only_valid_masks` not at all; its trained score always does."""
    preset = replace(PRESET, fusion=FusionSettings(only_valid_masks=only_valid))
    pipeline, _ = knowing(stripes, KnowingProposer((True, False)), preset)
    _, observation = pipeline.observe(picture_of(["red", "blue"]))
    evidence = pipeline.question.weigh(observation)
    assert (evidence.neighbors.class_id[1] == -1).all()
    retrieval, clip, in_vocab = evidence.fused.shares[1, 1].tolist()
    assert retrieval == 0
    assert in_vocab > 0
    assert (clip == 0) == only_valid
    assert evidence.fused.shares[0, 0, 0] > 0


def test_a_region_without_features_does_not_stop_the_picture(stripes: Database) -> None:
    """A key of length zero cannot be compared: the region stays unlabelled, the others are not touched."""

    class BlindOnTheLeft(ColourEncoder):
        def embed(self, features: DenseFeatures, masks: torch.Tensor) -> torch.Tensor:
            keys = super().embed(features, masks)
            keys[0] = 0
            return keys

    models = Models(BlindOnTheLeft(), StripProposer(2))
    for name in ("none", "centre"):
        preset = replace(PRESET, retrieval=replace(PRESET.retrieval, transform=name))  # type: ignore[arg-type]
        pipeline = RetrievalSegmenter(models, stripes, vocabulary_of("all", stripes.classes), preset)
        result = pipeline.segment([picture_of(["green", "red"])])[0]
        assert labels_of(result) == ["red"]
        assert (result.panoptic.ids[:, :24] == 0).all()


def test_all_colours_are_asked_by_default(stripes: Database) -> None:
    assert set(segmenter(stripes, 1).vocabulary.names) == set(COLOURS) - {"yellow"}
