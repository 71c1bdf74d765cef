"""A request's one input as images: files (`image`), or pixels at input size (`pixels`).

Shapes: n images, S side of the input in px.
"""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.preprocess import Pixels
from service.api.body import BodyLimits, ImageInput, from_base64
from service.api.openinference.model import IMAGE, PIXELS
from service.api.openinference.request import InputTensor
from service.decode import image_too_large
from service.errors import BadTensorError, MissingImageError, TooManyImagesError

# Levels of an 8-bit pixel, the brightest of which is 1.0 as FP32.
_BRIGHTEST = 255


def images_of(inputs: Sequence[InputTensor], size_px: int, limits: BodyLimits) -> tuple[ImageInput, ...]:
    """The images, in order. Raises a `ServiceError` for inputs that as a whole make no sense."""
    if len(inputs) != 1 or inputs[0].name not in (IMAGE, PIXELS):
        names = ", ".join(repr(each.name[:64]) for each in inputs)
        raise BadTensorError(f"the inputs are {names}; send one, either {IMAGE!r} or {PIXELS!r}")
    (tensor,) = inputs
    images = tensor.shape[0]
    if images == 0:
        raise MissingImageError(f"the shape of {tensor.name!r} is {_written(tensor.shape)}; send at least one image")
    if images > limits.images:
        raise TooManyImagesError(
            f"the shape of {tensor.name!r} has {images} images, the limit is {limits.images} (DVT_MAX_IMAGES); "
            "send them in several requests"
        )
    return _files(tensor, limits) if tensor.name == IMAGE else _pixels(tensor, size_px)


def _files(tensor: InputTensor, limits: BodyLimits) -> tuple[ImageInput, ...]:
    if tensor.datatype != "BYTES":
        raise _wrong_datatype(tensor, "BYTES, the bytes of an image file each")
    images = tensor.shape[0]
    if tensor.shape[1:] not in ((), (1,)):
        raise _wrong_shape(tensor, "[n, 1] or [n]")
    if isinstance(tensor.data, memoryview):
        return tuple(_checked(file, limits) for file in _elements(tensor.data, images))
    texts = _flat(tensor.data, tensor.shape)
    if len(texts) != images:
        raise _wrong_count(tensor, len(texts), images)
    return tuple(from_base64(f"data[{number}]", text, limits) for number, text in enumerate(texts))


def _elements(data: memoryview, images: int) -> list[memoryview]:
    """Each behind its length, which is 4 bytes, the lowest first."""
    elements: list[memoryview] = []
    start = 0
    for number in range(images):
        if start + 4 > len(data):
            raise BadTensorError(f"the binary data of {IMAGE!r} ends after {number} of {images} images")
        (size,) = struct.unpack_from("<I", data, start)
        start += 4
        if size > len(data) - start:
            raise BadTensorError(
                f"the binary data of {IMAGE!r} says that image {number} has {size} bytes, {len(data) - start} are left"
            )
        elements.append(data[start : start + size])
        start += size
    if start < len(data):
        raise BadTensorError(
            f"the binary data of {IMAGE!r} has {len(data) - start} bytes after the last of {images} images"
        )
    return elements


def _checked(file: memoryview, limits: BodyLimits) -> ImageInput:
    return bytes(file) if len(file) <= limits.image_bytes else image_too_large(len(file), limits.image_bytes)


def _pixels(tensor: InputTensor, size_px: int) -> tuple[Pixels, ...]:
    """Each an array of its own, so that none keeps the body."""
    if tensor.datatype not in ("UINT8", "FP32"):
        raise _wrong_datatype(tensor, "UINT8, or FP32 in 0..1")
    if tensor.shape[1:] != (3, size_px, size_px):
        raise _wrong_shape(tensor, f"[n, 3, {size_px}, {size_px}]: red, green, blue at the size of the network's input")
    data = tensor.data
    values = _from_binary(tensor, data) if isinstance(data, memoryview) else _from_json(tensor, data)
    levels = values if values.dtype == np.uint8 else _levels(values)
    return tuple(np.array(image) for image in levels.reshape(tensor.shape))


def _from_binary(tensor: InputTensor, data: memoryview) -> NDArray[Any]:
    dtype = np.dtype("u1" if tensor.datatype == "UINT8" else "<f4")
    expected = math.prod(tensor.shape) * dtype.itemsize
    if len(data) != expected:
        raise BadTensorError(
            f"the binary data of {PIXELS!r} has {len(data)} bytes, "
            f"shape {_written(tensor.shape)} of {tensor.datatype} takes {expected}"
        )
    return np.frombuffer(data, dtype)


def _from_json(tensor: InputTensor, data: Sequence[Any]) -> NDArray[Any]:
    numbers = _flat(data, tensor.shape)
    if len(numbers) != math.prod(tensor.shape):
        raise _wrong_count(tensor, len(numbers), math.prod(tensor.shape))
    allowed = {int} if tensor.datatype == "UINT8" else {int, float}
    strange = set(map(type, numbers)) - allowed
    if strange:
        raise BadTensorError(
            f"`data` of {PIXELS!r} has values of type {strange.pop().__name__}, {tensor.datatype} takes "
            + " and ".join(sorted(each.__name__ for each in allowed))
        )
    try:
        return np.array(numbers, np.uint8 if tensor.datatype == "UINT8" else np.float64)
    except OverflowError as error:
        raise BadTensorError(
            f"`data` of {PIXELS!r} has values that {tensor.datatype} does not hold: {error}"
        ) from error


def _levels(values: NDArray[Any]) -> Pixels:
    """0..1 as 8 bits, rounded to the nearest level: what came from 8 bits divided by 255 is what it was."""
    with np.errstate(over="ignore", invalid="ignore"):
        levels = np.rint(values * _BRIGHTEST)
    if not (levels.min() >= 0 and levels.max() <= _BRIGHTEST):  # So that NaN does not pass.
        raise BadTensorError(
            f"FP32 {PIXELS!r} are from {values.min():g} to {values.max():g}, expected 0..1: "
            "not 0..255, and neither mean nor standard deviation taken out, which the service does itself"
        )
    return np.asarray(levels, np.uint8)


def _flat(data: Sequence[Any], shape: Sequence[int]) -> Sequence[Any]:
    """The elements of JSON's `data`, which may be nested as the shape is, or flat already."""
    if not data or not isinstance(data[0], list):
        return data
    flat = data
    for size in shape[1:]:
        if not all(isinstance(part, list) and len(part) == size for part in flat):
            raise BadTensorError(f"`data` is nested otherwise than its shape {_written(shape)}")
        flat = list(chain.from_iterable(flat))
    return flat


def _written(shape: Sequence[int]) -> str:
    return str(list(shape))[:64]


def _wrong_shape(tensor: InputTensor, expected: str) -> BadTensorError:
    return BadTensorError(f"the shape of {tensor.name!r} is {_written(tensor.shape)}, expected {expected}")


def _wrong_datatype(tensor: InputTensor, expected: str) -> BadTensorError:
    return BadTensorError(f"the datatype of {tensor.name!r} is {tensor.datatype[:16]!r}, expected {expected}")


def _wrong_count(tensor: InputTensor, found: int, expected: int) -> BadTensorError:
    return BadTensorError(
        f"`data` of {tensor.name!r} has {found} elements, its shape {_written(tensor.shape)} {expected}"
    )
