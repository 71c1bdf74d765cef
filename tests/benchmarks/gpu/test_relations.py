"""Every way to attend with reused relations computes the same."""

from dataclasses import replace

import pytest
import torch

from benchmarks.gpu.document import Ceilings
from benchmarks.gpu.relations import Geometry, Operands, case, draw, exact, summed, ways
from benchmarks.gpu.ways import measure, relative_error
from models.layers import Attention
from models.reuse import resize_relations

CPU = torch.device("cpu")
LAST = Geometry(3, 5, 2, 16, hands_on=False)
MIDDLE = Geometry(3, 5, 2, 16, hands_on=True)
EACH = [(geometry, way) for geometry in (LAST, MIDDLE) for way in ways(geometry) if not way.startswith("Triton")]


@pytest.mark.parametrize(("geometry", "way"), EACH)
def test_it_equals_the_definition(geometry: Geometry, way: str) -> None:
    operands = draw(geometry, 2, CPU, torch.float64)
    found = ways(geometry, "eager")[way](operands)(operands)
    assert relative_error(found, exact(operands, hands_on=geometry.hands_on)) < 1e-12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Inductor's own making
@pytest.mark.parametrize("way", [way for way in ways(LAST) if "flex" in way or "compiled" in way])
def test_compiled_for_real_it_equals_the_definition(way: str) -> None:
    operands = draw(Geometry(10, 14, 2, 64, hands_on=False), 2, CPU, torch.float32)
    with torch.inference_mode():
        found = ways(LAST)[way](operands)(operands)
    assert relative_error(found, exact(operands, hands_on=False)) < 1e-5


def test_the_sum_in_memory_is_the_models_own_attention() -> None:
    operands = draw(MIDDLE, 2, CPU, torch.float32)
    attention = Attention(32, 2, qkv_bias=False)
    with torch.no_grad():
        torch.nn.init.eye_(attention.proj.weight)
        attention.proj.bias.zero_()
        attention.qkv.weight.copy_(torch.randn(96, 32))
        tokens = torch.randn(2, 26, 32)
        query, key, value = attention.qkv(tokens).reshape(2, 26, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)
        given = replace(operands, query=query, key=key, value=value)
        theirs = attention(tokens, resize_relations(given.relations, given.axis))
    torch.testing.assert_close(summed(given, hands_on=True), theirs)


@pytest.mark.parametrize("geometry", [Geometry(7, 10, 1, 16, hands_on=False), Geometry(10, 14, 1, 16, hands_on=False)])
def test_four_sources_are_all_that_a_token_has(geometry: Geometry) -> None:
    operands = draw(geometry, 1, CPU, torch.float64)
    gathered = torch.zeros_like(operands.resize).scatter_(1, operands.sources.long(), operands.weights)
    torch.testing.assert_close(gathered, operands.resize, rtol=0, atol=0)


def test_a_stage_that_hands_on_gives_its_logits_too() -> None:
    tokens, logits = summed(draw(MIDDLE, 2, CPU, torch.float32), hands_on=True)
    assert (tokens.shape, logits.shape) == ((2, 26, 32), (2, 2, 26, 26))


def test_each_is_checked_and_timed() -> None:
    whole = case(LAST, 3, CPU, "float32")
    plain = {name: make for name, make in whole.ways.items() if "compiled" not in name and "flex" not in name}
    measured = measure(replace(whole, ways=plain), Ceilings("a device", "2", 1.0, 1.0), CPU)
    torch_alone = [row for row in measured if not row.way.startswith("Triton")]
    assert [row.way for row in torch_alone] == [
        "sum in memory",
        "sum in memory, dense resize",
        "mask",
        "extra head dimensions",
    ]
    assert all(row.reason is None and row.error is not None and row.error < 1e-5 and row.seconds for row in torch_alone)


def test_queries_keys_and_values_lie_in_memory_as_the_projection_leaves_them() -> None:
    operands: Operands = draw(LAST, 2, CPU, torch.float32)
    assert operands.query.stride() == (26 * 96, 16, 96, 1)
    assert operands.key.data_ptr() - operands.query.data_ptr() == 32 * 4
