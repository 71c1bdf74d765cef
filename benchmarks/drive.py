"""One run of load on a running server: from photos to a `LoadResult`."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.connection import Target
from benchmarks.load import Limits, Recorded, closed_loop, open_loop
from benchmarks.measure import LoadResult, Usage, summarise
from benchmarks.processes import Meter
from models.progress import Progress

Encode = Callable[[Target, bytes], bytes]
"""From a photo to the bytes of a request."""


@dataclass(frozen=True)
class Closed:
    """`clients` ask, each its next photo when it has its answer."""

    clients: int

    @property
    def title(self) -> str:
        return f"{self.clients} client{'s' if self.clients > 1 else ''}"


@dataclass(frozen=True)
class Open:
    """Poisson arrivals."""

    rate_per_s: float
    seed: int = 0

    @property
    def title(self) -> str:
        return f"{self.rate_per_s:g} requests/s"


Loop = Closed | Open


def drive(
    target: Target,
    photos: Sequence[bytes],
    encode: Encode,
    loop: Loop,
    limits: Limits,
    pid: int | None,
    label: str = "",
) -> LoadResult:
    """Runs for the time of `limits`, with progress on standard error. `pid` is the server's, if ours."""
    recorded, usage = record(target, photos, encode, loop, limits, pid, label)
    rate = loop.rate_per_s if isinstance(loop, Open) else None
    clients = loop.clients if isinstance(loop, Closed) else None
    return summarise(recorded, usage, clients=clients, offered_per_s=rate)


def record(
    target: Target,
    photos: Sequence[bytes],
    encode: Encode,
    loop: Loop,
    limits: Limits,
    pid: int | None,
    label: str = "",
) -> tuple[Recorded, Usage]:
    """The same, request by request."""
    requests = [encode(target, photo) for photo in photos]
    meter = Meter(pid)
    with Progress(f"{label}{loop.title}", unit="") as progress:
        total_s = math.ceil(limits.warmup_s + limits.seconds)
        shown_s = -1

        def tick(answered: int, gone_s: float) -> None:
            nonlocal shown_s
            if (second := min(int(gone_s), total_s)) > shown_s:
                shown_s = second
                progress.update(second, total_s, f"{answered:,} answered")

        recorded = asyncio.run(_run(target, requests, loop, limits, meter, tick))
    return recorded, meter.usage()


async def _run(
    target: Target,
    requests: Sequence[bytes],
    loop: Loop,
    limits: Limits,
    meter: Meter,
    tick: Callable[[int, float], None],
) -> Recorded:
    if isinstance(loop, Closed):
        return await closed_loop(target, requests, loop.clients, limits, meter, tick)
    return await open_loop(target, requests, loop.rate_per_s, loop.seed, limits, meter, tick)
