"""Puts in force what the controller of `auto` decides: looks at the load, several times a second.

An image keeps the thresholds that it was let in under; a switch is for those that come after it. Every replica steers
by its own load, within the one budget of all.
"""

import logging
from collections.abc import Callable, Sequence

from service.engine.admission import Admission
from service.engine.auto import Controller, Look
from service.engine.budget import Budget, InForce
from service.engine.catalogue import Resolved
from service.engine.costs import Lanes, together_s
from service.engine.lateness import Mix
from service.metrics import Metrics
from service.types import Clock

LOOK_EVERY_S = 0.1


class Steering:
    """Of one service, by one thread.

    `work_s` says how long the engine needs for so many images inside, with the `lanes` of its devices.
    """

    def __init__(
        self,
        budget: Budget,
        admission: Admission,
        work_s: Callable[[int], float],
        lanes: Sequence[Lanes],
        *,
        clock: Clock,
        metrics: Metrics,
        log: logging.Logger,
    ) -> None:
        self._budget = budget
        self._admission = admission
        self._work_s = work_s
        self._lanes = tuple(lanes)
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._controller: Controller | None = None
        self._revision = 0
        self._objective_s = 0.0
        self._since_s = 0.0
        self._offered = 0
        self._late = 0

    def answered(self, seconds: float) -> None:
        """An image was answered so long after its request came. One from before the last switch says nothing of it."""
        if self._controller is not None and self._clock() - seconds >= self._since_s:
            self._late += seconds > self._objective_s

    def look(self) -> None:
        """Switch if need be; of no effect under other forms of budget, and while a fallback stands in for this one."""
        in_force = self._budget.in_force
        if not in_force.points or in_force.instead is not None:
            self._controller = None
            return
        if self._controller is None or in_force.revision != self._revision:
            self._controller = self._begin(in_force)
        point = in_force.points[self._controller.decide(self._seen(in_force))]
        if point != in_force.resolved and self._budget.operate(in_force.revision, point):
            self._since_s = self._clock()
            self._tell(in_force, point)

    def _begin(self, in_force: InForce) -> Controller:
        goal = in_force.request.auto
        assert goal is not None, "only `auto` has points to choose from"
        self._revision = in_force.revision
        self._objective_s = goal.p99_ms / 1000
        self._since_s = self._clock()
        self._offered = self._admission.offered
        self._late = 0
        return Controller(self._objective_s, len(in_force.points))

    def _seen(self, in_force: InForce) -> Look:
        """Since the last look."""
        offered, late = self._admission.offered - self._offered, self._late
        inside = self._admission.inside
        self._offered += offered
        self._late = 0
        return Look(
            now_s=self._clock(),
            offered=offered,
            late=late,
            inside=inside,
            backlog_s=self._work_s(inside),
            work_s=together_s(lanes.newcomer_s for lanes in self._lanes),
            points=[Mix(_shares(point), self._lanes) for point in in_force.points],
        )

    def _tell(self, before: InForce, point: Resolved) -> None:
        is_up = before.points.index(point) > before.points.index(before.resolved)
        self._metrics.auto_switched("up" if is_up else "down")
        self._log.info(
            "operating point changed by load",
            extra={
                "revision": before.revision,
                "was": before.resolved.number,
                "now": point.number,
                "profile": point.profile,
            },
        )


def _shares(point: Resolved) -> tuple[float, ...]:
    assert point.measured is not None and point.measured.exit_shares is not None, "the catalogue offers no others"
    return point.measured.exit_shares
