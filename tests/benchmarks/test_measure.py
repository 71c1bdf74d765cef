"""Percentiles and what a run amounts to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load import Recorded, Sample
from benchmarks.measure import LoadResult, Usage, latency_of, percentile, summarise
from models import strict_json

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@given(values=VALUES, share=st.floats(0.01, 1.0))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    below = sum(value <= found for value in values)
    assert below >= share * len(values) * (1 - 1e-9)
    smaller = [value for value in values if value < found]
    assert not smaller or len(smaller) < math.ceil(share * len(values) * (1 + 1e-9))


def test_percentiles_of_a_hundred_requests() -> None:
    latency = latency_of([number / 1000 for number in range(100, 0, -1)])
    assert (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms) == (50.0, 95.0, 99.0, 100.0)
    assert latency.mean_ms == pytest.approx(50.5)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def recorded() -> Recorded:
    samples = [Sample(0.0, 0.0, 0.010, 200, 1, 0.1) for _ in range(6)]
    samples += [Sample(0.0, 0.001, 0.050, 200, 3, 0.9) for _ in range(2)]
    samples += [Sample(0.0, 0.0, 0.1, 503), Sample(0.0, 0.0, 0.2, 0, error="TimeoutError")]
    return Recorded(tuple(samples), 2.0)


def test_a_run_is_summed_up() -> None:
    result = summarise(recorded(), Usage(0.05, 1.0, 1000), clients=4)
    assert result.throughput_per_s == 4.0
    assert result.requests == 8
    assert result.exit_shares == {"1": 0.75, "3": 0.25}
    assert result.mean_gmacs == pytest.approx((6 * 0.1 + 2 * 0.9) / 8)
    assert result.errors == {"503": 1, "TimeoutError": 1}
    assert result.by_exit["3"].p50_ms == pytest.approx(50)
    assert (result.generator_cpu_ms, result.server_cpu_ms) == (5.0, 100.0)
    assert result.lateness_p99_ms is None


def test_an_open_loop_tells_how_late_it_was_itself() -> None:
    result = summarise(recorded(), Usage(0.05), offered_per_s=5.0)
    assert result.lateness_p99_ms == pytest.approx(1.0)
    assert result.server_cpu_ms is None


def test_a_run_without_an_answer_is_a_result_too() -> None:
    result = summarise(Recorded((Sample(0, 0, 1, 0, error="TimeoutError"),), 1.0), Usage(0.1), clients=1)
    assert (result.requests, result.latency, result.throughput_per_s) == (0, None, 0.0)


def test_a_result_survives_json() -> None:
    result = summarise(recorded(), Usage(0.05, 1.0, 1000), clients=4)
    assert strict_json.loads(LoadResult, strict_json.dumps(result), "here") == result
