"""End-to-end cases of the official FC-CLIP numbers: network, inputs, and one pass over them."""

import open_clip
import torch

from retclip.core.vocabulary import Category, Vocabulary
from retclip.segmenters.fcclip.ensemble import EnsembleWeights
from retclip.segmenters.fcclip.preprocessing import normalised_batch
from retclip.segmenters.fcclip.text import encode_names, split_names
from retclip.segmenters.fcclip.variants import ConvNeXtTower, HeadSizes, ResNetTower, TextTower, Variant, build_fcclip

FEATURES = {"atol": 1e-5, "rtol": 0}
LOGITS = {"atol": 2e-4, "rtol": 0}
SCORES = {"atol": 1e-4, "rtol": 0}
PIXELS = 5  # panoptic pixels that may differ


def variant_of(meta):
    """The variant that a golden's meta.json describes."""
    vision, text = meta["clip_model"]["vision"], meta["clip_model"]["text"]
    if meta["arch"] == "cnx":
        image = ConvNeXtTower(tuple(vision["depths"]), tuple(vision["dims"]))
    else:
        image = ResNetTower(tuple(vision["layers"]), vision["width"], vision["image_size"], vision["attnpool_heads"])
    tower = TextTower(
        text["width"],
        text["heads"],
        text["layers"],
        meta["clip_model"]["text_activation"].startswith("quick"),
        text["context_length"],
        text["vocab_size"],
    )
    head = HeadSizes(
        meta["hidden_dim"],
        meta["num_queries"],
        meta["nheads"],
        meta["encoder_points"],
        meta["encoder_layers"],
        meta["encoder_ffn"],
        meta["decoder_layers"],
        meta["decoder_ffn"],
        len(meta["train_classes"]),
    )
    weights = EnsembleWeights(meta["alpha"], meta["beta"], meta["ensemble_on_valid_mask"])
    return Variant(meta["arch"], image, tower, meta["clip_model"]["embed_dim"], weights, head)


def vocabulary_of(test_classes):
    """[(name line, is thing)] -> vocabulary with ids in column order."""
    return Vocabulary(
        "golden",
        tuple(Category(i, split_names(line), bool(thing)) for i, (line, thing) in enumerate(test_classes)),
    )


def names_of(vocabulary):
    return [category.names for category in vocabulary]


def training_names(lines):
    return [name for line in lines for name in split_names(line)]


def load_case(goldens, folder):
    """Meta, expected arrays, network with the golden's weights, and its pass over all images in one batch."""
    meta, expected = goldens.json(f"{folder}/meta.json"), goldens.arrays(f"{folder}/outputs.safetensors")
    inputs = goldens.arrays(f"{folder}/inputs.safetensors")
    model = load_network(goldens, folder)
    vocabulary = vocabulary_of([(entry["name"], entry["isthing"]) for entry in meta["test_classes"]])
    images = [inputs[f"image.{i}"] for i in range(len(inputs))]
    batch = normalised_batch(images, torch.device("cpu"))
    with torch.no_grad():
        output = model(batch, every_layer=True)
        text = encode_names(
            names_of(vocabulary), model.backbone.encode_text, open_clip.get_tokenizer("RN50"), torch.device("cpu")
        )
    return {
        "meta": meta,
        "expected": expected,
        "model": model,
        "vocabulary": vocabulary,
        "images": images,
        "batch": batch,
        "output": output,
        "text": text,
        "variant": variant_of(meta),
        "training_names": training_names(meta["train_classes"]),
    }


def load_network(goldens, folder):
    meta, weights = goldens.json(f"{folder}/meta.json"), goldens.arrays(f"{folder}/weights.safetensors")
    model = build_fcclip(variant_of(meta))
    tokens = torch.zeros_like(model.backbone.clip_model.token_embedding.weight)
    tokens[weights.pop("token_embedding.ids")] = weights.pop("token_embedding.rows")
    model.load_state_dict({**weights, "backbone.clip_model.token_embedding.weight": tokens}, strict=True)
    return model
