"""Reading pictures from untrusted files: one decoder, always RGB, upright, and bounded in size."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from retclip.core.errors import ImageError, require

# 178 million pixels is where Pillow itself calls a file a decompression bomb; a 16k x 10k scan still passes.
MAX_PIXELS = 178_956_970

# A closed list: Pillow also opens formats that run other programs (EPS starts Ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


@dataclass(frozen=True)
class Picture:
    """pixels (H, W, 3) uint8 RGB, upright; sha256: hex digest of the file's bytes; name: where it came from."""

    pixels: npt.NDArray[np.uint8]
    sha256: str
    name: str

    def __post_init__(self) -> None:
        require(
            self.pixels.ndim == 3 and self.pixels.shape[2] == 3 and self.pixels.dtype == np.uint8,
            "Picture.pixels",
            "(H, W, 3) uint8",
            (self.pixels.shape, self.pixels.dtype),
        )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read one image file. Raises ImageError (E111..E114) for files that cannot be used."""
    return decode_picture(_read_bytes(path), str(path), max_pixels)


def decode_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an encoded image: EXIF orientation applied, any mode converted to 8-bit RGB.

    16-bit grey is scaled to 8 bits (Pillow's own conversion would clip it to white); transparency is laid
    over white. The size is checked from the header, before any pixel is decoded.
    """
    with _opened(data, name, max_pixels) as image:
        pixels = np.asarray(_to_rgb(ImageOps.exif_transpose(image)), dtype=np.uint8)
    return Picture(pixels, hashlib.sha256(data).hexdigest(), name)


def read_annotation(path: Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.integer]:
    """Read a label image file, see `decode_annotation`. Raises ImageError (E111..E114) as for pictures."""
    return decode_annotation(_read_bytes(path), str(path), max_pixels)


def decode_annotation(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.integer]:
    """Decode a label image without touching its values: no colours are converted and nothing is turned.

    Returns:
        (H, W) palette indices or grey values of 8 or 16 bits, or (H, W, 3) uint8 of a colour image.

    Raises:
        ImageError: E112..E114 as for pictures.
    """
    with _opened(data, name, max_pixels) as image:
        values = np.asarray(image)
        if image.mode in ("LA", "RGBA"):
            values = values[..., 0] if image.mode == "LA" else values[..., :3]
        elif image.mode not in ("1", "L", "P", "I", "RGB") and not image.mode.startswith("I;16"):
            raise ImageError(
                "E112",
                f"{name} is no label image.",
                why=f"Its colour mode is {image.mode}.",
                fix="Save it as a PNG with palette, grey or RGB values.",
            )
        return values.astype(np.uint8) if values.dtype == np.bool_ else values


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            "E111", f"Cannot read {path}.", why=str(error), fix="Check the path and its permissions."
        ) from error


@contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """A decoded first frame; everything that goes wrong inside the block becomes an ImageError naming the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > max_pixels:
            raise _too_large(name, f"{image.width} x {image.height} pixels; the limit is {max_pixels:,} pixels.")
        image.load()
        yield image
    # Running out of memory is no fault of the file: the caller must not count it as damaged.
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            "E112",
            f"{name} is not a picture.",
            why=f"Its content is none of {', '.join(_FORMATS)}.",
            fix="Remove the file or convert it to JPEG or PNG.",
        ) from error
    # Pillow's decoders raise many types on damaged data, among them struct.error and SyntaxError.
    except Exception as error:
        raise ImageError(
            "E114",
            f"{name} is damaged.",
            why=f"{type(error).__name__}: {error}",
            fix="Copy or download the file again.",
        ) from error


def _too_large(name: str, why: str) -> ImageError:
    return ImageError("E113", f"{name} is too large.", why=why, fix="Scale the picture down first.")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        # Modes I and F do not say their range: larger values mean 16 bits, smaller ones stay as they are.
        is_16_bit = image.mode.startswith("I;16") or values.max(initial=0.0) > 255
        grey = np.clip(values / (257.0 if is_16_bit else 1.0), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
