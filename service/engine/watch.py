"""Whether the engine still finishes its batches: a batch that takes many times its cost is one that never ends."""

from collections.abc import Callable, Sequence
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
    """A batch in work: one object a batch, told apart by identity. `device`: its name, where there are several."""

    stage: int
    images: int
    limit_s: float
    device: str = ""

    def __str__(self) -> str:
        return f"stage {self.stage} with {self.images} images{self.device and f' on {self.device}'}"


def stall_limit_s(cost_s: float, least_s: float) -> float:
    """Longer than this, a batch counts as one that never ends: 20 times its cost, and at least `least_s`."""
    return max(least_s, STALL_FACTOR * cost_s)


class StallWatch:
    """Looks at what the engine runs, from another thread, several times a second."""

    def __init__(self, running: Callable[[], Sequence[Running]], clock: Clock) -> None:
        self._running = running
        self._clock = clock
        self._seen_for_s: dict[Running, float] = {}
        self._looked_s = clock()

    def look(self) -> str | None:
        """What is wrong, or None while all is well."""
        now_s = self._clock()
        passed_s = min(now_s - self._looked_s, _LONGEST_LOOK_S)
        self._looked_s = now_s
        before = self._seen_for_s
        self._seen_for_s = {batch: before[batch] + passed_s if batch in before else 0.0 for batch in self._running()}
        for batch, seconds in self._seen_for_s.items():
            if seconds > batch.limit_s:
                return f"{batch} has not ended after {seconds:.1f} s, the limit is {batch.limit_s:.1f} s"
        return None
