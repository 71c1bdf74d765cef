import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import series
from service.commands.load import Look, load_between, quantile_ms, read_look
from service.metrics import Metrics
from service.types import ExitReason


def served(metrics: Metrics, exit_number: int, latency_s: float, reason: ExitReason = "confident") -> None:
    metrics.request("POST", "/classify", 200)
    metrics.answered(exit_number, reason, latency_s, confidence=0.9)


def look_at(metrics: Metrics, at_s: float, answered: int = 0) -> Look:
    """With what so many answers have computed and saved."""
    text = metrics.render().decode()
    for name, gmacs in (("spent", 0.25), ("saved", 0.75)):
        text = text.replace(f"dvt_gmacs_{name}_total 0.0", f"dvt_gmacs_{name}_total {answered * gmacs}")
    return read_look(text, at_s)


def some_metrics() -> Metrics:
    metrics = Metrics("small", "a" * 64, 3)
    metrics.ask(series.READY, lambda: True)
    metrics.ask(series.IN_FLIGHT, lambda: 7)
    metrics.ask_each(series.QUEUED, {"1": lambda: 5, "2": lambda: 0, "3": lambda: 2})
    return metrics


def test_what_happened_between_two_looks_is_told_by_the_second() -> None:
    metrics = some_metrics()
    served(metrics, 1, 9.0)  # Long ago.
    before = look_at(metrics, 100.0, answered=1)
    for _ in range(3):
        served(metrics, 1, 0.004)
    served(metrics, 3, 0.2, "final")
    metrics.request("GET", "/metrics", 200)
    metrics.request("POST", "/feedback", 200)
    metrics.refusal("overloaded")
    load = load_between(before, look_at(metrics, 102.0, answered=5))
    assert (load.requests_per_s, load.images_per_s, load.refused_per_s) == (2.0, 2.0, 0.5)
    assert (load.queued, load.in_flight, load.saved, load.ready) == ((5, 0, 2), 7, 0.75, True)
    assert load.images_since_start == 5
    first, second, third = load.exits
    assert (first.share, second.share, third.share) == (0.75, 0.0, 0.25)
    assert first.p99_ms is not None and first.p99_ms <= 5, "the slow one of long ago does not count"
    assert second.p50_ms is None
    assert third.p50_ms is not None and 100 < third.p50_ms <= 250


def test_a_service_that_began_anew_counts_from_nothing() -> None:
    old, new = some_metrics(), some_metrics()
    for _ in range(10):
        served(old, 1, 9.0)
    served(new, 1, 0.004)
    load = load_between(look_at(old, 0.0), look_at(new, 1.0))
    assert (load.requests_per_s, load.images_per_s) == (1.0, 1.0)
    assert load.exits[0].p99_ms is not None and load.exits[0].p99_ms <= 5


def test_nothing_happened_is_no_division_by_it() -> None:
    look = look_at(some_metrics(), 1.0)
    load = load_between(look, look)
    assert (load.images_per_s, load.saved, load.exits[0].share) == (0.0, None, None)


@pytest.mark.parametrize("text", ["", "up 1\n", "dvt_ready{ 1\n", "<html>\n"])
def test_what_is_no_metrics_of_ours_is_told(text: str) -> None:
    with pytest.raises(ValueError):
        read_look(text, 0.0)


def test_above_the_highest_bound_it_is_that_bound() -> None:
    assert quantile_ms({0.1: 0, 1.0: 1, math.inf: 10}, 0.99) == 1000


@given(counts=st.lists(st.integers(0, 50), min_size=3, max_size=3), low=st.floats(0.01, 1), high=st.floats(0.01, 1))
def test_a_higher_quantile_is_never_lower_and_both_lie_within_the_bounds(
    counts: list[int], low: float, high: float
) -> None:
    bounds = (0.1, 1.0, math.inf)
    buckets = {bound: float(sum(counts[: at + 1])) for at, bound in enumerate(bounds)}
    values = [quantile_ms(buckets, quantile) for quantile in sorted((low, high))]
    if not sum(counts):
        assert values == [None, None]
        return
    first, second = values
    assert first is not None and second is not None
    assert 0 <= first <= second <= 1000
