"""Whether the engine still finishes its batches: a batch that takes many times its cost is one that never ends."""

from collections.abc import Callable
from dataclasses import dataclass

from service.types import Clock

STALL_FACTOR = 20
# The first batches of a size may compile kernels for minutes.
WARM_UP_LIMIT_S = 600.0
# Between two looks no more than this counts: when the whole process was stopped (a paused container, a sleeping
# laptop), it was not the engine that stood still.
_LONGEST_LOOK_S = 1.0


@dataclass(frozen=True, eq=False)
class Running:
    """A batch in work: one object a batch, told apart by identity."""

    stage: int
    images: int
    limit_s: float

    def __str__(self) -> str:
        return f"stage {self.stage} with {self.images} images"


def stall_limit_s(cost_s: float, least_s: float) -> float:
    """Longer than this, a batch counts as one that never ends: 20 times its cost, and at least `least_s`."""
    return max(least_s, STALL_FACTOR * cost_s)


class StallWatch:
    """Looks at what the engine runs, from another thread, several times a second."""

    def __init__(self, running: Callable[[], Running | None], clock: Clock) -> None:
        self._running = running
        self._clock = clock
        self._seen: Running | None = None
        self._seen_for_s = 0.0
        self._looked_s = clock()

    def look(self) -> str | None:
        """What is wrong, or None while all is well."""
        now_s, running = self._clock(), self._running()
        if running is None or running is not self._seen:
            self._seen, self._seen_for_s = running, 0.0
        else:
            self._seen_for_s += min(now_s - self._looked_s, _LONGEST_LOOK_S)
        self._looked_s = now_s
        if running is None or self._seen_for_s <= running.limit_s:
            return None
        return f"{running} has not ended after {self._seen_for_s:.1f} s, the limit is {running.limit_s:.1f} s"
