"""A cap on what hard images cost the others: who makes the deep stages work beyond his part of it, leaves early.

Images can be made never to be confident (Hong et al., "A Panda? No, It's a Sloth: Slowdown Attacks on Adaptive
Multi-Exit Neural Networks", 2021). Nobody can tell such an image from a hard one, but one can tell who sends them.

Times are of computation, and forgotten by halves: every `half_life_s` the past counts half. The cap is on the share of
the stages after the first in all of it. Below the cap nothing happens. Above it every owner may have an equal part of
what the cap allows; who has more leaves at his best exit so far, and nobody leaves for what another has taken.
"""

import threading
from collections import defaultdict

from service.types import Clock

# Of all computation remembered: an owner with less is forgotten.
_NEGLIGIBLE = 1e-6
# So many owners are looked through for those that can be forgotten.
_MANY_OWNERS = 1024
# Then all is scaled anew, far from where floats end.
_MOST_HALVES = 40


class DeepGuard:
    """Counts by owner. `cap` is 0..1; 1 caps nothing. Thread-safe: one counts for the engines of all devices."""

    def __init__(self, cap: float, clock: Clock, half_life_s: float = 10.0) -> None:
        self._cap = cap
        self._clock = clock
        self._half_life_s = half_life_s
        self._began_s = clock()
        self._lock = threading.Lock()
        # Instead of making the past count less, what comes counts ever more: only ratios matter.
        self._total = 0.0
        self._deep_total = 0.0
        self._deep: dict[str, float] = defaultdict(float)

    def charge(self, owner: str, stage: int, seconds: float) -> None:
        """An image's part of a batch that was computed; stages from 1."""
        if self._cap >= 1:
            return
        with self._lock:
            weighed = seconds * self._weight()
            self._total += weighed
            if stage > 1:
                self._deep_total += weighed
                self._deep[owner] += weighed
                if len(self._deep) > _MANY_OWNERS:
                    self._forget_who_stopped()

    def ends(self, owner: str) -> bool:
        """Whether an image of this owner goes no deeper now."""
        if self._cap >= 1:
            return False
        with self._lock:
            allowed = self._cap * self._total
            return self._deep_total > allowed and self._deep.get(owner, 0.0) > allowed / len(self._deep)

    # With the lock held.

    def _weight(self) -> float:
        halves = (self._clock() - self._began_s) / self._half_life_s
        if halves < _MOST_HALVES:
            return float(2.0**halves)
        self._began_s = self._clock()
        past = float(0.5 ** min(halves, 1000.0))
        self._total *= past
        self._deep_total *= past
        for owner in self._deep:
            self._deep[owner] *= past
        self._forget_who_stopped()
        return 1.0

    def _forget_who_stopped(self) -> None:
        least = _NEGLIGIBLE * self._total
        for owner in [owner for owner, deep in self._deep.items() if deep <= least]:
            self._deep_total -= self._deep.pop(owner)
