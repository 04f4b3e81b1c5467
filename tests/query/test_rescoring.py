"""A kept run labelled again is the run that would be made now, to the byte."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.core.errors import InputError
from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.results import SegmentationResult
from retclip.core.vocabulary import Category, Vocabulary
from retclip.ports.encoders import embed_regions
from retclip.ports.neighbors import NeighborIndex
from retclip.ports.proposals import Proposals
from retclip.presets import FusionSettings, MergeSettings, Preset, ProposalSettings, RetrievalSettings
from retclip.presets.networks import DetectorSettings, MaskerSettings
from retclip.query.kept import KeptRun, RunFacts, refuse_other_networks
from retclip.query.matching import stored_vocabulary
from retclip.query.pipeline import Models, RetrievalSegmenter
from retclip.query.question import TrainedHead, pose
from retclip.query.rescoring import Rescorer
from retclip.reports import coco
from retclip.reports.provenance import segments_document
from retclip.shards import Database
from retclip.shards.layers import LayeredIndex
from tests.fakes import ColourEncoder, ColourTexts, StripeCorpus, build_stripes, picture_of, strips

PICTURES = [picture_of(colours, f"{n}.png") for n, colours in enumerate([
    ["red", "blue", "green", "grey"], ["blue", "grey"], ["green"], ["yellow", "red", "red", "blue", "grey", "grey"],
])]  # fmt: skip
STORED = [["red", "blue"], ["green", "red"], ["blue", "grey"], ["red", "green", "blue"]]
LISTED = Vocabulary(
    "listed", tuple(Category(7 * n, (c,), True, False) for n, c in enumerate(["red", "blue", "grey", "crimson"]))
)
EXPERTS = ("retrieval", "text", "head")


@dataclass(frozen=True)
class Overlapping:
    """Sixths, thirds and the whole, so that merging has to choose; with a head, trained scores and void as well.

    Soft ones are logits in place of binary masks.
    """

    head: bool = False
    soft: bool = False

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        return [self._propose(picture, len(vocabulary)) for picture in pictures]

    def _propose(self, picture: Picture, classes: int) -> Proposals:
        masks = torch.cat([strips(picture.size, count) for count in (6, 3, 1)])
        masks[1, :9] = False
        shape = masks.float() * 9 - 4 + torch.linspace(-1, 1, masks.shape[2]) if self.soft else masks
        found = MaskSet(shape, picture.size, "strips")
        if not self.head:
            return Proposals(found)
        encoder = ColourEncoder()
        keys = embed_regions(encoder, encoder.encode_images([picture.pixels])[0], found.for_pooling())
        random = torch.Generator().manual_seed(int(picture.pixels.sum()))
        tables = torch.rand(len(masks), classes, generator=random), torch.rand(len(masks), generator=random) / 3
        return Proposals(found, keys, *tables, torch.arange(len(masks)) != 2)


def models_of(experts: str, soft: bool) -> Models:
    encoder = ColourEncoder()
    head = TrainedHead(frozenset({"blue", "grey"}), "ab" * 32) if experts == "head" else None
    text = None if experts == "retrieval" else ColourTexts(encoder)
    return Models(encoder, Overlapping(head is not None, soft), text, head)


def kept_run(folder: Path, segmenter: RetrievalSegmenter, listed: bool = True, preset: Preset | None = None) -> KeptRun:
    """Segment all pictures and keep them, as `retclip segment --keep` does."""
    question = segmenter.question
    space = ColourEncoder().space
    facts = RunFacts(
        (), "first", space, preset or question.preset, question.as_asked, listed, question.head, ("segments",)
    )
    kept = KeptRun.create(folder, facts, segmenter.keep_texts(), None)
    rescorer = Rescorer(kept, question)
    for picture in PICTURES:
        masks, observation = segmenter.observe(picture)
        rescorer.keep(picture, picture.name, masks, observation, question.weigh(observation))
    kept.save_records()
    return KeptRun.open(folder)


def rescored_results(
    kept: KeptRun, index: NeighborIndex, vocabulary: Vocabulary, preset: Preset
) -> list[SegmentationResult]:
    rescorer = Rescorer(kept, pose(index, vocabulary, preset, kept.texts, kept.facts.head))
    return [rescorer.result(found, with_layers=True) for found in rescorer.rescore(batch=3)]


def assert_same(found: Sequence[SegmentationResult], fresh: Sequence[SegmentationResult]) -> None:
    for mine, theirs in zip(found, fresh, strict=True):
        assert coco.panoptic_png(mine.panoptic.ids) == coco.panoptic_png(theirs.panoptic.ids)
        assert segments_document(mine) == segments_document(theirs)
        assert coco.panoptic_entry(mine, "x.png") == coco.panoptic_entry(theirs, "x.png")
        assert coco.semantic_png(mine) == coco.semantic_png(theirs)
        assert coco.instances_document(mine) == coco.instances_document(theirs)


def changed(database: Database, change: str) -> Database:
    """The newest version after one change."""
    if change == "undo":
        return changed(changed(database, "delete"), "add").restore(database.version)
    if change == "add":
        corpus = StripeCorpus.write(database.path.parent / "more", [["grey", "grey"], ["yellow"], ["blue", "red"]])
        return more_stripes(database, corpus)
    with database.write(change, "tests") as transaction:
        if change == "delete":
            transaction.delete(labels=["blue"])
        elif change == "relabel":
            transaction.relabel("red", "crimson")
        elif change == "whiten":
            transaction.set_transform("standardise")
        return transaction.commit()


def more_stripes(database: Database, corpus: StripeCorpus) -> Database:
    from retclip.indexer.build import build
    from retclip.indexer.plan import BuildRequest
    from retclip.indexer.regions import AnnotatedRegions

    build(
        database, BuildRequest(corpus, AnnotatedRegions(corpus, "masks"), batch=2, thumbnails=0), ColourEncoder(), "add"
    )
    return Database.open(database.path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rescoring")
    return build_stripes(folder / "stripes.retdb", StripeCorpus.write(folder / "photos", STORED))[0].path


@settings(max_examples=40)
@given(
    change=st.sampled_from(["delete", "relabel", "add", "undo", "whiten", "nothing"]),
    experts=st.sampled_from(EXPERTS),
    soft=st.booleans(),
    layered=st.booleans(),
    merge=st.builds(
        MergeSettings,
        rule=st.sampled_from(["argmax", "greedy"]),
        score_threshold=st.sampled_from([0.0, 0.3]),
        overlap_threshold=st.sampled_from([0.3, 0.8]),
        join_things=st.booleans(),
    ),
    k=st.sampled_from([1, 3, 8]),
    gamma=st.sampled_from([0.1, 0.6, 1.0]),
    rule=st.sampled_from(["minmax", "voting"]),
    prune=st.sampled_from([0, 2]),
)
def test_rescoring_is_a_full_run(
    original: Path,
    tmp_path_factory: pytest.TempPathFactory,
    change: str,
    experts: str,
    soft: bool,
    layered: bool,
    merge: MergeSettings,
    k: int,
    gamma: float,
    rule: Any,
    prune: int,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(original, folder / "mine.retdb")
    database = Database.open(folder / "mine.retdb")

    def index(mine: Database) -> NeighborIndex:
        return LayeredIndex([mine, Database.open(original)], "merged") if layered else mine

    models = models_of(experts, soft)
    before = Preset("test", retrieval=RetrievalSettings(k=4))
    kept = kept_run(folder / "out", RetrievalSegmenter(models, index(database), LISTED, before))
    later = index(database if change == "nothing" else changed(database, change))
    after = Preset(
        "test",
        retrieval=RetrievalSettings(k=k, rule=rule, prune_classes=prune),
        merge=merge,
        fusion=FusionSettings(gamma=gamma),
    )
    fresh = RetrievalSegmenter(models, later, LISTED, after).segment(PICTURES)
    assert_same(rescored_results(kept, later, LISTED, after), fresh)


@pytest.fixture
def database(original: Path, tmp_path: Path) -> Database:
    shutil.copytree(original, tmp_path / "mine.retdb")
    return Database.open(tmp_path / "mine.retdb")


PRESET = Preset("test", retrieval=RetrievalSettings(k=4), merge=MergeSettings("greedy"))


def stored_run(folder: Path, database: Database, experts: str = "retrieval", **options: Any) -> KeptRun:
    """A run that asked for everything that is stored."""
    segmenter = RetrievalSegmenter(models_of(experts, False), database, stored_vocabulary(database), PRESET)
    return kept_run(folder, segmenter, listed=False, **options)


@pytest.mark.parametrize("experts", ["retrieval", "text"])
def test_a_deleted_class_leaves_the_class_list(database: Database, tmp_path: Path, experts: str) -> None:
    """Kept rows of the text tower give the scores of any part of the old list."""
    kept = stored_run(tmp_path / "out", database, experts)
    later = changed(database, "delete")
    vocabulary = stored_vocabulary(later)
    fresh = RetrievalSegmenter(models_of(experts, False), later, vocabulary, PRESET).segment(PICTURES)
    assert_same(rescored_results(kept, later, vocabulary, PRESET), fresh)
    found = list(Rescorer(kept, pose(later, vocabulary, PRESET, kept.texts)).rescore())
    assert [item.changed for item in found] == [True, True, False, True]
    for item in found:
        assert {old for _, old, _ in item.moves} <= {"blue"}
        assert "blue" in item.before.labels.values() or not item.moves
        assert "blue" not in item.after.labels.values()


def test_without_a_change_no_map_is_decided(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = stored_run(tmp_path / "out", database)
    rescorer = Rescorer(kept, pose(database, stored_vocabulary(database), PRESET))
    monkeypatch.setattr("retclip.query.rescoring.decide", None)
    assert not any(found.changed or found.moves for found in rescorer.rescore())


def test_a_new_class_needs_the_text_tower_and_is_free_without_one(database: Database, tmp_path: Path) -> None:
    asked = Vocabulary.from_names("v", ["red", "lemon"])
    with pytest.raises(InputError, match="E341") as caught:
        Rescorer(stored_run(tmp_path / "text", database, "text"), pose(database, asked, PRESET))
    assert "lemon" in caught.value.why
    fresh = RetrievalSegmenter(models_of("retrieval", False), database, asked, PRESET).segment(PICTURES)
    free = stored_run(tmp_path / "free", database)
    assert_same(rescored_results(free, database, asked, PRESET), fresh)
    detected = replace(
        PRESET,
        proposals=ProposalSettings("gdino-sam"),
        detector=DetectorSettings("grounding_dino"),
        masker=MaskerSettings("sam"),
    )
    found = stored_run(tmp_path / "found", database, preset=detected)
    with pytest.raises(InputError, match="E341") as caught:
        Rescorer(found, pose(database, asked, PRESET))
    assert "gdino-sam" in caught.value.why


def test_classes_that_the_text_tower_never_read_are_named(database: Database, tmp_path: Path) -> None:
    segmenter = RetrievalSegmenter(models_of("text", False), database, LISTED, PRESET)
    kept = kept_run(tmp_path / "out", segmenter)
    assert Rescorer(kept, pose(database, LISTED, PRESET, kept.texts)).names_only == ()
    with database.write("relabel", "tests") as transaction:
        transaction.relabel("green", "scarlet")
        later = transaction.commit()
    assert Rescorer(kept, pose(later, LISTED, PRESET, kept.texts)).names_only == ("scarlet",)


def test_settings_of_networks_cannot_change() -> None:
    preset = Preset("test")
    refuse_other_networks(preset, replace(preset, fusion=FusionSettings(gamma=0.9), merge=MergeSettings("greedy")))
    with pytest.raises(InputError, match=r"E342 .*encoder, proposals"):
        refuse_other_networks(
            preset, replace(preset, encoder=replace(preset.encoder, short_side=99), proposals=ProposalSettings(grid=3))
        )


@pytest.mark.parametrize("name", ["run.json", "labels.json", "texts.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": {"b": 1}}', b"\xff" * 40])
def test_damaged_runs_are_named(database: Database, tmp_path: Path, name: str, content: bytes) -> None:
    stored_run(tmp_path, database, "text")
    (tmp_path / "kept" / name).write_bytes(content)
    with pytest.raises(InputError, match="E340"):
        KeptRun.open(tmp_path)


def test_a_folder_of_another_run_is_refused(database: Database, tmp_path: Path) -> None:
    stored_run(tmp_path, database)
    segmenter = RetrievalSegmenter(models_of("retrieval", False), database, LISTED, PRESET)
    with pytest.raises(InputError, match="E165") as caught:
        kept_run(tmp_path, segmenter)
    assert "vocabulary" in caught.value.why
    with pytest.raises(InputError, match="E340"):
        KeptRun.open(tmp_path / "nowhere")
