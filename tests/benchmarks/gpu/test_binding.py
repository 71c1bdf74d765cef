"""What binds follows from the times alone: against the roofline, and from one batch size to the next."""

import pytest

from benchmarks.gpu.binding import Binding, bindings
from tests.benchmarks.gpu.measured import stage


def test_launches_bind_while_a_larger_batch_takes_hardly_longer() -> None:
    rows = [stage(1, 1.0, matrix=0.01), stage(8, 1.1, matrix=0.08), stage(64, 4.0, matrix=0.64)]
    assert bindings(rows) == {1: "launches", 8: "launches", 64: "matrix products"}


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [stage(64, 3.2, matrix=0.64), stage(1, 0.1, matrix=0.01), stage(8, 3.0, matrix=0.08)]
    assert bindings(rows) == {1: "matrix products", 8: "launches", 64: "launches"}


@pytest.mark.parametrize(
    ("matrix", "memory", "binding"),
    [(0.3, 0.2, "matrix products"), (0.2, 0.3, "memory"), (0.2, 0.2, "matrix products")],
)
def test_without_launches_it_is_the_larger_part_of_the_roofline(matrix: float, memory: float, binding: Binding) -> None:
    rows = [stage(batch, 1.0 * batch, matrix=matrix * batch, memory=memory * batch) for batch in (1, 2)]
    assert bindings(rows) == {1: binding, 2: binding}


def test_weights_that_every_batch_must_read_are_memory_and_no_launches() -> None:
    rows = [stage(batch, 1.0 + 0.01 * batch, memory=0.8, matrix=0.01 * batch) for batch in (1, 2)]
    assert bindings(rows) == {1: "memory", 2: "memory"}


def test_the_largest_batch_is_on_the_line_that_it_ends() -> None:
    rows = [stage(1, 1.0, matrix=0.1), stage(2, 1.01, matrix=0.2)]
    assert bindings(rows)[2] == "launches"


def test_of_a_single_batch_size_nothing_is_said() -> None:
    assert bindings([stage(256, 1.0, matrix=0.5)]) == {}
