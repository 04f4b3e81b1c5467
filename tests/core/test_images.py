from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from retclip.core.errors import ImageError
from retclip.core.images import decode_picture, read_annotation, read_picture


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int, rows: bytes) -> bytes:
    """A 1-bit grey PNG with freely chosen size and pixel data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))))
def test_lossless_rgb_comes_back_unchanged(pixels: np.ndarray) -> None:
    picture = decode_picture(encoded(Image.fromarray(pixels), "PNG"), "x.png")
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert picture.size == pixels.shape[:2]


@given(arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_sixteen_bit_grey_keeps_its_relative_brightness(values: np.ndarray) -> None:
    picture = decode_picture(encoded(Image.fromarray(values), "PNG"), "x.png")
    np.testing.assert_allclose(picture.pixels, np.repeat(values[..., None] / 257.0, 3, axis=2), atol=1.0)


def test_dark_sixteen_bit_grey_is_not_taken_for_eight_bit() -> None:
    values = np.full((4, 4), 200, np.uint16)
    assert decode_picture(encoded(Image.fromarray(values), "PNG"), "x.png").pixels.max() == 0


def test_float_tiff_with_eight_bit_values_stays_as_it_is() -> None:
    values = np.array([[0.0, 100.0, 255.0]], np.float32)
    assert decode_picture(encoded(Image.fromarray(values), "TIFF"), "x.tif").pixels[0, :, 0].tolist() == [0, 100, 255]


def test_cmyk_jpeg_keeps_its_colours() -> None:
    rgb = Image.new("RGB", (16, 16), (200, 30, 60))
    picture = decode_picture(encoded(rgb.convert("CMYK"), "JPEG", quality=95), "x.jpg")
    np.testing.assert_allclose(picture.pixels[8, 8], (200, 30, 60), atol=6)


def test_palette_with_transparency_lies_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    picture = decode_picture(encoded(image, "PNG", transparency=0), "x.png")
    assert picture.pixels[0].tolist() == [[255, 255, 255], [200, 100, 50]]


def test_grey_with_alpha_lies_over_white() -> None:
    image = Image.merge("LA", [Image.new("L", (2, 1), 100), Image.fromarray(np.array([[0, 255]], np.uint8))])
    assert decode_picture(encoded(image, "PNG"), "x.png").pixels[0, :, 0].tolist() == [255, 100]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation: int, upright: Callable[[np.ndarray], np.ndarray]) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16], stored[8:, :16] = (255, 0, 0), (0, 255, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode_picture(encoded(Image.fromarray(stored), "JPEG", quality=98, subsampling=0, exif=exif), "x.jpg")
    expected = upright(stored)
    assert picture.size == expected.shape[:2]
    np.testing.assert_allclose(picture.pixels.astype(int), expected, atol=12)


def test_first_frame_of_an_animation_is_used() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_picture(data, "x.gif").pixels[0, 0].tolist() == [255, 0, 0]


def test_decompression_bomb_is_refused_from_its_header() -> None:
    data = png_header(30_000, 30_000, bytes(30_000 * (1 + 30_000 // 8)))
    assert len(data) < 1 << 18
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="too large") as caught:
            decode_picture(data, "bomb.png")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.code == "E113"


def test_pixel_limit_is_inclusive() -> None:
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    assert decode_picture(data, "x.png", max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="10 x 10"):
        decode_picture(data, "x.png", max_pixels=99)


@given(st.integers(200, 1800))
def test_truncated_jpeg_is_an_error_and_never_a_half_picture(length: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    assert len(data) > 1800
    with pytest.raises(ImageError) as caught:
        decode_picture(data[:length], "cut.jpg")
    assert caught.value.code in {"E112", "E114"}
    assert "cut.jpg" in caught.value.what


@pytest.mark.parametrize(
    "data", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_other_content_is_no_picture(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode_picture(data, "odd.jpg")
    assert caught.value.code in {"E112", "E114"}


@given(st.binary(max_size=300), st.integers(0, 60))
def test_damaged_bytes_raise_only_image_errors(noise: bytes, position: int) -> None:
    data = bytearray(encoded(Image.new("RGB", (8, 8), "teal"), "PNG"))
    data[position : position + len(noise)] = noise
    code = "decoded"
    try:
        decode_picture(bytes(data), "x.png", max_pixels=10_000)
    except ImageError as error:
        code = error.code
    assert code in {"decoded", "E112", "E113", "E114"}


def test_memory_shortage_is_not_taken_for_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(self: Image.Image) -> None:
        raise MemoryError

    data = encoded(Image.new("RGB", (8, 8)), "BMP")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", exhausted)
    with pytest.raises(MemoryError):
        decode_picture(data, "x.bmp")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"E111 Cannot read .*gone\.jpg"):
        read_picture(tmp_path / "gone.jpg")


def test_equal_bytes_have_equal_digests(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (3, 2), "red").save(tmp_path / name)
    assert read_picture(tmp_path / "a.png").sha256 == read_picture(tmp_path / "b.png").sha256


def test_annotation_keeps_palette_indices_and_wide_values(tmp_path: Path) -> None:
    indices = np.array([[0, 3], [7, 255]], np.uint8)
    palette = Image.fromarray(indices).convert("P")
    palette.putdata(indices.ravel().tolist())
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_annotation(tmp_path / "p.png"), indices)
    wide = np.array([[0, 65535], [256, 1]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "w.png")
    np.testing.assert_array_equal(read_annotation(tmp_path / "w.png"), wide)


@pytest.mark.parametrize(
    ("mode", "shape"), [("1", (2, 3)), ("L", (2, 3)), ("LA", (2, 3)), ("RGB", (2, 3, 3)), ("RGBA", (2, 3, 3))]
)
def test_annotation_loses_only_its_alpha(tmp_path: Path, mode: str, shape: tuple[int, ...]) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / "x.png")
    assert read_annotation(tmp_path / "x.png").shape == shape


def test_annotation_of_a_mode_without_values_is_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (3, 2)).save(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match="CMYK"):
        read_annotation(tmp_path / "x.jpg")
