"""Every way through an MLP with its LayerNorm computes the same."""

import pytest
import torch
from torch import nn

from benchmarks.gpu.pointwise import Geometry, draw, exact, ways, written
from benchmarks.gpu.ways import BOUNDS, relative_error
from models.layers import Mlp

CPU = torch.device("cpu")
GEOMETRY = Geometry(tokens=10, taken=24, hidden=32, width=16, norm_eps=1e-5)


@pytest.mark.parametrize("way", ways(tuned=False))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_it_equals_the_definition(way: str, dtype: torch.dtype) -> None:
    operands = draw(GEOMETRY, 6, CPU, dtype)
    found = ways("eager", tuned=False)[way](operands)(operands)
    assert relative_error(found, exact(operands)) <= BOUNDS[dtype]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Inductor's own making
@pytest.mark.parametrize("way", ["compiled", "compiled, products chosen too"])
def test_compiled_for_real_it_equals_the_definition(way: str) -> None:
    operands = draw(GEOMETRY, 6, CPU, torch.float32)
    with torch.inference_mode():
        found = ways(tuned=True)[way](operands)(operands)
    assert relative_error(found, exact(operands)) < 1e-5


def test_it_is_the_models_own_mlp() -> None:
    operands = draw(GEOMETRY, 6, CPU, torch.float32)
    norm, mlp = nn.LayerNorm(24, eps=1e-5), Mlp(24, 32, 16)
    norm.load_state_dict({"weight": operands.norm_weight, "bias": operands.norm_bias})
    mlp.load_state_dict(
        {
            "fc1.weight": operands.weight1,
            "fc1.bias": operands.bias1,
            "fc2.weight": operands.weight2,
            "fc2.bias": operands.bias2,
        }
    )
    torch.testing.assert_close(written(operands)[0], mlp(norm(operands.tokens)))


def test_tokens_and_normalisation_are_float32_where_products_are_in_half_precision() -> None:
    operands = draw(GEOMETRY, 6, CPU, torch.bfloat16)
    assert operands.tokens.dtype == operands.norm_weight.dtype == torch.float32
    assert operands.weight1.dtype == torch.bfloat16
    assert written(operands)[0].dtype == torch.bfloat16
