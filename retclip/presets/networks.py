"""Settings of the networks: which ones, with whose weights, at which size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Literal

from retclip.core.errors import require


@dataclass(frozen=True)
class EncoderSettings:
    """Which network turns an image into features, and at which size.

    Attributes:
        library: `timm`; `open_clip`, or `fcclip` for the frozen CLIP inside an FC-CLIP, which bring a text tower.
        model: architecture name in that library; for `fcclip` a variant.
        pretrained: which of the architecture's releases, e.g. `openai`; for `open_clip` only.
        weights: a file or folder (absolute, beside the preset, or in `RETCLIP_MODELS_DIR`) or `hub` for the library's
            own.
        license: of the weights, as their authors state it.
        layers: names of the modules whose outputs are concatenated, shallow to deep; empty = the last feature map.
        stride: input pixels per feature cell after concatenation.
        short_side, long_side: image size in pixels (FC-CLIP: 800 / 1333).
        mean, std: RGB normalisation on the 0..1 scale.
        model_args: passed to the library's constructor.

    With `open_clip` and `fcclip` the network itself decides layers, stride, mean and std.
    """

    library: Literal["timm", "open_clip", "fcclip"] = "timm"
    model: str = "mobilenetv2_100"
    pretrained: str = ""
    weights: str = "hub"
    license: str = ""
    layers: tuple[str, ...] = ()
    stride: int = 32
    short_side: int = 480
    long_side: int = 1333
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    model_args: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.stride > 0, "encoder.stride", "> 0", self.stride)
        require(
            0 < self.short_side <= self.long_side, "encoder.short_side", "0 < short_side <= long_side", self.short_side
        )
        require(len(self.mean) == len(self.std) == 3 and min(self.std) > 0, "encoder.std", "three values > 0", self.std)
        if self.library == "fcclip":
            require(self.weights != "hub", "encoder.weights", "a file: FC-CLIP's weights are on no hub", self.weights)
        if self.library == "open_clip" and self.weights == "hub":
            require(bool(self.pretrained), "encoder.pretrained", "a release, as weights is 'hub'", "''")
        fixed = ("layers", "stride", "mean", "std", "model_args") if self.library != "timm" else ()
        release = ("pretrained",) if self.library != "open_clip" else ()
        for field_ in fields(self):
            value = getattr(self, field_.name)
            default = field_.default if field_.default is not MISSING else {}
            left_out = field_.name not in (*fixed, *release) or value == default
            require(left_out, f"encoder.{field_.name}", f"left out with {self.library}", value)


@dataclass(frozen=True)
class DetectorSettings:
    """Which network finds things by their names.

    Attributes:
        library: `grounding_dino` (also MM-Grounding-DINO), or `none`.
        model: hub name, e.g. `IDEA-Research/grounding-dino-base`.
        weights: a folder as saved by transformers, an original checkpoint (.pth), or `hub`.
        license: of the weights, as their authors state it.
        span: how a name of several tokens is scored: the `mean` of its tokens, or their `max`.
        chunk_tokens: tokens of one prompt; the network itself takes at most 256.
        nms_iou: boxes of one phrase that overlap more are one.
        most_boxes: boxes kept per picture.
        batch: (picture, prompt) pairs per pass.
    """

    library: Literal["none", "grounding_dino"] = "none"
    model: str = "IDEA-Research/grounding-dino-base"
    weights: str = "hub"
    license: str = ""
    span: Literal["mean", "max"] = "mean"
    chunk_tokens: int = 240
    nms_iou: float = 0.7
    most_boxes: int = 300
    batch: int = 1

    def __post_init__(self) -> None:
        require(8 <= self.chunk_tokens <= 256, "detector.chunk_tokens", "8..256", self.chunk_tokens)
        require(0 < self.nms_iou <= 1, "detector.nms_iou", "in (0, 1]", self.nms_iou)
        require(self.most_boxes > 0, "detector.most_boxes", "> 0", self.most_boxes)
        require(self.batch > 0, "detector.batch", "> 0", self.batch)


@dataclass(frozen=True)
class MaskerSettings:
    """Which network turns boxes into masks.

    Attributes:
        library: `segment_anything` (released .pth files), `sam` or `sam2` (transformers), or `none`.
        model: `vit_b`, `vit_l`, `vit_h` for segment_anything, else a hub name.
        weights: a file or folder, or `hub`.
        license: of the weights, as their authors state it.
        boxes: prompts decoded at once; bounds memory.
    """

    library: Literal["none", "segment_anything", "sam", "sam2"] = "none"
    model: str = "facebook/sam-vit-base"
    weights: str = "hub"
    license: str = ""
    boxes: int = 64

    def __post_init__(self) -> None:
        require(self.boxes > 0, "masker.boxes", "> 0", self.boxes)
