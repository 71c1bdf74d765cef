"""The hand-written kernels compute what float64 does, at the sizes of the published cascades and at odd ones."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import relation_network, relations
from benchmarks.gpu.ways import BOUNDS, precision_dtype, relative_error
from service.backends.base import Precision
from tests.benchmarks.gpu.triton_devices import PLACES

everywhere = pytest.mark.parametrize(("place", "precision"), PLACES)
ATTENTIONS = [
    relations.Geometry(10, 14, 2, 64, hands_on=False),
    relations.Geometry(7, 10, 2, 64, hands_on=True),
    relations.Geometry(3, 5, 1, 24, hands_on=True),
    relations.Geometry(2, 3, 3, 8, hands_on=False),
]
NETWORKS = [
    relation_network.Geometry(3, 48, 3),
    relation_network.Geometry(4, 84, 3),
    relation_network.Geometry(2, 72, 3),
    relation_network.Geometry(2, 16, 1),
    relation_network.Geometry(3, 5, 2),
]


@everywhere
@pytest.mark.parametrize("geometry", ATTENTIONS, ids=lambda geometry: geometry.name)
def test_attention_equals_its_definition(geometry: relations.Geometry, place: str, precision: Precision) -> None:
    dtype = precision_dtype(precision)
    operands = relations.draw(geometry, 3, torch.device(place), dtype)
    expected = relations.exact(operands, hands_on=geometry.hands_on)
    kernels = {name: make for name, make in relations.ways(geometry).items() if name.startswith("Triton")}
    assert kernels
    for make in kernels.values():
        found = make(operands)(operands)
        assert all(tensor.dtype == dtype for tensor in found)
        assert relative_error(found, expected) <= BOUNDS[dtype]


@everywhere
@pytest.mark.parametrize("geometry", NETWORKS, ids=lambda geometry: geometry.name)
def test_the_relation_network_equals_its_definition(
    geometry: relation_network.Geometry, place: str, precision: Precision
) -> None:
    dtype = precision_dtype(precision)
    operands = relation_network.draw(geometry, 2, torch.device(place), dtype)
    expected = relation_network.exact(operands)
    kernels = {name: make for name, make in relation_network.ways().items() if name.startswith("Triton")}
    assert kernels
    for make in kernels.values():
        found = make(operands)(operands)
        assert all(tensor.dtype == dtype for tensor in found)
        assert relative_error(found, expected) <= BOUNDS[dtype]


@everywhere
def test_attention_reads_nothing_beside_its_operands(place: str, precision: Precision) -> None:
    geometry = relations.Geometry(3, 5, 2, 24, hands_on=True)
    operands = relations.draw(geometry, 2, torch.device(place), precision_dtype(precision))
    fenced = replace(operands, relations=amid_nan(operands.relations))
    # Queries, keys and values are views of one tensor and have to stay so.
    whole = torch.stack((operands.query, operands.key, operands.value)).permute(1, 3, 0, 2, 4).contiguous()
    query, key, value = amid_nan(whole).permute(2, 0, 3, 1, 4).unbind(0)
    fenced = replace(fenced, query=query, key=key, value=value)
    make = relations.ways(geometry)["Triton, 64 x 64"]
    for found, expected in zip(make(fenced)(fenced), make(operands)(operands), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@everywhere
def test_the_relation_network_reads_nothing_beside_its_operands(place: str, precision: Precision) -> None:
    geometry = relation_network.Geometry(3, 20, 3)
    operands = relation_network.draw(geometry, 2, torch.device(place), precision_dtype(precision))
    fenced = relation_network.Operands(
        *(amid_nan(each) for each in (operands.relations, operands.weight1, operands.bias1)),
        *(amid_nan(each) for each in (operands.weight2, operands.bias2)),
    )
    make = relation_network.ways()["Triton, 128 x 32"]
    torch.testing.assert_close(make(fenced)(fenced), make(operands)(operands), rtol=0, atol=0)


@everywhere
def test_large_logits_are_no_trouble_for_the_softmax(place: str, precision: Precision) -> None:
    geometry = relations.Geometry(3, 5, 2, 16, hands_on=False)
    operands = relations.draw(geometry, 2, torch.device(place), precision_dtype(precision))
    large = replace(operands, relations=operands.relations * 100)
    found = relations.ways(geometry)["Triton, 64 x 64"](large)(large)
    # What is added is rounded at its own size, which is a hundred times that of a weight.
    assert relative_error(found, relations.exact(large, hands_on=False)) <= 30 * BOUNDS[large.query.dtype]


def amid_nan(tensor: Tensor) -> Tensor:
    """The same values, with NaN in memory before and after them."""
    margin = 4096
    memory = tensor.new_full((math.prod(tensor.shape) + 2 * margin,), torch.nan)
    inside = memory[margin:-margin].view(tensor.shape)
    return inside.copy_(tensor)
