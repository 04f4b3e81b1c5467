"""Any timm image backbone as a DenseEncoder: named layers are tapped, brought to one stride and concatenated."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from retclip.adapters.preprocessing import Preprocessing, dense_features
from retclip.core.errors import InputError, ModelError, RetclipError, first_line, translated
from retclip.core.identity import FeatureSpace
from retclip.core.pooling import COVERAGE_MEAN
from retclip.core.weights import load_strictly, read_weights, tensors_sha256
from retclip.ports.encoders import DenseFeatures
from retclip.presets import EncoderSettings


class TimmEncoder:
    """A frozen timm network whose named layers give dense features.

    Pooled features are split by layer, each part made unit length, and joined again: layers of very different scale
    (a 96-channel map beside a 1280-channel one) then weigh the same in a cosine.
    """

    def __init__(self, model: nn.Module, settings: EncoderSettings, device: torch.device) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._settings = settings
        self._device = device
        self._multiple = math.lcm(settings.stride, max(_reductions(model)))
        self._preprocess = Preprocessing(
            settings.short_side,
            settings.long_side,
            settings.mean,
            settings.std,
            self._multiple,
            Image.Resampling.BILINEAR,
        )
        names = dict(model.named_modules())
        for layer in settings.layers:
            if layer not in names:
                close = difflib.get_close_matches(layer, names, n=3)
                raise InputError(
                    "E146",
                    f"encoder.layers: '{settings.model}' has no module '{layer}'.",
                    why=f"Close names: {', '.join(close) or 'none'}.",
                    fix="Name modules of the network.",
                )
        self._widths = self._measure_widths()
        self._space = FeatureSpace(
            encoder=f"timm/{settings.model}" + _arguments_text(settings.model_args),
            weights_sha256=tensors_sha256(model.state_dict()),
            dim=sum(self._widths),
            layers=settings.layers or ("features",),
            stride=settings.stride,
            short_side=settings.short_side,
            long_side=settings.long_side,
            mean=settings.mean,
            std=settings.std,
            activation="",
            pooling=COVERAGE_MEAN,
        )

    @property
    def space(self) -> FeatureSpace:
        """What makes this encoder's vectors comparable."""
        return self._space

    def encode_images(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[DenseFeatures]:
        """RGB (H, W, 3) images -> features at `stride`; images of one padded size share a forward pass."""
        inputs = [self._preprocess(image) for image in images]
        return dense_features(inputs, self._forward, self._settings.stride, self._device)

    def embed(self, features: DenseFeatures, masks: Tensor) -> Tensor:
        """Masks (N, H, W) -> keys (N, C): coverage means, every layer's part at unit length."""
        parts = torch.split(features.pooled(masks).float(), self._widths, dim=1)
        return torch.cat([nn.functional.normalize(part, dim=1) for part in parts], dim=1)

    @torch.inference_mode()
    def _forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H', W') -> (B, C, H'/stride, W'/stride)."""
        size = (pixels.shape[2] // self._settings.stride, pixels.shape[3] // self._settings.stride)
        maps = [_resample(values, size) for values in self._taps(pixels)]
        return torch.cat(maps, dim=1)

    def _taps(self, pixels: Tensor) -> list[Tensor]:
        """Outputs of the chosen layers as (B, C, h, w), in the order of the settings."""
        model: Any = self._model
        if not self._settings.layers:
            return [self._as_map(model.forward_features(pixels), pixels)]
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda _module, _inputs, output: seen.__setitem__(name, output)

        with ExitStack() as hooks:
            for layer in self._settings.layers:
                handle = model.get_submodule(layer).register_forward_hook(keep(layer))
                hooks.callback(handle.remove)
            model.forward_features(pixels)
        missing = [layer for layer in self._settings.layers if layer not in seen]
        if missing:
            raise InputError(
                "E146",
                f"encoder.layers: {', '.join(missing)} took no part in the features of '{self._settings.model}'.",
                why="The layer belongs to the classifier or is not run.",
                fix="Choose layers before the classifier.",
            )
        return [self._as_map(seen[layer], pixels) for layer in self._settings.layers]

    def _as_map(self, values: Tensor, pixels: Tensor) -> Tensor:
        """Token and channels-last outputs -> (B, C, h, w)."""
        model: Any = self._model
        if values.ndim == 3:
            tokens = values[:, getattr(model, "num_prefix_tokens", 0) :].transpose(1, 2)
            patch = max(_reductions(self._model))
            return tokens.reshape(*tokens.shape[:2], pixels.shape[2] // patch, pixels.shape[3] // patch)
        return values.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else values

    @torch.inference_mode()
    def _measure_widths(self) -> list[int]:
        side = self._multiple * math.ceil(64 / self._multiple)
        try:
            # Not square: a network of one fixed size shows itself here and not at the first picture.
            taps = self._taps(torch.zeros(1, 3, side, 2 * side, device=self._device))
        except AssertionError as error:
            raise InputError(
                "E147",
                f"'{self._settings.model}' does not take pictures of any size.",
                why=first_line(error),
                fix="Set encoder.model_args to { dynamic_img_size = true } (vision transformers) or to "
                "{ strict_img_size = false } (Swin), or choose a convolutional network.",
            ) from error
        return [int(values.shape[1]) for values in taps]


def _reductions(model: nn.Module) -> list[int]:
    info: Any = model.feature_info
    return [int(entry["reduction"]) for entry in (info if isinstance(info, list) else info.info)]


def _resample(values: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(values.shape[2:]) == size:
        return values.float()
    finer = values.shape[2] > size[0]
    return nn.functional.interpolate(values.float(), size, mode="bilinear", antialias=finer)


def _arguments_text(arguments: Mapping[str, Any]) -> str:
    return "(" + ",".join(f"{key}={arguments[key]}" for key in sorted(arguments)) + ")" if arguments else ""


def load_timm_encoder(settings: EncoderSettings, weights: Path, device: torch.device) -> TimmEncoder:
    """Build the network and load its weights, a .safetensors or PyTorch file.

    With `hub` in the settings the file is timm's own release, with a classifier and perhaps older names, which timm
    itself knows how to read; any other file must fit exactly.

    Raises:
        ModelError: as `read_weights`; E207 the file does not fit, E208 unknown network.
        InputError: E146 and E147, settings that do not fit the network.
    """
    check_model_name(settings.model)
    # timm's own arguments name files to load and places to download from; those of the network are harmless.
    own = sorted(set(settings.model_args) & set(inspect.signature(timm.create_model).parameters))
    if own:
        raise _misfit(settings, f"{', '.join(own)} cannot be set by a preset; weights come from encoder.weights.")
    tensors = read_weights(weights)
    if settings.weights == "hub":
        return TimmEncoder(_create_released(settings, tensors, weights), settings, device)
    model = _create(settings, lambda error: _misfit(settings, first_line(error)))
    load_strictly(model, tensors, weights, settings.model)
    return TimmEncoder(model, settings, device)


def check_model_name(model: str) -> None:
    """Raises ModelError E208 for a name that is not timm's, such as a path or an address."""
    if not timm.is_model(model.split(".")[0]):
        close = difflib.get_close_matches(model, timm.list_models(), n=3)
        raise ModelError(
            "E208",
            f"timm knows no model '{model}'.",
            why=f"Close names: {', '.join(close) or 'none'}.",
            fix="Correct encoder.model in the preset.",
        )


def _create_released(settings: EncoderSettings, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    def explain(error: Exception) -> RetclipError:
        if not isinstance(error, RuntimeError):
            return _misfit(settings, first_line(error))
        return ModelError(
            "E207",
            f"{path} does not fit '{settings.model}'.",
            why=first_line(error),
            fix="It holds another network: download it again, or correct encoder.model.",
        )

    return _create(settings, explain, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(tensors)})


def _create(settings: EncoderSettings, explain: Callable[[Exception], RetclipError], **loading: Any) -> nn.Module:
    """Networks raise any type for arguments they cannot take; `explain` says what that means."""
    arguments = {"num_classes": 0, **settings.model_args, **loading}
    with translated(explain):
        model: nn.Module = timm.create_model(settings.model, **arguments)
    return model


def _misfit(settings: EncoderSettings, why: str) -> InputError:
    return InputError(
        "E147",
        f"encoder.model_args do not fit '{settings.model}'.",
        why=why,
        fix="Correct encoder.model or encoder.model_args in the preset.",
    )
