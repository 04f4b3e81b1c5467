"""From settings and files to an encoder: the network is built without memory, then takes the tensors of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from open_clip import CLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from retclip.adapters.open_clip.backbones import ClipBackbone, ConvNeXtClip, ResNetClip, restore_causal_mask
from retclip.adapters.open_clip.convnext import CONFIG_KEY, ConvNeXtTower, ConvNeXtVisual, clip_with_convnext
from retclip.adapters.open_clip.encoder import OpenClipEncoder
from retclip.adapters.open_clip.prompts import NameRows, shared_store
from retclip.adapters.open_clip.releases import CONFIG_FILE, Release, find_release, unusable
from retclip.adapters.open_clip.tokenizers import load_tokenizer
from retclip.adapters.open_clip.vision_transformer import TransformerClip
from retclip.core.errors import InputError, ModelError, first_line, translated
from retclip.core.identity import FeatureSpace
from retclip.core.weights import load_strictly, read_weights, tensors_sha256
from retclip.presets import EncoderSettings

# Computed, not learned: some exports carry them.
_COMPUTED = frozenset({"attn_mask", "input_resolution", "context_length", "vocab_size"})
_STEPS = "num_batches_tracked"


def load_open_clip(settings: EncoderSettings, weights: Path, device: torch.device) -> OpenClipEncoder:
    """A CLIP with its weights, on a device.

    Args:
        settings: `model` names the architecture, `pretrained` the release.
        weights: weights file of the named architecture, or a folder with open_clip_config.json, weights and, where
            CLIP's own does not serve, tokenizer files; the folder's configuration then decides the architecture.

    Raises:
        ModelError: as `find_release`, `read_weights` and `load_tokenizer`; E207 weights that do not fit.
        InputError: E220 an architecture without the parts that dense features need.
    """
    release = find_release(settings, weights)
    tokenizer, tokenizer_name = load_tokenizer(release)
    backbone = backbone_of(build_clip(release), settings.model)
    _fill(backbone.clip_model, release)
    space = feature_space(backbone, settings, release)
    store = shared_store(backbone.clip_model, tokenizer_name)
    names = NameRows(backbone.encode_text, tokenizer, device, store)
    return OpenClipEncoder(backbone.to(device), names, space)


def build_clip(release: Release) -> CLIP:
    """The network of a release on the meta device: shapes without memory, whatever a configuration asks for.

    Raises:
        ModelError: E221 a configuration that open_clip cannot build.
        InputError: E220 a text tower of another library, or an image tower that neither timm nor `convnext` knows.
    """
    config = {key: value for key, value in release.config.items() if key != "custom_text"}
    vision = dict(config["vision_cfg"])
    sizes = vision.get(CONFIG_KEY)
    trunk = vision.get("timm_model_name")
    foreign_text = release.config.get("custom_text") or config["text_cfg"].get("hf_model_name")
    # A trunk by address would be fetched from there.
    if foreign_text or "multimodal_cfg" in config or (trunk is not None and not timm.is_model(str(trunk))):
        raise _unsupported(release.model)
    config["vision_cfg"] = vision | ({"timm_model_pretrained": False} if trunk else {})
    description = (release.folder or Path()) / CONFIG_FILE
    # Constructors raise any type for sizes that do not go together.
    with translated(lambda error: unusable(description, first_line(error))), torch.device("meta"):
        clip = CLIP(**config) if sizes is None else clip_with_convnext(ConvNeXtTower.from_config(sizes), config)
    if not clip.transformer.resblocks:
        raise unusable(description, "Its text tower has no layer.")
    return clip


def backbone_of(clip: CLIP, name: str) -> ClipBackbone:
    """The dense encoder around a CLIP, by its image tower. Raises InputError E220 for towers without one."""
    visual = clip.visual
    if isinstance(visual, ModifiedResNet):
        return ResNetClip(clip)
    if isinstance(visual, VisionTransformer) and _has_plain_blocks(visual):
        return TransformerClip(clip)
    if isinstance(visual, ConvNeXtVisual) or (isinstance(visual, TimmModel) and _has_plain_head(visual)):
        return ConvNeXtClip(clip)
    raise _unsupported(name)


def feature_space(backbone: ClipBackbone, settings: EncoderSettings, release: Release) -> FeatureSpace:
    """What makes the encoder's vectors comparable: the image tower, never the text tower."""
    return FeatureSpace(
        # The activation has a field of its own; `ViT-B-16-quickgelu` and OpenAI's `ViT-B-16` are the same network.
        encoder=f"open_clip/{settings.model.removesuffix('-quickgelu')}",
        weights_sha256=tensors_sha256(backbone.clip_model.visual.state_dict()),
        dim=int(release.config["embed_dim"]),
        layers=(backbone.layer,),
        stride=backbone.stride,
        short_side=settings.short_side,
        long_side=settings.long_side,
        mean=release.mean,
        std=release.std,
        activation=backbone.activation,
        pooling=backbone.coverage_pooling,
    )


def _fill(clip: CLIP, release: Release) -> None:
    tensors = _read(release)
    # DistributedDataParallel puts every key under `module.`.
    tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    tensors = {key: value for key, value in tensors.items() if key not in _COMPUTED}
    counters = {key: torch.tensor(0) for key in clip.state_dict() if key.endswith(_STEPS) and key not in tensors}
    fix = "Check encoder.model against the file; another release of it may have another size."
    load_strictly(clip, tensors | counters, release.weights, release.model, fix)
    restore_causal_mask(clip)


def _read(release: Release) -> dict[str, Tensor]:
    try:
        return read_weights(release.weights)
    except ModelError as error:
        if error.code != "E204" or not release.mirror:
            raise
        fix = f"Use the safetensors of the same weights: hub repository {release.mirror}."
        raise ModelError(error.code, error.what, why=error.why, fix=fix) from error


def _has_plain_blocks(visual: VisionTransformer) -> bool:
    """Square patches, ordinary blocks, and a pooling that has no weights of its own."""
    blocks = visual.transformer.resblocks
    ordinary = len(blocks) > 0 and all(type(block) is ResidualAttentionBlock for block in blocks)
    return ordinary and visual.attn_pool is None and visual.patch_size[0] == visual.patch_size[1]


def _has_plain_head(visual: TimmModel) -> bool:
    """A ConvNeXt that pools by mean, then norms, then projects: pooling by mask can take the place of the mean."""
    trunk: Any = visual.trunk
    if not isinstance(trunk, ConvNeXt) or not isinstance(trunk.norm_pre, nn.Identity) or hasattr(visual.head, "pool"):
        return False
    return isinstance(getattr(trunk.head, "norm", None), nn.LayerNorm) and trunk.head.global_pool.pool_type == "avg"


def _unsupported(model: str) -> InputError:
    return InputError(
        "E220",
        f"'{model}' has no dense features here.",
        why="Supported are CLIPs with open_clip's own text transformer and a VisionTransformer, a ModifiedResNet or a "
        "ConvNeXt of timm that pools by mean.",
        fix="Choose for example ViT-B-16, ViT-L-14-336, RN50x64 or convnext_large_d_320.",
    )
