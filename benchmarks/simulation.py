"""The service under load in simulated time: what is offered, admitted, queued, batched and steered, but not computed.

Admission, queues, `next_batch`, the costs' estimate, budget and controller are those that serve; what is simulated is
the clock, the arrivals, and a device whose batches take what was measured. Where an image leaves follows from its
*hardness*, uniform in 0..1: at the first exit at which the shares of its operating point, added up, reach it. The same
images come at the same times under every budget.
"""

import heapq
import logging
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, count
from pathlib import Path

from benchmarks.measure import percentile
from benchmarks.traffic import Traffic
from models.profiles import Profiles
from service.engine.admission import Admission, AdmissionLimits
from service.engine.batching import BatchLimits, Choice, next_batch
from service.engine.budget import Budget
from service.engine.catalogue import BudgetRequest, Catalogue, Resolved
from service.engine.costs import Lanes, StageCosts
from service.engine.job import Job
from service.engine.lateness import Mix
from service.engine.queues import StageQueues
from service.engine.steering import LOOK_EVERY_S, Steering
from service.errors import OverloadedError
from service.metrics import Metrics
from service.types import ExitRule


@dataclass(frozen=True)
class Device:
    """`batch_s[k - 1]`: seconds of a batch of stage k, by its size; so many at once in `lanes`."""

    batch_s: tuple[dict[str, float], ...]
    lanes: int
    max_batch: int

    def costs(self) -> StageCosts:
        costs = StageCosts(len(self.batch_s), self.max_batch)
        for stage, seconds in enumerate(self.batch_s, start=1):
            costs.seed(stage, {int(images): each for images, each in seconds.items()})
        return costs

    def capacity_per_s(self, exit_shares: tuple[float, ...]) -> float:
        """Images that it can compute where they leave in these shares."""
        return 1 / Mix(exit_shares, (Lanes(self.costs(), self.lanes),)).work_s


@dataclass(frozen=True)
class Switch:
    """The controller went to a point that costs so much, and is right so often."""

    at_s: float
    mean_gmacs: float
    top1: float


@dataclass(frozen=True)
class Answered:
    """One image: when it came, how long it took, and under which point it was let in."""

    arrived_s: float
    seconds: float
    top1: float
    gmacs: float


@dataclass
class Simulated:
    """One run."""

    answered: list[Answered] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)

    @property
    def offered(self) -> int:
        return len(self.answered) + len(self.refused_s)

    def latency_s(self, share: float) -> float:
        return percentile([image.seconds for image in self.answered], share)

    def late_share(self, objective_s: float) -> float:
        return sum(image.seconds > objective_s for image in self.answered) / len(self.answered)

    @property
    def top1(self) -> float:
        """What the report split measured at the points that images were let in under, on average."""
        return sum(image.top1 for image in self.answered) / len(self.answered)

    @property
    def gmacs(self) -> float:
        return sum(image.gmacs for image in self.answered) / len(self.answered)

    @property
    def most_switches_a_minute(self) -> int:
        """In any 60 s."""
        times = [switch.at_s for switch in self.switches]
        return max((sum(at <= other < at + 60 for other in times) for at in times), default=0)


class _Image(Job):
    """A job that knows where it will leave."""

    def __init__(self, point: Resolved, hardness: float, arrived_s: float, released: Callable[[], None]) -> None:
        super().__init__(
            ExitRule(point.thresholds, len(point.thresholds) + 1),
            arrived_s=arrived_s,
            deadline_s=None,
            priority=5,
            deliver=lambda _: None,
            released=released,
        )
        measured = point.measured
        assert measured is not None and measured.exit_shares is not None, "nothing is known of this point's exits"
        self.measured = measured
        self.exit = 1 + sum(hardness > reached for reached in accumulate(measured.exit_shares[:-1]))


class Simulation:
    """One service on `device` under one budget. Raises what resolving the budget raises."""

    def __init__(
        self, profiles: Profiles, device: Device, request: BudgetRequest, folder: Path, queue_limit: int = 256
    ) -> None:
        exits = len(profiles.exits)
        log = logging.getLogger("dvt.simulation")
        log.setLevel(logging.ERROR)
        metrics = Metrics("simulated", profiles.weights_sha256, exits)
        self.now_s = 0.0
        self.ran = Simulated()
        self._device = device.costs()
        self._costs = device.costs()
        self._queues = StageQueues(exits, queue_limit)
        self._limits = BatchLimits(device.max_batch)
        self._idle = self._lanes = device.lanes
        self._admission = Admission(AdmissionLimits(queue_limit, queue_limit, 1, 1), self._work_s)
        catalogue = Catalogue(
            exits, profiles, stage_seconds=lambda: [self._costs.seconds(stage, 1) for stage in range(1, exits + 1)]
        )
        self._budget = Budget(catalogue, bundle="simulated", first_profile="full", ceiling="", folder=folder, log=log)
        self._budget.put(request, by="simulation")
        self._steering = Steering(
            self._budget,
            self._admission,
            self._work_s,
            (Lanes(self._costs, device.lanes),),
            clock=lambda: self.now_s,
            metrics=metrics,
            log=log,
        )
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def run(self, traffic: Traffic, capacity_per_s: float, seed: int) -> Simulated:
        """Until the last image is answered."""
        hardness = random.Random(seed + 1)
        for at_s in traffic.arrivals(capacity_per_s, seed):
            self._at(at_s, partial(self._arrive, hardness.random()))
        for number in range(int(traffic.seconds / LOOK_EVERY_S)):
            self._at(number * LOOK_EVERY_S, self._look)
        while self._events:
            self.now_s, _, action = heapq.heappop(self._events)
            action()
        return self.ran

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), action))

    def _arrive(self, hardness: float) -> None:
        try:
            with self._admission.request():
                self._admission.acquire(1)
        except OverloadedError:
            self.ran.refused_s.append(self.now_s)
            return
        image = _Image(self._budget.in_force.point, hardness, self.now_s, self._admission.release)
        self._queues.put(1, image, self.now_s)
        self._dispatch()

    def _look(self) -> None:
        before = self._budget.in_force.point
        self._steering.look()
        after = self._budget.in_force.point
        if after is not before:
            assert after.measured is not None, "the controller chooses measured points"
            self.ran.switches.append(Switch(self.now_s, after.measured.mean_gmacs, after.measured.top1))

    def _dispatch(self) -> None:
        while self._idle and len(self._queues):
            limits = self._limits.shared(len(self._queues), self._idle)
            choice = next_batch(self.now_s, self._queues.waiting, limits, self._costs)
            self._queues.take(choice.stage, choice.jobs)
            self._idle -= 1
            seconds = self._device.seconds(choice.stage, len(choice.jobs))
            self._at(self.now_s + seconds, partial(self._complete, choice, seconds))

    def _complete(self, choice: Choice[Job], seconds: float) -> None:
        self._idle += 1
        self._costs.observe(choice.stage, len(choice.jobs), seconds)
        staying = 0
        for image in choice.jobs:
            assert isinstance(image, _Image), "only such were queued"
            if image.exit > choice.stage:
                self._queues.put(choice.stage + 1, image, self.now_s)
                staying += 1
            else:
                self._answer(image)
        self._costs.observe_stay(choice.stage, len(choice.jobs), staying)
        self._dispatch()

    def _answer(self, image: _Image) -> None:
        image.release()
        took_s = self.now_s - image.arrived_s
        self._steering.answered(took_s)
        self.ran.answered.append(Answered(image.arrived_s, took_s, image.measured.top1, image.measured.mean_gmacs))

    def _work_s(self, images: int) -> float:
        waiting = self._queues.lengths
        waiting[0] += max(0, images - sum(waiting))
        return self._costs.work_s(waiting) / self._lanes


def simulate(
    profiles: Profiles,
    device: Device,
    request: BudgetRequest,
    traffic: Traffic,
    *,
    capacity_per_s: float,
    queue_limit: int = 256,
    seed: int = 0,
) -> Simulated:
    """Same arguments, same outcome. Raises what resolving the budget raises."""
    with tempfile.TemporaryDirectory(prefix="dvt-simulation-") as folder:
        simulation = Simulation(profiles, device, request, Path(folder), queue_limit)
        return simulation.run(traffic, capacity_per_s, seed)
