"""Bytes from outside to pixels at input size: formats on a list, limits before decoding, no surprise from a decoder."""

import io
import struct
import warnings
from dataclasses import dataclass

# Image.open registers only five plugins by itself when it is given a list of formats; TIFF and WebP must be imported.
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from models.config import InputConfig
from models.preprocess import Pixels, UnsupportedPixelsError, preprocess
from service.errors import (
    CorruptImageError,
    EmptyImageError,
    ImageTooLargeError,
    ServiceError,
    TooManyPixelsError,
    UnsupportedImageError,
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
assert {TiffImagePlugin.TiffImageFile.format, WebPImagePlugin.WebPImageFile.format} <= set(FORMATS)

_READS = "it reads JPEG, PNG, WebP, GIF, BMP and TIFF"

_TILE_WIDTH, _TILE_LENGTH = 322, 323


@dataclass(frozen=True)
class ImageLimits:
    """What one image may be: `max_bytes` of file, and as many pixels as a square of `max_side_px`."""

    max_bytes: int
    max_side_px: int

    @property
    def max_pixels(self) -> int:
        return self.max_side_px**2


def silence_pillow() -> None:
    """Keep Pillow's warnings about other people's files out of our log (and out of `-W error`).

    For the whole process, once at start: Python's `catch_warnings` is not safe in the threads that decode.
    """
    warnings.filterwarnings("ignore", module=r"PIL(\..*)?$")


def looks_like_an_image(data: bytes) -> bool:
    """Whether `data` starts as an image of a format that the service reads."""
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    return data.startswith(starts) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def decode(data: bytes, config: InputConfig, limits: ImageLimits) -> Pixels:
    """Pixels (3, S, S) of an image file; of an animated one, the first frame.

    Raises `EmptyImageError`, `ImageTooLargeError`, `UnsupportedImageError`, `TooManyPixelsError` (from the header,
    before anything of that size is allocated) or `CorruptImageError`.
    """
    if not data:
        raise EmptyImageError("the image has 0 bytes; send the bytes of an image file")
    if len(data) > limits.max_bytes:
        raise image_too_large(len(data), limits.max_bytes)
    if not looks_like_an_image(data):
        raise UnsupportedImageError(f"the {len(data)} bytes sent are no image that the service knows; {_READS}")
    # The boundary to decoders of untrusted bytes, which raise anything from struct.error to MemoryError: whatever
    # goes wrong in here is the file's fault, and the caller's to mend.
    try:
        _check_webp_canvas(data, limits)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, limits)
            return preprocess(image, config)
    except ServiceError:
        raise
    except UnsupportedPixelsError as error:
        raise UnsupportedImageError(f"the image cannot be turned into RGB: {error}") from error
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"the image is far too large: {error}; {_limit(limits)}") from error
    except Exception as error:
        raise CorruptImageError(
            f"the image is truncated or damaged ({_reason(error)}); check that the whole file was sent"
        ) from error


def image_too_large(size_bytes: int, limit_bytes: int) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"the image has {size_bytes} bytes, the limit is {limit_bytes} (DVT_MAX_IMAGE_BYTES); send a smaller file"
    )


def _reason(error: Exception) -> str:
    """Pillow's own words, without the addresses of our objects."""
    if isinstance(error, UnidentifiedImageError) or not str(error):
        return "its header makes no sense"
    return str(error).splitlines()[0][:120]


def _limit(limits: ImageLimits) -> str:
    side = limits.max_side_px
    return f"the limit is {side}x{side} px (DVT_MAX_IMAGE_PX); send a smaller image"


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise TooManyPixelsError(f"the image is {width}x{height} px, {_limit(limits)}")


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    _check_pixels(*image.size, limits)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A small image may claim tiles of any size, each of which libtiff would allocate in full.
        tile_width, tile_length = (image.tag_v2.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        if isinstance(tile_width, int) and isinstance(tile_length, int):
            _check_pixels(tile_width, tile_length, limits)


def _check_webp_canvas(data: bytes, limits: ImageLimits) -> None:
    """Pillow's WebP decoder allocates its canvas already when it opens a file, so look first (RFC 9649, section 2)."""
    if data[:4] != b"RIFF" or len(data) < 30:
        return
    kind = data[12:16]
    if kind == b"VP8X":  # 24 bits a side, less one
        width_low, width_high, height_low, height_high = struct.unpack("<HBHB", data[24:30])
        _check_pixels(1 + width_low + (width_high << 16), 1 + height_low + (height_high << 16), limits)
    elif kind == b"VP8L":  # 14 bits a side, less one
        (bits,) = struct.unpack("<I", data[21:25])
        _check_pixels(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), limits)
    elif kind == b"VP8 ":  # 14 bits a side, and two of scaling that decoders ignore
        width, height = struct.unpack("<HH", data[26:30])
        _check_pixels(width & 0x3FFF, height & 0x3FFF, limits)
