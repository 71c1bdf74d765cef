"""Pixels as tensors: the nearest of 256 levels, and arrays that hold on to nothing of the body."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.preprocess import Pixels
from service.api.body import BodyLimits
from service.api.openinference.images import images_of
from service.api.openinference.request import InputTensor
from service.errors import BadTensorError

SIDE = 2
LIMITS = BodyLimits(body_bytes=1000, image_bytes=1000, images=4, seconds=1.0)


def pixels_of(values: NDArray[Any]) -> tuple[Pixels, ...]:
    """What is made of binary data."""
    datatype = "UINT8" if values.dtype == np.uint8 else "FP32"
    tensor = InputTensor("pixels", datatype, values.shape, memoryview(values.tobytes()))
    images = images_of([tensor], SIDE, LIMITS)
    assert all(isinstance(image, np.ndarray) for image in images)
    return images  # type: ignore[return-value]  # As was just seen.


def filled(level: float) -> NDArray[np.float32]:
    """One image all of which is so many 255ths."""
    return np.full((1, 3, SIDE, SIDE), level / 255, np.float32)


@pytest.mark.parametrize(
    ("level", "rounded"), [(0, 0), (0.4, 0), (0.6, 1), (127.6, 128), (254.4, 254), (255, 255), (255.4, 255), (-0.4, 0)]
)
def test_fp32_is_rounded_to_the_nearest_level(level: float, rounded: int) -> None:
    (image,) = pixels_of(filled(level))
    assert image.dtype == np.uint8
    assert set(image.ravel()) == {rounded}


@pytest.mark.parametrize("level", [-0.6, 255.6, float("nan"), float("inf"), float("-inf")])
def test_what_is_nearest_to_no_level_is_refused(level: float) -> None:
    with pytest.raises(BadTensorError, match=r"0\.\.1"):
        pixels_of(filled(level))


@pytest.mark.parametrize("dtype", ["u1", "<f4"])
def test_an_image_holds_on_to_nothing_of_the_body(dtype: str) -> None:
    for image in pixels_of(np.zeros((2, 3, SIDE, SIDE), dtype)):
        assert image.base is None
        assert image.flags.writeable
        assert image.flags.c_contiguous
