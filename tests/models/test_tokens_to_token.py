"""The Performer in half precision: random features and normaliser stay in float32, which float64 bears out."""

import math

import pytest
import torch
from torch import Tensor

from models.tokens_to_token import PERFORMER_EPS, RANDOM_FEATURES, TOKEN_DIM, Performer, soft_split

HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


@pytest.fixture
def performer() -> Performer:
    torch.manual_seed(0)
    return Performer(27).eval()


def attended_in_float64(performer: Performer, key: Tensor, query: Tensor, value: Tensor) -> Tensor:
    """Equation 5, from the same inputs."""

    def features(x: Tensor) -> Tensor:
        exponent = x @ performer.w.double().T - x.square().sum(-1, keepdim=True) / 2
        return exponent.exp() / math.sqrt(RANDOM_FEATURES)

    keys, queries = features(key.double()), features(query.double())
    normaliser = queries @ keys.sum(1).unsqueeze(-1) + PERFORMER_EPS
    return queries @ (keys.transpose(1, 2) @ value.double()) / normaliser


def drawn(scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    key, query, value = torch.randn(3, 2, 50, TOKEN_DIM, generator=torch.Generator().manual_seed(1)).to(dtype)
    return scale * key, scale * query, value


@HALF
@pytest.mark.parametrize(
    ("scale", "shift"),
    [
        pytest.param(0.1, 0.0, id="features of about 1"),
        pytest.param(0.5, 0.0, id="features down to 1e-10, which are 0 in float16"),
        pytest.param(0.7, 0.0, id="normalisers down to 1e-11, where the epsilon of 1e-8 counts"),
        pytest.param(0.1, 3.0, id="features above float16's largest number, normalisers of 1e11"),
    ],
)
@torch.inference_mode()
def test_under_autocast_attention_is_as_close_to_float64_as_float32_is(
    performer: Performer, dtype: torch.dtype, scale: float, shift: float
) -> None:
    key, query, value = drawn(scale, dtype)
    along = performer.w[0] / performer.w[0].norm()
    key, query = key + (shift * along).to(dtype), query + (shift * along).to(dtype)
    with torch.autocast("cpu", dtype):
        found = performer._attend(key, query, value)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), attended_in_float64(performer, key, query, value), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), [(32, 7, 4, 2), (15, 3, 2, 1), (9, 3, 1, 0)])
def test_patches_are_the_same_with_a_gradient_and_without(side: int, kernel: int, stride: int, padding: int) -> None:
    image = torch.randn(3, 5, side, side)
    with_gradient = soft_split(image, kernel, stride, padding)
    with torch.no_grad():
        assert torch.equal(soft_split(image, kernel, stride, padding), with_gradient)
