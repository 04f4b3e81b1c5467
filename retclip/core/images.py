"""Reading pictures from untrusted files: one decoder, always RGB, upright, and bounded in size."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from retclip.core.errors import ImageError, require

# 178 million pixels is where Pillow itself calls a file a decompression bomb; a 16k x 10k scan still passes.
MAX_PIXELS = 178_956_970


@dataclass(frozen=True)
class Picture:
    """pixels (H, W, 3) uint8 RGB, upright; sha256: hex digest of the file's bytes."""

    pixels: npt.NDArray[np.uint8]
    sha256: str

    def __post_init__(self) -> None:
        require(self.pixels.ndim == 3 and self.pixels.shape[2] == 3 and self.pixels.dtype == np.uint8,
                "Picture.pixels", "(H, W, 3) uint8", (self.pixels.shape, self.pixels.dtype))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read one image file. Raises ImageError (E111..E114) for files that cannot be used."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError("E111", f"Cannot read {path}.", why=str(error), fix="Check the path and its permissions.") from error
    return decode_picture(data, str(path), max_pixels)


def decode_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an encoded image: EXIF orientation applied, any mode converted to 8-bit RGB.

    16-bit grey keeps its most significant byte (Pillow's own conversion would clip it to white); transparency is laid
    over white. The size is checked from the header, before any pixel is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
        if image.width * image.height > max_pixels:
            raise ImageError(
                "E113", f"{name} is too large: {image.width} x {image.height} pixels.",
                why=f"The limit is {max_pixels:,} pixels; a small file can claim any size.", fix="Scale the picture down first.",
            )
        image.load()
        pixels = np.asarray(_to_rgb(ImageOps.exif_transpose(image)), dtype=np.uint8)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("E113", f"{name} is too large.", why=str(error), fix="Scale the picture down first.") from error
    except UnidentifiedImageError as error:
        raise ImageError("E112", f"{name} is not a picture.", why="Its content is no image format that Pillow knows.",
                         fix="Remove the file or convert it to JPEG or PNG.") from error
    # Pillow's decoders raise many types on damaged data, among them struct.error and SyntaxError.
    except Exception as error:
        raise ImageError("E114", f"{name} is damaged.", why=f"{type(error).__name__}: {error}",
                         fix="Copy or download the file again.") from error
    return Picture(pixels, hashlib.sha256(data).hexdigest())


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        # Modes I and F do not say their range: 16-bit files are the common case, 8-bit values stay as they are.
        scale = 257.0 if values.max(initial=0.0) > 255 else 1.0
        grey = np.clip(values / scale, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
