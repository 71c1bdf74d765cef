"""Load on a server: a closed loop of clients, or an open one of Poisson arrivals.

In the open loop latency counts from the scheduled arrival, not from when the request could be sent: a server that
stalls is not forgiven the requests that it held up ("coordinated omission").
"""

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks.connection import Pool, Response, Target

NOT_SENT = "not sent"
"""More requests were on their way than the generator allows: the server has fallen behind for good."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a run. Requests due in the first `warmup_s` are sent, but not counted.

    `in_flight` bounds what an open loop has on its way at once; arrivals beyond it are errors, and not sent.
    """

    seconds: float
    warmup_s: float = 2.0
    requests: int = 1_000_000
    in_flight: int = 1024
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One request; seconds since the measured part began. `status` is 0, and `error` says why, without an answer.

    `exit`, `gmacs` and `point` (of the frontier, that decided) are None where the answer does not tell them.
    """

    due_s: float
    sent_s: float
    done_s: float
    status: int
    exit: int | None = None
    gmacs: float | None = None
    error: str | None = None
    point: int | None = None


@dataclass(frozen=True)
class Recorded:
    """A run: samples of the measured part, and how long it was."""

    samples: tuple[Sample, ...]
    seconds: float


Tick = Callable[[int, float], None]
"""Called now and then with the requests answered and the seconds gone since the start, warm-up included."""

Edge = Callable[[], None]
"""Called when the measured part begins, and when it ends."""


def arrivals(rate_per_s: float, seconds: float, seed: int) -> Iterator[float]:
    """Times of a Poisson process in [0, seconds): gaps are independent and exponential. Same seed, same times."""
    if rate_per_s <= 0:
        raise ValueError(f"the rate is {rate_per_s} requests/s, it must be above 0")
    random = np.random.default_rng(seed)
    now_s = 0.0
    while True:
        now_s += float(random.exponential(1 / rate_per_s))
        if now_s >= seconds:
            return
        yield now_s


class _Run:
    """What both loops share: photos in turn, one pool of connections, the samples so far."""

    def __init__(self, target: Target, requests: Sequence[bytes], limits: Limits, edge: Edge) -> None:
        self.limits = limits
        self.pool = Pool(target)
        self.samples: list[Sample] = []
        self.sent = 0
        self._requests = cycle(requests)
        self._edge = edge
        self._marked = 0
        self._start_s = time.monotonic()

    @property
    def now_s(self) -> float:
        """Seconds since the measured part began; negative while warming up."""
        return time.monotonic() - self._start_s - self.limits.warmup_s

    async def ask(self, due_s: float | None = None) -> Sample:
        """Send the next photo and note what came of it. Whoever calls counts it in `sent`, at once."""
        sent_s = self.now_s
        due_s = sent_s if due_s is None else due_s
        try:
            response = await self.pool.ask(next(self._requests), self.limits.timeout_s)
        except (OSError, TimeoutError) as error:
            sample = Sample(due_s, sent_s, self.now_s, 0, error=type(error).__name__)
        else:
            sample = _judged(due_s, sent_s, self.now_s, response)
        self.samples.append(sample)
        return sample

    def refuse(self, due_s: float) -> None:
        self.samples.append(Sample(due_s, due_s, self.now_s, 0, error=NOT_SENT))

    async def watch(self, tick: Tick) -> None:
        """Marks the edges of the measured part as they pass; runs until cancelled."""
        while True:
            self.mark(self.now_s)
            tick(len(self.samples), self.now_s + self.limits.warmup_s)
            coming = [edge_s - self.now_s for edge_s in (0.0, self.limits.seconds) if edge_s > self.now_s]
            await asyncio.sleep(min([0.25, *coming]))

    def mark(self, now_s: float) -> None:
        """Call `edge` for each edge that lies behind `now_s` and was not marked yet."""
        for edge_s in (0.0, self.limits.seconds)[self._marked :]:
            if now_s >= edge_s:
                self._edge()
                self._marked += 1


async def closed_loop(
    target: Target, requests: Sequence[bytes], clients: int, limits: Limits, edge: Edge, tick: Tick
) -> Recorded:
    """Each of `clients` sends its next request when it has its answer. Counted is what was answered in the window."""
    run = _Run(target, requests, limits, edge)

    async def client() -> None:
        while run.now_s < limits.seconds and run.sent < limits.requests:
            run.sent += 1
            sample = await run.ask()
            if sample.status == 0:
                await asyncio.sleep(0.1)  # Nobody listens, perhaps: no busy loop.

    seconds = await _until_done(run, asyncio.gather(*(client() for _ in range(clients))), tick)
    return Recorded(tuple(sample for sample in run.samples if 0 <= sample.done_s <= seconds), seconds)


async def open_loop(
    target: Target, requests: Sequence[bytes], rate_per_s: float, seed: int, limits: Limits, edge: Edge, tick: Tick
) -> Recorded:
    """Requests arrive, whether or not earlier ones are answered. Counted is what was due in the window."""
    run = _Run(target, requests, limits, edge)

    async def arrive() -> None:
        tasks: set[asyncio.Task[Sample]] = set()
        for at_s in arrivals(rate_per_s, limits.warmup_s + limits.seconds, seed):
            if run.sent >= limits.requests:
                break
            due_s = at_s - limits.warmup_s
            if (wait_s := due_s - run.now_s) > 0:
                await asyncio.sleep(wait_s)
            run.sent += 1
            if len(tasks) >= limits.in_flight:
                run.refuse(due_s)
                continue
            task = asyncio.create_task(run.ask(due_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)

    seconds = await _until_done(run, asyncio.ensure_future(arrive()), tick)
    return Recorded(tuple(sample for sample in run.samples if sample.due_s >= 0), seconds)


async def _until_done(run: _Run, work: "asyncio.Future[Any]", tick: Tick) -> float:
    """Wait for the loop's work; returns how many seconds the measured part had, fewer when requests ran out."""
    watcher = asyncio.create_task(run.watch(tick))
    try:
        await work
        if run.sent < run.limits.requests:
            await asyncio.sleep(max(0.0, run.limits.seconds - run.now_s))
        seconds = min(run.limits.seconds, run.now_s)
        run.mark(math.inf)
        return seconds
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        run.pool.close()


def _judged(due_s: float, sent_s: float, done_s: float, response: Response) -> Sample:
    """What an answer says about exit and cost, where it says it (other servers' answers do not)."""
    if response.status != 200:
        return Sample(due_s, sent_s, done_s, response.status)
    try:
        document = json.loads(response.body)
    except ValueError:
        return Sample(due_s, sent_s, done_s, 0, error="not JSON")
    results = document.get("results") if isinstance(document, dict) else None
    result = results[0] if isinstance(results, list) and results else {}
    if not isinstance(result, dict) or "exit" not in result:
        return Sample(due_s, sent_s, done_s, 200)
    point = document.get("budget", {}).get("point")
    return Sample(due_s, sent_s, done_s, 200, result["exit"]["number"], result["compute"]["gmacs"], point=point)
