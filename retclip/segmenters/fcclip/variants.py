"""The released configurations as data, and their assembly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from open_clip import CLIP

from retclip.adapters.open_clip.backbones import ConvNeXtClip, ConvolutionalClip, ResNetClip
from retclip.adapters.open_clip.convnext import CONFIG_KEY, ConvNeXtTower, clip_with_convnext
from retclip.core.errors import ModelError
from retclip.segmenters.fcclip.ensemble import EnsembleWeights
from retclip.segmenters.fcclip.mask_decoder import MaskDecoder
from retclip.segmenters.fcclip.model import FCCLIP
from retclip.segmenters.fcclip.pixel_decoder import PixelDecoder


@dataclass(frozen=True)
class ResNetTower:
    """CLIP's modified ResNet: blocks per layer, stem width, training image size (pixels), attention-pool heads."""

    layers: tuple[int, int, int, int]
    width: int
    image_size: int
    heads: int

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Of res2 .. res5."""
        return self.width * 4, self.width * 8, self.width * 16, self.width * 32


@dataclass(frozen=True)
class TextTower:
    """Text transformer. `quick_gelu`: OpenAI's releases need x * sigmoid(1.702 x), LAION's the exact GELU."""

    width: int
    heads: int
    layers: int
    quick_gelu: bool
    context_length: int = 77
    vocabulary_size: int = 49408


@dataclass(frozen=True)
class HeadSizes:
    """Sizes of what is trained; the defaults are those of every release."""

    width: int = 256
    queries: int = 250
    heads: int = 8
    points: int = 4
    encoder_layers: int = 6
    encoder_feedforward: int = 1024
    decoder_layers: int = 9
    decoder_feedforward: int = 2048
    training_classes: int = 133


@dataclass(frozen=True)
class Variant:
    """One configuration.

    Attributes:
        name: as the user types it.
        image, text: towers of the frozen CLIP.
        dim: of the shared text-image space.
        head: sizes of the trained part.
        ensemble: exponents of the release.
        open_clip_weights: model and tag under which open_clip knows the CLIP weights that training starts from.
    """

    name: str
    image: ConvNeXtTower | ResNetTower
    text: TextTower
    dim: int
    ensemble: EnsembleWeights
    head: HeadSizes = field(default_factory=HeadSizes)
    open_clip_weights: str = ""


def _resnet(name: str, image: ResNetTower, text: tuple[int, int], dim: int, model: str) -> Variant:
    tower = TextTower(text[0], text[1], 12, quick_gelu=True)
    return Variant(name, image, tower, dim, EnsembleWeights(only_valid_masks=True), open_clip_weights=f"{model}/openai")


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            "convnext-large",
            ConvNeXtTower((3, 3, 27, 3), (192, 384, 768, 1536)),
            TextTower(768, 12, 16, quick_gelu=False),
            768,
            EnsembleWeights(),
            open_clip_weights="convnext_large_d_320/laion2b_s29b_b131k_ft_soup",
        ),
        _resnet("rn50", ResNetTower((3, 4, 6, 3), 64, 224, 32), (512, 8), 1024, "RN50"),
        _resnet("rn101", ResNetTower((3, 4, 23, 3), 64, 224, 32), (512, 8), 512, "RN101"),
        _resnet("rn50x4", ResNetTower((4, 6, 10, 6), 80, 288, 40), (640, 10), 640, "RN50x4"),
        _resnet("rn50x16", ResNetTower((6, 8, 18, 8), 96, 384, 48), (768, 12), 768, "RN50x16"),
        _resnet("rn50x64", ResNetTower((3, 15, 36, 10), 128, 448, 64), (1024, 16), 1024, "RN50x64"),
        # Small enough to train on a laptop's CPU; no weights of it are released.
        Variant(
            "tiny",
            ConvNeXtTower((1, 1, 2, 1), (24, 32, 48, 64)),
            TextTower(32, 2, 2, quick_gelu=False),
            48,
            EnsembleWeights(),
            HeadSizes(width=64, queries=20, encoder_layers=2, decoder_layers=3, decoder_feedforward=128),
        ),
        # The largest that an hour on one core trains from nothing, CLIP included, on drawn scenes.
        Variant(
            "playground",
            ConvNeXtTower((2, 2, 4, 2), (32, 64, 128, 192)),
            TextTower(48, 4, 3, quick_gelu=False),
            64,
            EnsembleWeights(),
            HeadSizes(
                width=64,
                queries=40,
                heads=4,
                encoder_layers=2,
                encoder_feedforward=128,
                decoder_layers=3,
                decoder_feedforward=128,
            ),
        ),
    )
}


def variant_named(name: str) -> Variant:
    """Look a variant up. Raises ModelError (E208) naming the known ones."""
    if name not in VARIANTS:
        raise ModelError(
            "E208",
            f"Unknown FC-CLIP variant '{name}'.",
            why=f"Known are {', '.join(VARIANTS)}.",
            fix="Use one of these names.",
        )
    return VARIANTS[name]


def clip_config(image: ConvNeXtTower | ResNetTower, text: TextTower, dim: int) -> dict[str, Any]:
    """open_clip's `model_cfg` of a CLIP; for a ConvNeXt with the table of `adapters.open_clip.convnext`."""
    if isinstance(image, ResNetTower):
        vision = {
            "layers": image.layers,
            "width": image.width,
            "image_size": image.image_size,
            "head_width": image.width * 32 // image.heads,
        }
    else:
        vision = {CONFIG_KEY: image.to_config()}
    return {
        "embed_dim": dim,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocabulary_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
        "quick_gelu": text.quick_gelu,
    }


def build_clip(image: ConvNeXtTower | ResNetTower, text: TextTower, dim: int) -> ConvolutionalClip:
    """A frozen CLIP with random weights and the released key names."""
    config = clip_config(image, text, dim)
    if isinstance(image, ResNetTower):
        return ResNetClip(CLIP(**config))
    return ConvNeXtClip(clip_with_convnext(image, config))


def build_fcclip(variant: Variant | str) -> FCCLIP:
    """Assemble a variant with random weights, in evaluation mode, CLIP frozen.

    Under `torch.device("meta")` this costs no memory; `checkpoint.load_fcclip` does so.
    """
    chosen = variant_named(variant) if isinstance(variant, str) else variant
    head = chosen.head
    pixel_decoder = PixelDecoder(
        chosen.image.channels,
        head.width,
        heads=head.heads,
        points=head.points,
        feedforward=head.encoder_feedforward,
        depth=head.encoder_layers,
    )
    mask_decoder = MaskDecoder(
        head.width,
        head.queries,
        chosen.dim,
        heads=head.heads,
        feedforward=head.decoder_feedforward,
        depth=head.decoder_layers,
    )
    backbone = build_clip(chosen.image, chosen.text, chosen.dim)
    return FCCLIP(backbone, pixel_decoder, mask_decoder, chosen.dim, head.training_classes).eval()
