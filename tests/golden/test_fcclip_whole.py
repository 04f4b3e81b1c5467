"""FC-CLIP from image bytes to maps against the official code's numbers."""

import hashlib

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from retclip.adapters.open_clip.backbones import Pyramid
from retclip.adapters.open_clip.pooling import mask_pool, resize_masks
from retclip.adapters.open_clip.prompts import average_prompts, prompts
from retclip.core.masks import Frame
from retclip.core.vocabulary import seen_classes
from retclip.segmenters.fcclip.ensemble import EnsembleWeights, geometric_ensemble
from retclip.segmenters.fcclip.inference import PanopticThresholds, instances, panoptic_map, semantic_scores
from retclip.segmenters.fcclip.preprocessing import (
    Resolution,
    padded_size,
    resize_picture,
    resized_size,
)
from retclip.segmenters.fcclip.text import split_names
from retclip.segmenters.layers.classification import TextRows, class_logits
from tests.golden.cases import (
    FEATURES,
    LOGITS,
    PIXELS,
    SCORES,
    load_case,
    names_of,
    training_names,
    variant_of,
    vocabulary_of,
)

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def case(end_to_end_folder, goldens):
    return load_case(goldens, end_to_end_folder)


def compare(expected, name, actual, tolerance):
    """Compare where the set stores the array; a compact set stores the last steps only."""
    if name in expected:
        assert_close(actual.detach(), expected[name], **tolerance)


def test_images_and_taps(case):
    compare(case["expected"], "images_padded", case["batch"], FEATURES)
    with torch.no_grad():
        taps = case["model"].backbone.pyramid(case["batch"])
        pixels = case["model"].sem_seg_head.pixel_decoder(taps)
    for name, tap in zip(Pyramid._fields, taps, strict=True):
        compare(case["expected"], f"feat.{name}", tap, FEATURES)
    compare(case["expected"], "feat.clip_vis_dense", case["output"].dense, FEATURES)
    compare(case["expected"], "mask_features", pixels.mask_features, FEATURES)
    for level, memory in enumerate(pixels.memories):
        compare(case["expected"], f"multi_scale_features.{level}", memory, FEATURES)


def test_text_rows(case):
    model, expected = case["model"], case["expected"]
    texts = prompts(name for names in names_of(case["vocabulary"]) for name in names)
    tokens = open_clip.get_tokenizer("RN50")(texts)
    if "text_tokens" in expected:
        assert torch.equal(tokens, expected["text_tokens"])
    raw = model.backbone.encode_text(tokens)
    compare(expected, "text_features_raw", raw, FEATURES)
    assert_close(average_prompts(raw), expected["text_classifier"], **FEATURES)
    assert list(case["text"].names_per_class) == case["meta"]["test_num_templates"]
    assert_close(case["text"].rows, expected["text_classifier"], **FEATURES)
    with_void = case["text"].with_void(model.void_embedding.weight)
    compare(expected, "text_classifier_with_void", with_void.rows, FEATURES)


def test_every_prediction(case):
    model, expected, predictions = case["model"], case["expected"], case["output"].predictions
    for layer, prediction in enumerate(predictions[:-1]):
        compare(expected, f"aux.{layer}.pred_masks", prediction.mask_logits, LOGITS)
        logits = model.in_vocabulary_logits(prediction.class_vectors, case["text"])
        compare(expected, f"aux.{layer}.pred_logits", logits, LOGITS)
    assert_close(predictions[-1].mask_logits, expected["pred_masks"], **LOGITS)
    logits = model.in_vocabulary_logits(predictions[-1].class_vectors, case["text"])
    assert_close(logits.detach(), expected["pred_logits"], **LOGITS)


def test_out_of_vocabulary(case):
    model, expected = case["model"], case["expected"]
    dense, masks = case["output"].dense, case["output"].predictions[-1].mask_logits
    compare(expected, "mask_for_pooling", resize_masks(masks, tuple(dense.shape[2:])), LOGITS)
    compare(expected, "clip_pooled_before_head", mask_pool(dense, masks), FEATURES)
    embeddings, valid = model.embed(dense, masks)
    # An empty mask's attention is implementation defined; its CLIP score does not enter the result.
    rows = valid if model_is_resnet(case) else torch.ones_like(valid)
    for name, actual, tolerance in (
        ("clip_pooled_embedding", embeddings, FEATURES),
        ("out_vocab_logits_with_void", model.out_of_vocabulary_logits(embeddings, case["text"]), LOGITS),
    ):
        if name in expected:
            reference = expected[name][..., : actual.shape[-1]]
            assert_close(actual[rows].detach(), reference[rows], **tolerance)


def model_is_resnet(case):
    return case["meta"]["arch"] == "rn"


def log_probabilities(case):
    model, final = case["model"], case["output"].predictions[-1]
    embeddings, valid = model.embed(case["output"].dense, final.mask_logits)
    seen = seen_classes(case["vocabulary"], training_names(case["meta"]["train_classes"]))
    if "category_overlapping_mask" in case["expected"]:
        assert seen == case["expected"]["category_overlapping_mask"].bool().tolist()
    with torch.no_grad():
        return geometric_ensemble(
            model.in_vocabulary_logits(final.class_vectors, case["text"]),
            model.out_of_vocabulary_logits(embeddings, case["text"]),
            torch.tensor(seen),
            valid,
            variant_of(case["meta"]).ensemble,
        )


def test_class_probabilities(case):
    for image, log_probability in enumerate(log_probabilities(case)):
        assert_close(log_probability.softmax(-1), case["expected"][f"mask_cls.{image}"].softmax(-1), **FEATURES)


def test_maps_and_instances(case):
    meta, expected, vocabulary = case["meta"], case["expected"], case["vocabulary"]
    probabilities = log_probabilities(case).softmax(-1)
    masks = case["output"].predictions[-1].mask_logits
    sizes = [tuple(image.shape[1:]) for image in case["images"]]
    for image, size in enumerate(sizes):
        frame = Frame(padded_size(sizes), size, tuple(meta["output_sizes"][image]))
        given = (masks[image], probabilities[image], frame)
        compare(expected, f"sem_seg.{image}", semantic_scores(*given), SCORES)
        for name, array in (("official_thresholds", "panoptic_seg"), ("relaxed_thresholds", "panoptic_seg_relaxed")):
            thresholds = PanopticThresholds(**{key: meta[name][key] for key in ("object_mask", "overlap")})
            result = panoptic_map(*given, vocabulary, thresholds)
            assert_same_map(result, expected[f"{array}.{image}"], meta["segments_info"][name][str(image)])
        found = instances(*given, vocabulary, meta["test_topk_per_image"])
        assert_same_instances(
            found, {key: expected.get(f"instances.{image}.{key}") for key in ("scores", "classes", "masks")}
        )


def assert_same_map(result, ids, segments):
    assert (torch.from_numpy(result.ids) != ids).sum() <= PIXELS
    described = [{"id": s.id, "isthing": s.is_thing, "category_id": s.category_id} for s in result.segments]
    assert described == segments


def assert_same_instances(found, expected):
    """Order is unspecified: sort both by score; the masks of equal scores may swap, so compare them one to one."""
    if expected["scores"] is None:
        return
    assert len(found.scores) == len(expected["scores"])
    ours, theirs = found.scores.sort(descending=True), expected["scores"].sort(descending=True)
    assert_close(ours.values, theirs.values, **SCORES)
    if expected["masks"] is None:
        return
    unmatched = list(range(len(expected["scores"])))
    for row in range(len(found.scores)):
        match = next(
            (
                j
                for j in unmatched
                if expected["classes"][j] == found.columns[row]
                and abs(expected["scores"][j] - found.scores[row]) <= 1e-4
                and (expected["masks"][j].bool() != found.masks[row]).sum() <= PIXELS
            ),
            None,
        )
        assert match is not None, f"instance {row} has no counterpart"
        unmatched.remove(match)


def test_ensemble_on_arbitrary_tensors(goldens):
    arrays, settings = goldens.arrays("ensemble.safetensors"), goldens.json("ensemble.json")
    for name, setting in settings.items():
        case = {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}
        pooled = mask_pool(case["clip_vis_dense"], case["pred_masks"])
        assert_close(pooled, case["pooled_clip_feature"], **FEATURES)
        text = TextRows(case["text_classifier"], tuple(case["num_templates"].tolist()))
        scale = torch.tensor(setting["clip_logit_scale_param"])
        reference = case["out_vocab_logits_with_void"]
        out = class_logits(pooled, text.with_void(case["void_embedding"]), scale)
        assert_close(out, reference, **LOGITS)
        valid = (resize_masks(case["pred_masks"], tuple(case["clip_vis_dense"].shape[2:])) > 0).flatten(2).any(-1)
        weights = EnsembleWeights(setting["alpha"], setting["beta"], setting["ensemble_on_valid_mask"])
        mixed = geometric_ensemble(
            case["pred_logits"],
            class_logits(pooled, text, scale),
            case["category_overlapping_mask"].bool(),
            valid,
            weights,
        )
        assert_close(mixed.softmax(-1), case["mask_cls"].softmax(-1), **FEATURES)


def test_inference_functions(goldens):
    arrays, settings = goldens.arrays("inference_functions.safetensors"), goldens.json("inference_functions.json")
    things = set(settings["thing_contiguous_ids"])
    vocabulary = vocabulary_of([(f"class {i}", i in things) for i in range(settings["num_classes"])])
    for name in sorted({key.split(".")[0] for key in arrays}):
        setting = settings[name]
        case = {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}
        masks, probabilities = case["mask_pred"], case["mask_cls"].softmax(-1)
        size = tuple(masks.shape[1:])
        given = (masks, probabilities, Frame(size, size, size))
        scores = semantic_scores(*given)
        assert_close(scores[:, ::7, ::7], case["semseg_slice"], **SCORES)
        assert (scores.argmax(0) != case["semseg_argmax"]).sum() <= PIXELS
        thresholds = PanopticThresholds(setting["object_mask_threshold"], setting["overlap_threshold"])
        assert_same_map(panoptic_map(*given, vocabulary, thresholds), case["panoptic_seg"], setting["segments_info"])
        found = instances(*given, vocabulary, setting["topk"])
        assert_same_instances(found, {key: case[f"inst.{key}"] for key in ("scores", "classes", "masks")})


def test_names_and_prompts(goldens):
    small = goldens.json("text_side.json")["small"]
    classes = [split_names(line) for line in small["test_classes"]]
    assert prompts(name for names in classes for name in names) == small["templated_names"]
    assert [len(names) for names in classes] == small["num_templates"]
    vocabulary = vocabulary_of([(line, True) for line in small["test_classes"]])
    assert seen_classes(vocabulary, training_names(small["train_classes"])) == [
        bool(flag) for flag in small["category_overlapping_mask"]
    ]


def test_tokenizer(goldens):
    tokenizer = open_clip.get_tokenizer("RN50")
    for entry in goldens.json("text_side.json")["tokenizer"]:
        assert tokenizer([entry["text"]])[0].tolist() == entry["tokens"]


def test_sizes_and_pillow_resize(goldens):
    settings = goldens.json("resize.json")
    images = goldens.arrays("resize.safetensors")
    for entry in settings["shortest_edge"]:
        for key, size in entry.items():
            if key.startswith("out_"):
                resolution = Resolution(*(int(part) for part in key.split("_")[1:]))
                assert list(resized_size(entry["h"], entry["w"], resolution)) == size
        if "array_index" in entry:
            size = resized_size(entry["h"], entry["w"], Resolution(entry["short"], entry["max"]))
            assert list(size) == entry["out"]
            resized = resize_picture(images[f"in.{entry['array_index']}"].numpy(), size)
            reference = images[f"out.{entry['array_index']}"].numpy()
            tolerance = 0 if Image.__version__ == settings["pillow"] else 1
            assert np.abs(resized.astype(int) - reference).max() <= tolerance


@pytest.mark.photos
@pytest.mark.parametrize("name", ["ade20k_150", "coco_133"])
def test_real_vocabularies(goldens, class_name_files, name):
    expected = goldens.json("text_side.json")[name]
    coco = class_name_files("coco_panoptic")
    lines = {"ade20k_150": class_name_files("ade20k_150"), "coco_133": coco}[name]
    classes = [split_names(line) for line in lines]
    texts = prompts(name for names in classes for name in names)
    assert len(classes) == expected["num_classes"]
    assert [len(names) for names in classes] == expected["num_templates"]
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest() == expected["sha256_of_newline_joined_prompts"]
    seen = seen_classes(vocabulary_of([(line, True) for line in lines]), training_names(coco))
    assert [i for i, flag in enumerate(seen) if flag] == expected["overlapping_indices"]
