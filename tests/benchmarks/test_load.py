"""Load: when requests are sent, what their latency counts from, and that nothing runs without bounds."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.connection import Target, raw_request
from benchmarks.load import NOT_SENT, Limits, Recorded, arrivals, closed_loop, open_loop
from tests.benchmarks.fake_server import FakeServer, ok, serving

Loop = Callable[[Target], "asyncio.Future[Recorded]"]


def run(server: FakeServer, go: Callable[[Target], "object"]) -> Recorded:
    async def session() -> Recorded:
        async with serving(server) as target:
            recorded = await go(target)  # type: ignore[misc] # A coroutine function's result.
            assert isinstance(recorded, Recorded)
            return recorded

    return asyncio.run(session())


def closed(server: FakeServer, clients: int, limits: Limits) -> Recorded:
    return run(
        server,
        lambda target: closed_loop(target, [raw_request(target, b"photo")], clients, limits, _no, lambda *_: None),
    )


def opened(server: FakeServer, rate: float, limits: Limits) -> Recorded:
    return run(
        server, lambda target: open_loop(target, [raw_request(target, b"photo")], rate, 1, limits, _no, lambda *_: None)
    )


def _no() -> None:
    pass


@given(rate=st.floats(1, 500), seconds=st.floats(0.1, 20), seed=st.integers(0, 2**32 - 1))
def test_arrivals_are_in_order_within_the_time_and_the_same_for_a_seed(rate: float, seconds: float, seed: int) -> None:
    times = list(arrivals(rate, seconds, seed))
    assert times == sorted(times)
    assert all(0 < time < seconds for time in times)
    assert times == list(arrivals(rate, seconds, seed))


def test_gaps_between_arrivals_are_exponential() -> None:
    gaps = np.diff(list(arrivals(100.0, 200.0, 7)))
    assert np.mean(gaps) == pytest.approx(0.01, rel=0.03)
    # Memoryless: spread as large as the mean, and 1/e of the gaps longer than it.
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.05)
    assert np.mean(gaps > np.mean(gaps)) == pytest.approx(np.exp(-1), abs=0.02)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        list(arrivals(0.0, 1.0, 0))


def test_clients_of_a_closed_loop_have_one_request_each_on_its_way() -> None:
    server = FakeServer(delay_s=lambda _: 0.005)
    recorded = closed(server, 3, Limits(seconds=0.4, warmup_s=0.1))
    assert server.most_at_once == 3
    assert {sample.status for sample in recorded.samples} == {200}
    assert {(sample.exit, sample.gmacs) for sample in recorded.samples} == {(2, 0.5)}
    assert 0 < len(recorded.samples) < len(server.bodies), "warm-up is sent, and not counted"
    assert recorded.seconds == pytest.approx(0.4)


def test_a_server_that_stalls_is_not_forgiven_the_requests_it_held_up() -> None:
    """Of requests that were due during the stall each waited for what was left of it, though none was sent late."""
    stall_s = 0.4
    gate: list[float] = []

    def delay_s(_: int) -> float:
        now = asyncio.get_running_loop().time()
        gate.append(now)
        return max(0.0, gate[0] + 0.3 + stall_s - now) if now > gate[0] + 0.3 else 0.0

    recorded = opened(FakeServer(delay_s=delay_s), 200.0, Limits(seconds=0.9, warmup_s=0.0))
    held_up = [sample for sample in recorded.samples if 0.35 < sample.due_s < 0.45]
    assert len(held_up) > 5
    assert all(sample.done_s - sample.due_s > stall_s / 2 for sample in held_up)


def test_latency_counts_from_the_schedule_when_the_generator_itself_was_late() -> None:
    async def session() -> Recorded:
        async with serving(FakeServer()) as target:
            load = asyncio.ensure_future(
                open_loop(target, [raw_request(target, b"x")], 100.0, 1, Limits(0.5, 0.0), _no, lambda *_: None)
            )
            await asyncio.sleep(0.2)
            _block_the_event_loop(0.15)
            return await load

    recorded = asyncio.run(session())
    late = max(recorded.samples, key=lambda sample: sample.sent_s - sample.due_s)
    assert late.sent_s - late.due_s > 0.05
    assert late.done_s - late.due_s >= late.sent_s - late.due_s


def _block_the_event_loop(seconds: float) -> None:
    import time

    time.sleep(seconds)


def test_an_open_loop_keeps_no_more_on_its_way_than_it_may() -> None:
    server = FakeServer(delay_s=lambda _: 0.3)
    recorded = opened(server, 200.0, Limits(seconds=0.3, warmup_s=0.0, in_flight=5))
    assert server.most_at_once == 5
    assert sum(sample.error == NOT_SENT for sample in recorded.samples) > 20


@pytest.mark.parametrize("loop", ["closed", "open"])
def test_it_ends_after_so_many_requests(loop: str) -> None:
    server = FakeServer()
    limits = Limits(seconds=30.0, warmup_s=0.0, requests=25)
    recorded = closed(server, 4, limits) if loop == "closed" else opened(server, 500.0, limits)
    assert len(recorded.samples) == len(server.bodies) == 25
    assert recorded.seconds < 5


def test_both_edges_are_called_also_when_requests_run_out_while_warming_up() -> None:
    edges: list[int] = []

    async def session() -> Recorded:
        async with serving(FakeServer()) as target:
            limits = Limits(seconds=5.0, warmup_s=5.0, requests=3)
            return await closed_loop(
                target, [raw_request(target, b"x")], 1, limits, lambda: edges.append(1), lambda *_: None
            )

    assert asyncio.run(session()).samples == ()
    assert len(edges) == 2


def test_a_server_that_hangs_up_is_an_error_of_that_request_alone() -> None:
    server = FakeServer(reply=lambda number: b"" if number == 3 else ok())
    recorded = closed(server, 1, Limits(seconds=10.0, warmup_s=0.0, requests=8))
    assert [sample.error for sample in recorded.samples] == [None] * 3 + ["ConnectionResetError"] + [None] * 4


def test_an_answer_that_does_not_come_is_given_up() -> None:
    server = FakeServer(delay_s=lambda number: 60.0 if number == 0 else 0.0)
    recorded = closed(server, 1, Limits(seconds=5.0, warmup_s=0.0, requests=3, timeout_s=0.2))
    assert [sample.error for sample in recorded.samples] == ["TimeoutError", None, None]


def test_nobody_listening_is_no_busy_loop() -> None:
    async def session() -> Recorded:
        async with serving(FakeServer()) as target:
            pass
        limits = Limits(seconds=0.5, warmup_s=0.0)
        return await closed_loop(target, [raw_request(target, b"x")], 1, limits, _no, lambda *_: None)

    recorded = asyncio.run(session())
    assert {sample.error for sample in recorded.samples} == {"ConnectionRefusedError"}
    assert len(recorded.samples) < 10


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}", 503, None),
        (ok(b"<html>"), 0, "not JSON"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, None),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 200, None),
        (b"nonsense\r\n\r\n", 0, "ConnectionError"),
    ],
)
def test_what_an_answer_counts_as(answer: bytes, status: int, error: str | None) -> None:
    recorded = closed(FakeServer(reply=lambda _: answer), 1, Limits(seconds=5.0, warmup_s=0.0, requests=2))
    assert [(sample.status, sample.error) for sample in recorded.samples] == [(status, error)] * 2
