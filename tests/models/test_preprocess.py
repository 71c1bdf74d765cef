"""The evaluation transform: every kind of picture becomes upright 8-bit RGB, and the crop is the one in the middle."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from models.config import InputConfig
from models.preprocess import UnsupportedPixelsError, crop_and_resize, preprocess, to_rgb

SAME = InputConfig(size_px=8, resize_px=8)


def opened(image: Image.Image, image_format: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png_of_16_bits(rows: NDArray[np.uint16], colour_type: int) -> Image.Image:
    """Pillow writes no 16-bit RGB, so by hand (PNG specification, section 11)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = rows.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(data))


def test_a_square_image_is_resized_and_cropped_as_in_two_steps() -> None:
    image = noise(300, 300)
    resized = image.resize((256, 256), Image.Resampling.BICUBIC).crop((16, 16, 240, 240))
    pixels = preprocess(image, InputConfig(size_px=224, resize_px=256))
    np.testing.assert_array_equal(pixels, np.asarray(resized).transpose(2, 0, 1))


def test_an_image_of_the_right_size_passes_unchanged() -> None:
    image = noise(8, 8)
    np.testing.assert_array_equal(preprocess(image, SAME), np.asarray(image).transpose(2, 0, 1))


def test_the_crop_is_the_middle_of_the_longer_side() -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    assert (preprocess(Image.fromarray(pixels), SAME) == 200).all()
    assert (preprocess(Image.fromarray(pixels.transpose(1, 0, 2)), SAME) == 200).all()


def test_a_small_image_is_enlarged() -> None:
    assert preprocess(Image.new("RGB", (1, 1), (9, 8, 7)), InputConfig(224, 256)).shape == (3, 224, 224)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(0, 20))
def test_a_flat_colour_stays_that_colour_at_any_size(width: int, height: int, size_px: int, margin_px: int) -> None:
    image = Image.new("RGB", (width, height), (10, 120, 250))
    pixels = crop_and_resize(image, InputConfig(size_px, size_px + margin_px, "bilinear"))
    assert pixels.shape == (3, size_px, size_px)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.reshape(3, -1).T, np.tile((10, 120, 250), (size_px**2, 1)))


@given(st.integers(2, 40), st.integers(2, 40))
def test_a_mirrored_image_gives_mirrored_pixels(width: int, height: int) -> None:
    config = InputConfig(size_px=12, resize_px=16)
    image = noise(width, height)
    mirrored = crop_and_resize(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), config)
    difference = mirrored[:, :, ::-1].astype(int) - crop_and_resize(image, config)
    assert np.abs(difference).max() <= 1  # A level of rounding.


def test_extreme_shapes_take_no_more_memory_than_their_crop() -> None:
    strip = Image.new("RGB", (1, 4_000_000), (50, 60, 70))
    assert preprocess(strip, InputConfig(224, 256))[:, 0, 0].tolist() == [50, 60, 70]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste((255, 0, 0), (0, 0, 8, 8))
    turned = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if turned is None else upright.transpose(turned)
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF"):
        shown = to_rgb(opened(stored, image_format, exif=exif))
        assert shown.size == (32, 16), image_format
        assert shown.getpixel((3, 3))[0] > 180, image_format  # type: ignore[index]  # RGB gives a tuple


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_counts_as_none() -> None:
    image = opened(noise(8, 8), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(preprocess(image, SAME), np.asarray(noise(8, 8)).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("L", (8, 8), 77), (77, 77, 77)),
        (Image.new("LA", (8, 8), (77, 255)), (77, 77, 77)),
        (Image.new("LA", (8, 8), (77, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (1, 2, 3, 255)), (1, 2, 3)),
        (Image.new("RGBA", (8, 8), (1, 2, 3, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 128)), (127, 127, 127)),
        (Image.new("RGB", (8, 8), (9, 90, 200)).quantize(4), (9, 90, 200)),
    ],
)
def test_grey_alpha_and_palette_become_rgb(image: Image.Image, expected: tuple[int, int, int]) -> None:
    assert preprocess(opened(image, "PNG"), SAME)[:, 0, 0].tolist() == list(expected)


def test_a_transparent_colour_of_a_palette_or_of_rgb_is_white() -> None:
    palette = Image.new("RGB", (8, 8), (9, 90, 200)).quantize(4)
    index = palette.getpixel((0, 0))
    assert (preprocess(opened(palette, "PNG", transparency=index), SAME) == 255).all()
    assert (preprocess(opened(palette, "GIF", transparency=index), SAME) == 255).all()
    rgb = Image.new("RGB", (8, 8), (9, 90, 200))
    assert (preprocess(opened(rgb, "PNG", transparency=(9, 90, 200)), SAME) == 255).all()


def test_cmyk_becomes_rgb() -> None:
    pixels = preprocess(opened(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), SAME)
    red, green, blue = pixels[:, 0, 0].tolist()
    assert (red > 240, green < 15, blue < 15) == (True, True, True)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    levels = np.array([[0, 128, 257, 32768, 65278, 65535, 1000, 40000]] * 8, np.uint16)
    expected = np.round(levels[0] / 257)
    for image in (png_of_16_bits(levels, colour_type=0), opened(Image.fromarray(levels), "TIFF")):
        grey = preprocess(image, SAME)[0, 0]
        assert np.abs(grey - expected).max() <= 1


def test_16_bit_colour_is_scaled_not_clipped() -> None:
    colour = np.broadcast_to(np.array([0x0100, 0x8000, 0xFFFF], np.uint16), (8, 8, 3))
    assert preprocess(png_of_16_bits(np.array(colour), colour_type=2), SAME)[:, 0, 0].tolist() == [1, 128, 255]


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animated_image_is_its_first_frame(image_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("lime", "red", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    image = opened(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    assert preprocess(image, SAME)[:, 0, 0].tolist() == [0, 255, 0]


def test_pixels_without_a_range_are_refused() -> None:
    with pytest.raises(UnsupportedPixelsError, match="mode F"):
        preprocess(opened(Image.new("F", (8, 8), 0.5), "TIFF"), SAME)
