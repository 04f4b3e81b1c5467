"""Seconds and peak memory of FC-CLIP per image, in total and by part, against straightforward versions.

    python benchmarks/fcclip/run.py --model convnext-large --height 800 --width 1333 --json fcclip.json

Weights are random: they decide what is recognised, not how long it takes. Masks for the final steps are smooth random
fields, of which `--kept` are not void. Ours and the straightforward version of a step alternate in the same process.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import reference
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from torch import Tensor

from retclip.adapters.open_clip.prompts import CHUNK
from retclip.core.masks import Frame
from retclip.core.vocabulary import Category, Vocabulary
from retclip.segmenters.fcclip.ensemble import geometric_ensemble
from retclip.segmenters.fcclip.inference import PanopticThresholds, instances, panoptic_map, semantic_scores
from retclip.segmenters.fcclip.preprocessing import normalised_batch, padded_size
from retclip.segmenters.fcclip.variants import VARIANTS, build_fcclip
from retclip.segmenters.layers.classification import TextRows
from retclip.segmenters.layers.deformable_attention import sample_values

Result = TypeVar("Result")
Other = TypeVar("Other")


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnext-large", choices=VARIANTS)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--kept", type=int, default=60, help="queries that are not void in the final steps")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("fcclip-benchmark.json"))
    return parser.parse_args()


class Clock:
    """Medians of repeated calls and the peak memory they reach."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.rows: list[dict[str, Any]] = []

    def seconds(self, call: Callable[[], Result]) -> tuple[float, Result]:
        """Time one call, waiting for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        result = call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, result

    def measure(self, name: str, call: Callable[[], Result]) -> Result:
        """Time one part; returns its result."""
        times, result = zip(*(self.seconds(call) for _ in range(self.repeats)), strict=True)
        self.rows.append({"part": name, "seconds": statistics.median(times)})
        return result[-1]

    def compare(
        self, name: str, ours: Callable[[], Result], straightforward: Callable[[], Other]
    ) -> tuple[Result, Other]:
        """Time a part and its straightforward version in turn; returns both results."""
        pairs = [(self.seconds(ours), self.seconds(straightforward)) for _ in range(self.repeats)]
        mine, theirs = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
        self.rows.append({"part": name, "seconds": mine, "straightforward_seconds": theirs, "ratio": theirs / mine})
        return pairs[-1][0][1], pairs[-1][1][1]


def peak_bytes(device: torch.device) -> int:
    """Highest memory so far: of the process on a CPU, of the allocator on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def synthetic_proposals(
    queries: int, frame: Frame, classes: int, kept: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Smooth mask logits (Q, h, w) and probabilities (Q, C + 1) with `kept` queries that are not void."""
    generator = torch.Generator().manual_seed(0)
    coarse = 6 * torch.randn(1, queries, 6, 9, generator=generator) - 3
    masks = F.interpolate(coarse, (frame.padded[0] // 4, frame.padded[1] // 4), mode="bicubic")[0]
    scores = 3 * torch.randn(queries, classes + 1, generator=generator)
    scores[:, -1] = torch.where(torch.arange(queries) < kept, -30.0, 30.0)
    return masks.to(device), scores.softmax(-1).to(device)


def measure_network(
    options: argparse.Namespace, device: torch.device, clock: Clock, vocabulary: Vocabulary
) -> dict[str, int]:
    """The walk from picture to panoptic map, part by part."""
    model = build_fcclip(options.model).to(device)
    dim = model.void_embedding.weight.shape[1]
    text = TextRows(F.normalize(torch.randn(len(vocabulary), dim, device=device), dim=-1), (1,) * len(vocabulary))
    picture = torch.randint(255, (3, options.height, options.width), dtype=torch.uint8)
    size = (options.height, options.width)
    seen = torch.arange(len(vocabulary), device=device) % 2 == 0
    precision = getattr(torch, options.precision)
    loaded = peak_bytes(device)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        images = clock.measure("normalise and pad", lambda: normalised_batch([picture], device))
        taps = clock.measure("backbone", lambda: model.backbone.pyramid(images))
        pixels = clock.measure("pixel decoder", lambda: model.sem_seg_head.pixel_decoder(taps))
        (final,) = clock.measure(
            "mask decoder", lambda: model.sem_seg_head.predictor(pixels.memories, pixels.mask_features)
        )
        embedded, valid = clock.measure("mask pooling and head", lambda: model.embed(taps.res5, final.mask_logits))

    def scores() -> Tensor:
        inside = model.in_vocabulary_logits(final.class_vectors.float(), text)
        outside = model.out_of_vocabulary_logits(embedded.float(), text)
        return geometric_ensemble(inside, outside, seen, valid, VARIANTS[options.model].ensemble)[0].softmax(-1)

    probabilities = clock.measure("scores and ensemble", scores)
    frame = Frame(padded_size([size]), size, size)
    clock.measure(
        "panoptic map (random weights)",
        lambda: panoptic_map(final.mask_logits[0].float(), probabilities, frame, vocabulary, PanopticThresholds()),
    )
    total = sum(row["seconds"] for row in clock.rows)
    peak = peak_bytes(device)
    clock.rows.append({"part": "one image", "seconds": total})
    tokens = SimpleTokenizer()(["a photo of a cat."] * CHUNK).to(device)
    clock.measure(f"text, {CHUNK} prompts (once per vocabulary)", lambda: model.backbone.encode_text(tokens))
    return {"weights_bytes": loaded, "peak_bytes": peak, "queries": final.mask_logits.shape[1]}


def cell_centres(sizes: list[tuple[int, int]], device: torch.device) -> Tensor:
    """(S, 2) as (x, y) in [0, 1] of all cells, level by level."""
    grids = []
    for height, width in sizes:
        y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
        grids.append(torch.stack([x, y], -1).flatten(0, 1))
    return torch.cat(grids).to(device)


def measure_steps(options: argparse.Namespace, device: torch.device, clock: Clock, vocabulary: Vocabulary) -> None:
    """Deformable sampling and the three final steps, ours against straightforward; results must agree."""
    head = VARIANTS[options.model].head
    size = (options.height, options.width)
    frame = Frame(padded_size([size]), size, size)
    sizes = [(frame.padded[0] // s, frame.padded[1] // s) for s in (32, 16, 8)]
    length = sum(h * w for h, w in sizes)
    value = torch.randn(1, length, head.heads, head.width // head.heads, device=device)
    shape = (1, length, head.heads, 3, head.points, 2)
    # A network looks a few cells around each query; places all over the map are the worst case for every cache.
    near = cell_centres(sizes, device)[None, :, None, None, None] + 0.03 * torch.randn(shape, device=device)
    weights = torch.rand(1, length, head.heads, 3, head.points, device=device)
    for name, locations in (("near", near), ("scattered", torch.rand(shape, device=device))):
        ours, theirs = clock.compare(
            f"deformable sampling, one layer, {name}",
            partial(sample_values, value, sizes, locations, weights),
            partial(reference.sample_values, value, sizes, locations, weights),
        )
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    given = (*synthetic_proposals(head.queries, frame, len(vocabulary), options.kept, device), frame)
    thresholds = PanopticThresholds()
    ours, theirs = clock.compare(
        "panoptic map",
        lambda: panoptic_map(*given, vocabulary, thresholds),
        lambda: reference.panoptic_ids(*given, vocabulary, thresholds),
    )
    assert torch.equal(torch.from_numpy(ours.ids), theirs.cpu())
    ours, theirs = clock.compare(
        "semantic scores", lambda: semantic_scores(*given), lambda: reference.semantic_scores(*given)
    )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    ours, theirs = clock.compare(
        "instances", lambda: instances(*given, vocabulary), lambda: reference.instances(*given, vocabulary)
    )
    torch.testing.assert_close(ours.scores.sort().values, theirs[0].sort().values, atol=1e-5, rtol=0)


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = parse()
    device = torch.device(options.device)
    torch.manual_seed(0)
    categories = (Category(i, (f"class {i}",), is_thing=i % 3 > 0) for i in range(options.classes))
    vocabulary = Vocabulary("benchmark", tuple(categories))
    clock = Clock(device, options.repeats)
    with torch.inference_mode():
        memory = measure_network(options, device, clock, vocabulary)
        measure_steps(options, device, clock, vocabulary)
    report = {
        "model": options.model,
        "height": options.height,
        "width": options.width,
        "device": str(device),
        "precision": options.precision,
        "classes": options.classes,
        "kept": options.kept,
        "repeats": options.repeats,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        **memory,
        "parts": clock.rows,
    }
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(
        f"{options.model}, {options.height} x {options.width}, {device}, {options.precision}, "
        f"{report['threads']} threads: peak {memory['peak_bytes'] / 2**30:.2f} GiB, "
        f"of which before the first image {memory['weights_bytes'] / 2**30:.2f} GiB"
    )
    print(f"{'part':45} {'seconds':>9} {'straightforward':>16} {'ratio':>6}")
    for row in clock.rows:
        other = row.get("straightforward_seconds")
        print(
            f"{row['part']:45} {row['seconds']:9.3f} "
            + (f"{other:16.3f} {row['ratio']:6.2f}" if other is not None else "")
        )


if __name__ == "__main__":
    main()
