"""The one evaluation transform: an opened image to uint8 pixels at input size, the same for training and serving.

No torch here.

Shapes: S the side of the network's input in px.
"""

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from models.config import InputConfig

Pixels = NDArray[np.uint8]

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# What undoes each EXIF orientation (EXIF 2.32, tag 274); 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnsupportedPixelsError(ValueError):
    """The image's pixels have no agreed way to 8-bit RGB (32-bit integers, floats, Lab)."""


def preprocess(image: Image.Image, config: InputConfig) -> Pixels:
    """Pixels (3, S, S): upright RGB, short side to `config.resize_px`, centre crop of `config.size_px`.

    Raises `UnsupportedPixelsError`, and whatever Pillow raises while it decodes.
    """
    return crop_and_resize(to_rgb(image), config)


def crop_and_resize(image: Image.Image, config: InputConfig) -> Pixels:
    """Pixels (3, S, S) of an RGB image.

    Resizing and cropping are one step: the crop is traced back to a box in the source, so that a 1 x 1,000,000 px image
    never becomes a resized one of 256 x 256,000,000. Filter taps outside the box still count, as if it came later.
    """
    width, height = image.size
    side = min(width, height) * config.size_px / config.resize_px
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, min(left + side, width), min(top + side, height))
    crop = image.resize((config.size_px, config.size_px), _FILTERS[config.interpolation], box=box)
    return np.ascontiguousarray(np.asarray(crop, dtype=np.uint8).transpose(2, 0, 1))


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, upright by its EXIF orientation; alpha is composited on white, 16 bits are scaled to 8.

    Colour profiles are not applied, as in the training sets of the published models.
    """
    image.load()
    image = _upright(image)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16"):
        return _from_16_bits(image).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise UnsupportedPixelsError(
            f"pixels of mode {image.mode} have no defined range; save it as 8-bit or 16-bit RGB"
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turned by its EXIF orientation; an unreadable EXIF block counts as none, since the picture itself is fine."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, OSError, struct.error):
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _from_16_bits(image: Image.Image) -> Image.Image:
    """8-bit grey of 16-bit grey; 65535 / 255 = 257, so that white stays white (Pillow's own convert would clip)."""
    values = np.asarray(image, dtype=np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
