"""What several devices are for, in virtual time: as many images a second as all of them together can compute, equal or
not, through the fleet, its schedulers and what they choose.

Costs and exits are those of `test_goodput.py`.
"""

import heapq
from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest

from models.policy import ExitMeasure
from service.backends.base import Slot
from service.engine.batching import BatchLimits
from service.engine.fleet import Fleet
from service.engine.job import Job
from service.engine.kept import KEEP_NOTHING, KeptWork
from service.engine.scheduler import Scheduler
from service.metrics import Metrics
from service.types import ExitRule
from tests.service.cascades import SIZE_PX, FakeBackend, FakeOutput, quiet_log, sure_at
from tests.service.engine.test_goodput import BATCH, COSTS_S, exits, measured

RULE = ExitRule((0.9, 0.9), 3)
IMAGES = 1500


class Site:
    """Devices side by side, each `slowness` times as slow as measured, and so many images inside at any time.

    Of the devices whose next round is due, the earliest has it; the clock is its own while it computes.
    """

    def __init__(self, slowness: Sequence[float], in_flight: int) -> None:
        self.now_s = 0.0
        self.answered = 0
        self.free_s = [0.0] * len(slowness)
        self.batches: list[list[int]] = [[] for _ in slowness]
        self._leaves_at = exits(0)
        self._order = count()
        self._coming: list[tuple[float, int]] = [(0.0, next(self._order)) for _ in range(in_flight)]
        metrics = Metrics("fake", "0", 3)
        kept = KeptWork(KEEP_NOTHING, exits=3, clock=lambda: self.now_s, metrics=metrics, devices=len(slowness))
        self._schedulers = [
            Scheduler(
                Timed(self, number, each),
                ExitMeasure("max_softmax", (1.0,) * 3),
                BatchLimits(BATCH),
                clock=lambda: self.now_s,
                metrics=metrics,
                log=quiet_log(),
                kept=kept,
                device=number,
            )
            for number, each in enumerate(slowness)
        ]
        for scheduler, each in zip(self._schedulers, slowness, strict=True):
            for stage, seconds in enumerate(COSTS_S, start=1):
                scheduler.costs.seed(stage, {images: each * batch_s for images, batch_s in seconds.items()})
        self.fleet = Fleet(self._schedulers, kept)

    def run(self) -> float:
        """Images a second."""
        while self.answered < IMAGES:
            number = min(range(len(self.free_s)), key=lambda number: (self.free_s[number], not self._has_work(number)))
            self.now_s = self.free_s[number]
            while self._coming and self._coming[0][0] <= self.now_s:
                heapq.heappop(self._coming)
                self._arrive()
            if self._has_work(number):
                self._schedulers[number].round()
                self.free_s[number] = self.now_s
            else:
                later = [at_s for at_s in (*self.free_s, *(at_s for at_s, _ in self._coming)) if at_s > self.now_s]
                self.free_s[number] = min(later)
        return IMAGES / self.now_s

    def _has_work(self, number: int) -> bool:
        return self.fleet._devices[number].promised > 0

    def _arrive(self) -> None:
        job = Job(
            RULE,
            arrived_s=self.now_s,
            deadline_s=None,
            priority=5,
            deliver=lambda _: self._answer(),
            released=lambda: None,
        )
        self.fleet.submit(job, np.full((3, SIZE_PX, SIZE_PX), next(self._leaves_at), np.uint8))

    def _answer(self) -> None:
        self.answered += 1
        heapq.heappush(self._coming, (self.now_s, next(self._order)))


class Timed(FakeBackend):
    """An image's kind is the exit that it leaves at."""

    def __init__(self, site: Site, number: int, slowness: float) -> None:
        super().__init__(sure_at({1: 1, 2: 2, 3: 3}))
        self._site = site
        self._number = number
        self._slowness = slowness
        self._costs = measured()

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        self._site.now_s += self._slowness * self._costs.seconds(stage, len(slots))
        self._site.batches[self._number].append(len(slots))
        return super().run(stage, slots, lane)


def images_per_s(*slowness: float) -> float:
    return Site(slowness, in_flight=64 * len(slowness)).run()


@pytest.mark.parametrize("slowness", [(1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 3.0), (2.0, 0.5, 1.0)])
def test_together_they_do_what_each_would_do_alone(slowness: tuple[float, ...]) -> None:
    alone = sum(images_per_s(each) for each in slowness)
    assert images_per_s(*slowness) == pytest.approx(alone, rel=0.04)


def test_with_few_inside_the_quick_one_gets_more_and_neither_is_idle() -> None:
    site = Site((1.0, 3.0), in_flight=16)
    site.run()
    quick, slow = (sum(batches) for batches in site.batches)
    assert 2 < quick / slow < 4
