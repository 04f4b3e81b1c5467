"""CLIPs at their real sizes with random weights: dimensions, seconds, and how far parity holds in single precision.

    python benchmarks/models/clip_full_size.py --short-side 224 --long-side 640

The figures beside this file are from two cores that other work shared: their seconds are upper bounds.

Weights are random: they decide what is recognised, not how long it takes nor whether two ways to compute one number
agree. Each network is written to a file and loaded as a release would be, one at a time. Checks, as max |difference|:

    own      ConvNeXt: the key of the whole picture against CLIP's own embedding. ResNet: the same after the library's
             own attention lost its mean token. ViT: the class token, finished by the last block, against CLIP's own
             embedding. All at the native size.
    values   ViT: dense features against the block's attention on sequences of one token.
    text     text rows on shortened token lists against open_clip's `encode_text`.
    alone    features of a picture in a batch of two against the picture alone.
"""

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from retclip.adapters.open_clip.backbones import ClipBackbone, ConvNeXtClip, ResNetClip
from retclip.adapters.open_clip.encoder import OpenClipEncoder
from retclip.adapters.open_clip.loading import backbone_of, load_open_clip
from retclip.adapters.open_clip.prompts import average_prompts, prompts
from retclip.adapters.open_clip.vision_transformer import TransformerClip
from retclip.ports.encoders import embed_regions
from retclip.presets import EncoderSettings

MODELS = ("ViT-B-16", "ViT-L-14", "ViT-L-14-336", "RN50x64", "convnext_large_d_320")
SIZES = ((64, 64), (480, 640), (1, 4000), (3000, 4000))
REGIONS = 100


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--short-side", type=int, default=448)
    parser.add_argument("--long-side", type=int, default=1120)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def random_release(model: str, folder: Path) -> Path:
    """Weights of a network in which every block has a say, as a file."""
    torch.manual_seed(0)
    clip = open_clip.create_model(model, pretrained=None)
    with torch.no_grad():
        for name, value in clip.named_parameters():
            if name.endswith(("gamma", "bn3.weight")):
                value.fill_(0.2)
    path = folder / f"{model}.safetensors"
    save_file(clip.state_dict(), path)
    return path


def own_embedding(backbone: ClipBackbone, images: Tensor) -> tuple[Tensor, Tensor]:
    """What our parts and the library's give for whole pictures, where they must agree."""
    clip = backbone.clip_model
    if isinstance(backbone, TransformerClip):
        pooled, _ = clip.visual._pool(clip.visual.transformer.resblocks[-1](backbone.tokens(images)))
        return pooled @ clip.visual.proj, clip.encode_image(images)
    dense = backbone(images)
    ours = backbone.embed(dense, torch.ones_like(dense[:, :1]))[:, 0]
    if isinstance(backbone, ConvNeXtClip):
        return ours, clip.encode_image(images)
    assert isinstance(backbone, ResNetClip)
    return ours, attention_without_mean(clip.visual.attnpool, dense)


def attention_without_mean(pool: Any, dense: Tensor) -> Tensor:
    """CLIP's own attention pooling of (B, C, h, w), the mean token asked but not answered from: (B, D)."""
    cells = dense.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([cells.mean(0, keepdim=True), cells]) + pool.positional_embedding[:, None]
    biases = torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias])
    attended, _ = F.multi_head_attention_forward(
        tokens[:1], tokens[1:], tokens[1:], tokens.shape[-1], pool.num_heads, None, biases, None, None, False, 0.0,
        pool.c_proj.weight, pool.c_proj.bias, training=False, need_weights=False, use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
    )  # fmt: skip
    return attended[0]


def values_by_single_tokens(backbone: TransformerClip, images: Tensor) -> Tensor:
    """Dense features by the block's attention module on one token at a time, (B, D, h, w)."""
    visual = backbone.clip_model.visual
    block, tokens = visual.transformer.resblocks[-1], backbone.tokens(images)[:, 1:]
    single = block.ln_1(tokens).flatten(0, 1)[:, None]
    values = block.attn(single, single, single, need_weights=False)[0].view_as(tokens)
    features: Tensor = visual.ln_post(values) @ visual.proj
    return features.transpose(1, 2).reshape(len(images), -1, *(side // backbone.stride for side in images.shape[2:]))


@torch.inference_mode()
def parity(backbone: ClipBackbone, device: torch.device) -> dict[str, float]:
    """Max |difference| of every check that the tower has."""
    side = backbone.clip_model.visual.image_size
    side = side if isinstance(side, int) else side[0]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    found = {"own": difference(*own_embedding(backbone, images))}
    if isinstance(backbone, TransformerClip):
        found["values"] = difference(backbone(images), values_by_single_tokens(backbone, images))
    tokens = open_clip.SimpleTokenizer()(prompts(["cat", "a very long name of a thing"])).to(device)
    rows = (average_prompts(encode(tokens)) for encode in (backbone.encode_text, backbone.clip_model.encode_text))
    found["text"] = difference(*rows)
    found["alone"] = difference(backbone(images)[:1], backbone(images[:1]))
    return found


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Max |ours - theirs|."""
    return float((ours - theirs).abs().max())


def timed(encoder: OpenClipEncoder, size: tuple[int, int]) -> dict[str, Any]:
    """One picture of a size: its grid and the seconds from pixels to the keys of its regions."""
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 255, (*size, 3), dtype=np.uint8)
    start = time.perf_counter()
    (features,) = encoder.encode_images([picture])
    encoded = time.perf_counter()
    masks = torch.zeros(REGIONS, *size, dtype=torch.bool)
    for mask in masks:
        row, column = generator.integers(0, size)
        mask[row : row + size[0] // 4 + 1, column : column + size[1] // 4 + 1] = True
    keys = embed_regions(encoder, features, masks).cpu()
    done = time.perf_counter()
    assert bool(keys.isfinite().all())
    return {
        "picture": size,
        "grid": tuple(features.values.shape[1:]),
        "image_seconds": encoded - start,
        "keys_seconds": done - encoded,
    }


def measure(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one network."""
    settings = EncoderSettings(
        library="open_clip", model=model, weights="file", short_side=options.short_side, long_side=options.long_side
    )
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        path = random_release(model, Path(folder))
        start = time.perf_counter()
        encoder = load_open_clip(settings, path, device)
        loading = time.perf_counter() - start
        clip = open_clip.create_model(model, pretrained=str(path), device=device)
    backbone = backbone_of(clip, model).to(device)
    encoder.encode_images([np.zeros((64, 64, 3), np.uint8)])  # the first pass pays for what later ones reuse
    return {
        "model": model,
        "parameters": sum(parameter.numel() for parameter in clip.parameters()),
        "dim": encoder.space.dim,
        "stride": encoder.space.stride,
        "pooling": encoder.space.pooling,
        "load_seconds": loading,
        "parity": parity(backbone, device),
        "pictures": [timed(encoder, size) for size in SIZES],
    }


def show(row: dict[str, Any]) -> None:
    """The figures of one network as lines of a table."""
    checks = "  ".join(f"{name} {value:.1e}" for name, value in row["parity"].items())
    print(f"{row['model']:22} {row['parameters'] / 1e6:6.0f} M  dim {row['dim']:5} stride {row['stride']:3}  {checks}")
    for entry in row["pictures"]:
        size, grid = (" x ".join(map(str, entry[name])) for name in ("picture", "grid"))
        seconds = f"{entry['image_seconds']:6.2f} s, {REGIONS} keys {entry['keys_seconds']:5.2f} s"
        print(f"{'':22} {size:>12} -> {grid:>9}: {seconds}", flush=True)


def main() -> None:
    """Measure, print, write."""
    options = parse()
    rows = []
    for model in options.models:
        rows.append(measure(model, options))
        show(rows[-1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    machine = {"device": options.device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    figures = {"machine": machine | {"python": platform.python_version()}, "peak_kilobytes": peak, "models": rows}
    options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
