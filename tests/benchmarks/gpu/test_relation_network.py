"""Every way to compute the network over relations computes the same."""

import pytest
import torch

from benchmarks.gpu.relation_network import Geometry, convolved, draw, exact, multiplied, ways
from benchmarks.gpu.ways import BOUNDS, relative_error
from models.reuse import RelationReuse, resize_matrix

CPU = torch.device("cpu")
GEOMETRY = Geometry(3, 6, 3)


@pytest.mark.parametrize("way", [way for way in ways() if not way.startswith("Triton")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_equals_the_definition(way: str, dtype: torch.dtype) -> None:
    operands = draw(GEOMETRY, 2, CPU, dtype)
    found = ways("eager")[way](operands)(operands)
    assert relative_error(found, exact(operands)) <= BOUNDS[dtype]


def test_it_is_the_models_own_network_before_the_resize() -> None:
    operands = draw(GEOMETRY, 2, CPU, torch.float32)
    reuse = RelationReuse(6, 3, resize_matrix(3, 3))  # A grid resized to itself is left as it is.
    reuse.load_state_dict(
        {
            "fc1.weight": operands.weight1[:, :, None, None],
            "fc1.bias": operands.bias1,
            "fc2.weight": operands.weight2[:, :, None, None],
            "fc2.bias": operands.bias2,
        }
    )
    with torch.no_grad():
        theirs = reuse(operands.relations)
    torch.testing.assert_close(convolved(operands)[0], theirs)
    torch.testing.assert_close(multiplied(operands)[0], theirs)


def test_what_it_must_compute_and_move_is_counted_without_what_lies_between() -> None:
    product = GEOMETRY.product(images=5)
    assert product.operations == 5 * 100 * 2 * (6 * 18 + 18 * 6)
    assert product.elements == 5 * 100 * (6 + 6) + 2 * 6 * 18
