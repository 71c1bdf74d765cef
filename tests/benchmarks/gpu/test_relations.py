"""Every way to attend with reused relations computes the same."""

import pytest
import torch

from benchmarks.gpu.relations import WAYS, draw, measure, summed

CPU = torch.device("cpu")


@pytest.mark.parametrize("way", WAYS)
def test_it_equals_the_sum_in_memory(way: str) -> None:
    operands = draw(2, 2, 8, CPU, torch.float64)
    torch.testing.assert_close(WAYS[way](operands), summed(operands))


def test_each_is_checked_and_timed() -> None:
    measured = measure(4, 2, 8, CPU, torch.float32)
    assert [each.way for each in measured] == list(WAYS)
    assert all(each.error is not None and each.error < 1e-5 and each.seconds for each in measured)
