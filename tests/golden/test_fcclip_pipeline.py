"""The query pipeline with FC-CLIP's thresholds and no retrieval gives the official maps."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from retclip.core.images import Picture
from retclip.core.masks import Frame
from retclip.core.rle import encode_mask
from retclip.core.segments import StoredSegment
from retclip.presets import FusionSettings, MergeSettings, Preset
from retclip.query.pipeline import Models, RetrievalSegmenter, TrainedHead
from retclip.segmenters.fcclip.encoder import FCCLIPEncoder
from retclip.segmenters.fcclip.preprocessing import Resolution, padded_size
from retclip.segmenters.fcclip.proposer import proposals_of
from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter, ImagePass, SegmenterSettings
from retclip.shards import Database
from tests.absence import absent
from tests.golden.cases import PIXELS, SCORES, load_case

pytestmark = pytest.mark.golden


class RecordedPass:
    """The golden's own batch as a proposer: its pictures are neither resized nor padded one by one."""

    def __init__(self, case):
        self.case = case

    def propose(self, pictures, vocabulary):
        model, output = self.case["model"], self.case["output"]
        final = output.predictions[-1]
        sizes = [tuple(image.shape[1:]) for image in self.case["images"]]
        with torch.no_grad():
            embeddings, valid = model.embed(output.dense, final.mask_logits)
            logits = model.in_vocabulary_logits(final.class_vectors, self.case["text"])
        rows = zip(final.mask_logits, logits, embeddings, valid, output.dense, sizes, pictures, strict=True)
        return [
            proposals_of(ImagePass(*parts, Frame(padded_size(sizes), size, picture.size)))
            for *parts, size, picture in rows
        ]


@pytest.fixture(scope="module")
def case(end_to_end_folder, goldens):
    return load_case(goldens, end_to_end_folder)


@pytest.fixture
def pipeline(case, tmp_path):
    """The segmenter that a preset's settings make of the golden's network and a database of one foreign segment."""
    meta, variant = case["meta"], case["variant"]
    runner = FCCLIPSegmenter(case["model"], SegmenterSettings(frozenset(), resolution=Resolution(32, 64)))
    encoder = FCCLIPEncoder(runner, "golden", variant.text)
    database = Database.create(tmp_path / "one.retdb", encoder.space, {"name": "golden"}, "none")
    with database.write("build", "test") as transaction:
        transaction.add([stored(case["vocabulary"][0].name)], np.eye(1, encoder.space.dim, dtype=np.float32))
        transaction.commit()
    names = frozenset(case["training_names"])
    models = Models(encoder, RecordedPass(case), encoder, TrainedHead(names, hashlib.sha256().hexdigest()))

    def make(thresholds):
        weights = variant.ensemble
        preset = Preset(
            "golden",
            fusion=FusionSettings(
                "geometric", weights.alpha, weights.beta, 0.0, only_valid_masks=weights.only_valid_masks
            ),
            merge=MergeSettings(
                score_threshold=thresholds["object_mask"],
                overlap_threshold=thresholds["overlap"],
                max_instances=meta["test_topk_per_image"],
            ),
        )
        return RetrievalSegmenter(models, Database.open(database.path), case["vocabulary"], preset)

    return make


def stored(label):
    mask = np.ones((4, 4), bool)
    return StoredSegment(
        segment_id=1,
        label=label,
        label_raw=label,
        label_source="human",
        label_confidence=1.0,
        source="test",
        split="",
        image_id="1",
        image_uri="1.png",
        image_sha256="1" * 64,
        image_width=4,
        image_height=4,
        box=(0.0, 0.0, 4.0, 4.0),
        area=16,
        mask_counts=encode_mask(mask),
        box_source="test",
        mask_source="test",
        detector_score=float("nan"),
        mask_iou=float("nan"),
        prompt_chunk="",
        is_crowd=False,
        is_thing=True,
        license="",
        attribution="",
    )


def pictures_of(case):
    """Pictures of the sizes that results have; their pixels are not looked at."""
    sizes = case["meta"]["output_sizes"]
    return [Picture(np.zeros((*size, 3), np.uint8), "0" * 64, f"{i}.png") for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("name", "array"), [("official_thresholds", "panoptic_seg"), ("relaxed_thresholds", "panoptic_seg_relaxed")]
)
def test_panoptic_maps_are_the_official_ones(case, pipeline, name, array):
    results = pipeline(case["meta"][name]).segment(pictures_of(case))
    for image, result in enumerate(results):
        assert np.array_equal(result.panoptic.ids, case["expected"][f"{array}.{image}"].numpy())
        described = [
            {"id": s.id, "isthing": s.is_thing, "category_id": s.category_id} for s in result.panoptic.segments
        ]
        assert described == case["meta"]["segments_info"][name][str(image)]


def test_seen_classes_are_the_official_ones(case, pipeline):
    expected = case["expected"]["category_overlapping_mask"].bool().tolist()
    assert pipeline(case["meta"]["official_thresholds"]).seen == expected


def test_semantic_maps_are_the_official_ones(case, pipeline):
    results = pipeline(case["meta"]["official_thresholds"]).segment(pictures_of(case))
    for image, result in enumerate(results):
        if (scores := case["expected"].get(f"sem_seg.{image}")) is None:
            absent("this set holds no semantic scores; set RETCLIP_GOLDENS to the full one")
        best = scores.topk(2, dim=0)
        # Where the two best classes lie within the tolerance of the scores, either may win.
        clear = (best.values[0] - best.values[1] > 2 * SCORES["atol"]).numpy()
        assert clear.mean() > 0.5
        assert np.array_equal(result.semantic[clear], best.indices[0].numpy()[clear])


def test_instances_are_the_official_ones(case, pipeline):
    expected, vocabulary = case["expected"], case["vocabulary"]
    results = pipeline(case["meta"]["official_thresholds"]).segment(pictures_of(case))
    columns = {category.id: column for column, category in enumerate(vocabulary)}
    for image, result in enumerate(results):
        scores = expected[f"instances.{image}.scores"]
        positive = scores > 0
        order = scores[positive].argsort(descending=True)
        assert_close(torch.from_numpy(result.instances.score), scores[positive][order], **SCORES)
        classes, masks = (expected[f"instances.{image}.{key}"][positive][order] for key in ("classes", "masks"))
        left = list(range(len(order)))
        for found in zip(result.instances.category_id, result.instances.masks, strict=True):
            match = next(
                j for j in left if classes[j] == columns[found[0]] and (masks[j].numpy() != found[1]).sum() <= PIXELS
            )
            left.remove(match)


def test_retrieval_changes_the_answer(case, pipeline):
    """With gamma the one stored class pulls regions to itself: the maps above are no accident of an idle database."""
    idle = pipeline(case["meta"]["relaxed_thresholds"])
    eager = pipeline(case["meta"]["relaxed_thresholds"])
    fusion = FusionSettings("arithmetic", 1.0, 1.0, 1.0)
    eager.question = replace(eager.question, preset=replace(eager.question.preset, fusion=fusion))
    (one, *_), (two, *_) = idle.segment(pictures_of(case)), eager.segment(pictures_of(case))
    assert {s.category_id for s in two.panoptic.segments} == {case["vocabulary"][0].id}
    assert not np.array_equal(one.panoptic.ids, two.panoptic.ids)
