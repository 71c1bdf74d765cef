"""The engine in process, without HTTP, beside simpler ways to run the same cascade on the same backend.

Where each image leaves is scripted through `max_exit` of its own rule, so that the stages really run. Every way takes
the images in the same order with the same batch size, and whatever it computes is counted, to the last image.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

import numpy as np

from models.bundle import Bundle
from models.policy import ExitMeasure
from models.preprocess import Pixels
from service.backends.base import Slot, StageBackend, StageOutput
from service.engine.batching import BatchLimits
from service.engine.counts import EngineCounts
from service.engine.job import Job, Outcome
from service.engine.scheduler import Scheduler
from service.engine.warmup import warm_up as measure_costs
from service.errors import ServiceError
from service.types import Clock, ExitRule

_LOOK_EVERY_S = 5.0


@dataclass(frozen=True)
class Work:
    """Images in order: `exits[i]` is where image i leaves, `pixels[i % len(pixels)]` what it shows."""

    exits: tuple[int, ...]
    pixels: tuple[Pixels, ...]

    def pixels_of(self, index: int) -> Pixels:
        return self.pixels[index % len(self.pixels)]


@dataclass(frozen=True)
class StageUse:
    """What one way of running did with one stage: seconds inside `run`, batches, images."""

    seconds: float
    batches: int
    images: int


@dataclass(frozen=True)
class Ran:
    """One way, once. `inside_seconds`: while at least one lane was inside `run`; None where that was not noted."""

    images: int
    seconds: float
    stages: dict[str, StageUse]
    inside_seconds: float | None = None

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds


def scripted(shares: Sequence[float], images: int, seed: int, size_px: int) -> Work:
    """Exits in exactly these shares (rounded; the last takes the rest), shuffled. Pixels are noise.

    Raises `ValueError` unless the shares are of 1.
    """
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares {', '.join(f'{share:g}' for share in shares)} must be of 1 altogether")
    counts = [round(share * images) for share in shares[:-1]]
    counts.append(images - sum(counts))
    exits = np.repeat(np.arange(1, len(shares) + 1), counts)
    random = np.random.default_rng(seed)
    random.shuffle(exits)
    pixels = random.integers(0, 256, (16, 3, size_px, size_px), dtype=np.uint8)
    return Work(tuple(map(int, exits)), tuple(pixels))


class Watched:
    """A backend that notes how long each stage ran, and for how many images; it computes through the one it wraps.

    Lanes that run at once each have their own seconds; `inside_s` counts such time once.
    """

    def __init__(self, inner: StageBackend) -> None:
        self._inner = inner
        self.name = inner.name
        self.stages = inner.stages
        self.lanes = inner.lanes
        self.slots = inner.slots
        self.slot_bytes = inner.slot_bytes
        self.buckets = inner.buckets
        self._lock = threading.Lock()
        self._seconds: dict[int, float] = defaultdict(float)
        self._batches: dict[int, int] = defaultdict(int)
        self._images: dict[int, int] = defaultdict(int)
        self._lanes_inside = 0
        self._inside_since_s = 0.0
        self.inside_s = 0.0

    @property
    def slots_in_use(self) -> int:
        return self._inner.slots_in_use

    def begin(self, pixels: Pixels) -> Slot:
        return self._inner.begin(pixels)

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> StageOutput:
        with self._lock:
            started_s = time.perf_counter()
            if self._lanes_inside == 0:
                self._inside_since_s = started_s
            self._lanes_inside += 1
        try:
            return self._inner.run(stage, slots, lane)
        finally:
            with self._lock:
                ended_s = time.perf_counter()
                self._lanes_inside -= 1
                if self._lanes_inside == 0:
                    self.inside_s += ended_s - self._inside_since_s
                self._seconds[stage] += ended_s - started_s
                self._batches[stage] += 1
                self._images[stage] += len(slots)

    def release(self, slot: Slot) -> None:
        self._inner.release(slot)

    def forget(self) -> None:
        """Begin to count anew; for when no lane is inside."""
        for counts in (self._seconds, self._batches, self._images):
            counts.clear()
        self.inside_s = 0.0

    def use(self) -> dict[str, StageUse]:
        return {
            str(stage): StageUse(self._seconds[stage], self._batches[stage], self._images[stage])
            for stage in sorted(self._batches)
        }


def warm_up(backend: StageBackend, pixels: Pixels, batch: int) -> None:
    """Every stage once with a full batch."""
    slots = [backend.begin(pixels) for _ in range(batch)]
    for stage in range(1, backend.stages + 1):
        backend.run(stage, slots).keep(range(batch))
    for slot in slots:
        backend.release(slot)


def run_engine(
    bundle: Bundle, backend: StageBackend, work: Work, batch: int, in_flight: int, clock: Clock = time.monotonic
) -> Ran:
    """Through the scheduler, with `in_flight` images inside from the start and as long as there are more to come.

    The scheduler sees time by `clock`; the seconds that are told are real ones.
    """
    watched = Watched(backend)
    exits = backend.stages
    scheduler = Scheduler(
        watched,
        ExitMeasure("max_softmax", (1.0,) * exits),
        BatchLimits(batch),
        clock=clock,
        metrics=_counts(bundle, exits),
        log=logging.getLogger("dvt"),
    )
    left = iter(enumerate(work.exits))
    failures: list[ServiceError] = []
    done = threading.Event()
    answered = 0

    def submit_next() -> None:
        index_and_exit = next(left, None)
        if index_and_exit is None:
            return
        index, leaves_at = index_and_exit
        job = Job(
            ExitRule((None,) * (exits - 1), leaves_at),
            arrived_s=clock(),
            deadline_s=None,
            priority=0,
            deliver=deliver,
            released=lambda: None,
        )
        scheduler.submit(job, work.pixels_of(index))

    def deliver(outcome: Outcome) -> None:
        """By one lane at a time, so that counting needs no lock."""
        nonlocal answered
        if isinstance(outcome, ServiceError):
            failures.append(outcome)
        answered += 1
        submit_next()
        if answered == len(work.exits):
            done.set()

    # It knows what its stages cost before it takes work, as when it serves.
    measure_costs(watched, scheduler.costs, work.pixels[0].shape[-1], clock=clock, began=lambda _: True)
    watched.forget()
    for _ in range(in_flight):
        submit_next()
    started_s = time.perf_counter()
    scheduler.start()
    while not done.wait(_LOOK_EVERY_S):
        if not scheduler.alive:
            raise RuntimeError(f"the engine ended after {answered} of {len(work.exits)} images: {scheduler.failure}")
    seconds = time.perf_counter() - started_s
    scheduler.stop()
    if failures:
        raise RuntimeError(f"{len(failures)} images failed, the first with: {failures[0].detail}")
    return Ran(len(work.exits), seconds, watched.use(), watched.inside_s)


def _counts(bundle: Bundle, exits: int) -> EngineCounts:
    """The service's own metrics, since what they cost is the engine's too; none where their library is not there."""
    try:
        from service.metrics import Metrics
    except ModuleNotFoundError:
        return Uncounted()
    return Metrics(bundle.name, bundle.weights_sha256, exits)


class Uncounted:
    """Metrics that nobody reads."""

    def batch(self, stage: int, images: int, seconds: float) -> None: ...

    def image_at(self, stage: int, seconds: float) -> None: ...

    def batch_failed(self, stage: int) -> None: ...

    def dropped(self) -> None: ...

    def kept_evicted(self, what: Literal["state", "answer"], why: Literal["needed", "full", "old"]) -> None: ...


def run_whole_batches(backend: StageBackend, work: Work, batch: int) -> Ran:
    """A batch runs, all of it, until its last image leaves: what a static batching server makes of a cascade."""
    return _in_batches(backend, work, batch, lambda exits, stage: range(len(exits)) if max(exits) > stage else ())


def run_shrinking_batches(backend: StageBackend, work: Work, batch: int) -> Ran:
    """Whoever leaves is taken out of its batch, but batches are never merged."""
    return _in_batches(backend, work, batch, lambda exits, stage: [row for row, at in enumerate(exits) if at > stage])


def _in_batches(
    backend: StageBackend, work: Work, batch: int, goes_on: Callable[[Sequence[int], int], Sequence[int]]
) -> Ran:
    """`goes_on(exits, stage)`: which rows of the present batch, leaving at `exits`, the next stage computes."""
    watched, turn = Watched(backend), threading.Lock()
    free_lanes: SimpleQueue[int] = SimpleQueue()
    for number in range(backend.lanes):
        free_lanes.put(number)

    def run_batch(first: int) -> None:
        lane = free_lanes.get()
        exits: Sequence[int] = work.exits[first : first + batch]
        with turn:
            slots = [watched.begin(work.pixels_of(first + row)) for row in range(len(exits))]
        inside = slots
        for stage in range(1, watched.stages + 1):
            output = watched.run(stage, inside, lane)
            rows = goes_on(exits, stage)
            if not rows:
                break
            output.keep(rows)
            inside, exits = [inside[row] for row in rows], [exits[row] for row in rows]
        with turn:
            for slot in slots:
                watched.release(slot)
        free_lanes.put(lane)

    started_s = time.perf_counter()
    with ThreadPoolExecutor(watched.lanes) as lanes:
        for _ in lanes.map(run_batch, range(0, len(work.exits), batch)):
            pass
    return Ran(len(work.exits), time.perf_counter() - started_s, watched.use(), watched.inside_s)
