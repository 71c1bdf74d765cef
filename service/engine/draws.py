"""Which images are audited: a lottery when they are let in, and what became of those drawn, in the order of the draw.

An audited image goes on to the last exit after it was answered, in a place of its own: it takes none from newcomers.
"""

import threading
from collections import deque
from collections.abc import Callable
from secrets import SystemRandom
from typing import Literal

from service.types import Thresholds

_CHANCE = SystemRandom().random

Found = Literal["agreed", "disagreed", "left_out"]

# Draws that ended and were not looked at yet. More than that come together only where nobody looks: a disk that hangs.
_MOST_ENDED = 10_000


class Draw:
    """One image of the lottery, which leaves by `thresholds`. `found` is settled when it has ended: None where that was
    before any exit had spoken, so that it tells nothing; `left_out` where it is not known what the last exit says, or
    something else than the thresholds decided."""

    def __init__(self, thresholds: Thresholds, freed: Callable[[], None]) -> None:
        self.thresholds = thresholds
        self.found: Found | None = None
        self.has_ended = False
        self.last_label: int | None = None
        self._freed = freed
        self._left_with: int | None = None

    @property
    def has_left(self) -> bool:
        """Whether it goes on, or went on, after its answer."""
        return self._left_with is not None

    def left(self, label: int) -> None:
        """It was answered with this label at an early exit, and goes on."""
        self._left_with = label

    def reached_last(self, label: int) -> None:
        """What the last exit says; who was not answered before agrees with it."""
        self.last_label = label
        self.found = "agreed" if self._left_with in (None, label) else "disagreed"

    def end(self, *, looked_at: bool) -> None:
        """Nothing is held of it any more. `looked_at`: whether any exit has spoken. Called once."""
        if self.found is None and looked_at:
            self.found = "left_out"
        self.has_ended = True
        self._freed()


class Lottery:
    """Draws a `share` (0..1) of all images, whatever they show; at most `places` at once. Thread-safe.

    Who is drawn while every place is taken is skipped, which `skipped` is told: that depends on those before, never on
    the image itself.
    """

    def __init__(
        self, share: float, places: int, skipped: Callable[[], None], chance: Callable[[], float] = _CHANCE
    ) -> None:
        self._share = share if places else 0.0
        self._places = places
        self._chance = chance
        self._lock = threading.Lock()
        self._draws: deque[Draw] = deque()
        self._skipped = skipped
        self.pending = 0

    def draw(self, thresholds: Thresholds) -> Draw | None:
        """For an image that is let in, and that nothing but these thresholds should decide."""
        if self._chance() >= self._share:
            return None
        with self._lock:
            if self.pending < self._places and len(self._draws) < _MOST_ENDED:
                self.pending += 1
                draw = Draw(thresholds, self._freed)
                self._draws.append(draw)
                return draw
        self._skipped()
        return None

    def take_ended(self) -> list[Draw]:
        """Those that ended, up to the first that has not: who is quicker is not looked at earlier, since an image that
        leaves early and one that does not are not equally quick."""
        with self._lock:
            ended = []
            while self._draws and self._draws[0].has_ended:
                ended.append(self._draws.popleft())
            return ended

    def _freed(self) -> None:
        with self._lock:
            self.pending -= 1
