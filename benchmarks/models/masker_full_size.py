"""SAM and SAM 2 at their real sizes with random weights: do they load, answer, and agree with the authors' predictor?

    python benchmarks/models/masker_full_size.py --models vit_b sam2.1-hiera-tiny

A SAM is written twice with the same weights, as the authors' `.pth` and as a folder of transformers, loaded by both of
our adapters and asked about the same boxes; beside them runs segment-anything's SamPredictor. Logits are compared at
the network's resolution and, through our frame, at that of the picture. The two largest see one picture and only our
adapters. Random weights decide what is masked, not how long it takes. Rows of other models in the JSON file are kept.
"""

import argparse
import io
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from sam_names import released_names
from segment_anything import SamPredictor, sam_model_registry
from torch import Tensor
from transformers import (
    PreTrainedModel,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2Model,
    Sam2VisionConfig,
    SamConfig,
    SamModel,
    SamVisionConfig,
)

from retclip.adapters.promptable import PromptedMasker
from retclip.adapters.segment_anything import load_segment_anything
from retclip.adapters.transformers_sam import load_transformers_sam
from retclip.core.images import decode_picture
from retclip.ports.masking import BoxMasks
from retclip.presets import MaskerSettings

# hidden size, layers, heads, layers with global attention (segment-anything, build_sam.py)
SAM_SIZES = {
    "vit_b": (768, 12, 12, [2, 5, 8, 11]),
    "vit_l": (1024, 24, 16, [5, 11, 17, 23]),
    "vit_h": (1280, 32, 16, [7, 15, 23, 31]),
}
# hidden size, heads, blocks per stage, global attention, windows, side of the background positions (sam2.1's own)
SAM2_SIZES = {
    "sam2.1-hiera-tiny": (96, 1, [1, 2, 7, 2], [5, 7, 9], [8, 4, 14, 7], 7),
    "sam2.1-hiera-small": (96, 1, [1, 2, 11, 2], [7, 10, 13], [8, 4, 14, 7], 7),
    "sam2.1-hiera-base-plus": (112, 2, [2, 3, 16, 3], [12, 16, 20], [8, 4, 14, 7], 14),
    "sam2.1-hiera-large": (144, 2, [2, 6, 36, 4], [23, 33, 43], [8, 4, 16, 8], 7),
}
# Mode, width, height. Every picture costs a network the same.
PICTURES = [("L", 64, 64), ("RGBA", 500, 333), ("RGB", 4000, 3000)]
LARGEST = ("vit_l", "vit_h")
PROCESSOR = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CPU = torch.device("cpu")


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[*SAM_SIZES, *SAM2_SIZES], choices=[*SAM_SIZES, *SAM2_SIZES])
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def pictures(model: str) -> Iterator[tuple[str, np.ndarray, Tensor]]:
    """Name, RGB pixels through the package's decoder, and boxes: whole, centre, at the border, one pixel."""
    for mode, width, height in PICTURES[:1] if model in LARGEST else PICTURES:
        noise = np.random.default_rng(width).integers(0, 256, (height // 8, width // 8, len(mode)), dtype=np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(noise.squeeze(), mode).resize((width, height)).save(encoded, "PNG")
        boxes = torch.tensor([[0, 0, 1, 1], [0.3, 0.3, 0.7, 0.7], [0.8, 0.5, 1, 1], [0.5, 0.5, 0.5, 0.5]])
        boxes = boxes * torch.tensor([width, height]).repeat(2)
        boxes[3, 2:] += 1
        yield f"{mode} {width} x {height}", decode_picture(encoded.getvalue(), "noise").pixels, boxes


def random_sam(model: str) -> dict[str, Tensor]:
    """A state dict in the authors' names; positions, which start at zero, count for something too."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = sam_model_registry[model]().state_dict()
    return {key: 0.02 * torch.randn_like(value) if "pos" in key else value for key, value in tensors.items()}


def write_sam_folder(folder: Path, model: str, tensors: dict[str, Tensor], decoder_eps: float) -> Path:
    """The same weights as a folder of transformers; `decoder_eps` belongs to the norms of the mask decoder."""
    hidden, layers, heads, attending = SAM_SIZES[model]
    vision = SamVisionConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, global_attn_indexes=attending
    )
    config = SamConfig(vision_config=vision, mask_decoder_config={"layer_norm_eps": decoder_eps})
    with torch.device("meta"):
        names = released_names({key: key for key in SamModel(config).state_dict()})
    save_file({names[key]: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors")
    return with_descriptions(folder, config)


def write_sam2_folder(folder: Path, model: str) -> Path:
    """A random SAM 2.1 of the released size."""
    hidden, heads, blocks, attending, windows, background = SAM2_SIZES[model]
    widths = [hidden * 2**stage for stage in range(4)]
    backbone = Sam2HieraDetConfig(
        hidden_size=hidden,
        num_attention_heads=heads,
        blocks_per_stage=blocks,
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[heads * 2**stage for stage in range(4)],
        window_size_per_stage=windows,
        global_attention_blocks=attending,
        window_positional_embedding_background_size=[background, background],
    )
    config = Sam2Config(vision_config=Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1]))
    torch.manual_seed(0)
    network: PreTrainedModel = Sam2Model(config)
    save_file(network.state_dict(), folder / "model.safetensors")
    return with_descriptions(folder, config)


def with_descriptions(folder: Path, config: Any) -> Path:
    """The folder with its two small files."""
    config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def load(settings: MaskerSettings, path: Path) -> tuple[PromptedMasker, float]:
    """A masker and the seconds it took to load."""
    start = time.perf_counter()
    chosen = load_segment_anything if settings.library == "segment_anything" else load_transformers_sam
    masker = chosen(settings, path, CPU)
    return masker, time.perf_counter() - start


def ask(masker: PromptedMasker, loading: float, pixels: np.ndarray, boxes: Tensor) -> tuple[BoxMasks, dict[str, Any]]:
    """Masks, and what there is to say of them."""
    start = time.perf_counter()
    [found] = masker.masks([pixels], [boxes])
    row = {
        "masker": masker.name,
        "load_seconds": round(loading, 2),
        "seconds": round(time.perf_counter() - start, 2),
        "logits": list(found.masks.masks.shape),
        "region": list(found.masks.region(0).shape),
        "finite": bool(found.masks.masks.isfinite().all() and found.quality.isfinite().all()),
        "logit_std": found.masks.masks.std().item(),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    return found, row


def compare_sam(model: str, folder: Path) -> Iterator[dict[str, Any]]:
    """One SAM in three forms: original, transformers with the original's norms, transformers with its default ones."""
    tensors = random_sam(model)
    torch.save(tensors, folder / "sam.pth")
    ours, loading = load(MaskerSettings("segment_anything", model), folder / "sam.pth")
    others = {}
    forms = [("transformers", 1e-5), ("transformers, norms of its default", 1e-6)]
    for form, eps in forms[: 1 if model in LARGEST else 2]:
        write_sam_folder(folder, model, tensors, eps)
        others[form] = load(MaskerSettings("sam", f"facebook/sam-{model}"), folder)
    for name, pixels, boxes in pictures(model):
        found, row = ask(ours, loading, pixels, boxes)
        yield {"model": model, "library": "segment_anything", "picture": name, **row}
        if model not in LARGEST:
            peer = predictor_row(ours, found, pixels, boxes)
            yield {"model": model, "library": "SamPredictor", "picture": name, **peer}
        for form, (other, other_loading) in others.items():
            theirs, row = ask(other, other_loading, pixels, boxes)
            yield {"model": model, "library": form, "picture": name, **row, **differences(found, theirs)}


def predictor_row(masker: PromptedMasker, found: BoxMasks, pixels: np.ndarray, boxes: Tensor) -> dict[str, Any]:
    """The authors' predictor on the same network: seconds, and how far our masks are from its own."""
    predictor = SamPredictor(masker._network._sam)  # type: ignore[attr-defined]
    start = time.perf_counter()
    predictor.set_image(pixels)
    places = predictor.transform.apply_boxes_torch(boxes, pixels.shape[:2])
    full, quality, low = predictor.predict_torch(None, None, places, multimask_output=False, return_logits=True)
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 2),
        "logits_difference": (low[:, 0] - found.masks.masks).abs().max().item(),
        "quality_difference": (quality[:, 0] - found.quality).abs().max().item(),
        "full_size_difference": (full[:, 0].sigmoid() - found.masks.band(0, pixels.shape[0])).abs().max().item(),
    }


def differences(found: BoxMasks, theirs: BoxMasks) -> dict[str, float]:
    """Largest distances of logits and of predicted IoU."""
    return {
        "logits_difference": (found.masks.masks - theirs.masks.masks).abs().max().item(),
        "quality_difference": (found.quality - theirs.quality).abs().max().item(),
    }


def sam2_rows(model: str, folder: Path) -> Iterator[dict[str, Any]]:
    """One SAM 2.1."""
    masker, loading = load(MaskerSettings("sam2", f"facebook/{model}"), write_sam2_folder(folder, model))
    for name, pixels, boxes in pictures(model):
        yield {"model": model, "library": "transformers", "picture": name, **ask(masker, loading, pixels, boxes)[1]}


def main() -> None:
    """Run the models one after the other; every finished row is printed at once."""
    options = parse()
    known = json.loads(options.json.read_text())["rows"] if options.json.exists() else []
    rows = [row for row in known if row["model"] not in options.models]
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            for row in (compare_sam if model in SAM_SIZES else sam2_rows)(model, Path(folder)):
                rows.append(row)
                print(json.dumps(row), flush=True)
                options.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
