"""Degrade before shedding: which point of a range is in force, so that nearly all images are answered in time.

A pure function of what was seen: no clock, no thread, nothing of the service (docs/adr/0008 says why these rules).
- **Down at once**, where an image that comes now, or within a second, would be late: by the work that waits, the rate
  at which more comes, and what the stages were measured to cost. To the dearest point that bears the load, else the
  floor.
- **Down**, where more images were late than may be although that was not foreseen. Less of the capacity is counted on
  from then on.
- **Up** only after a minute without a switch, to the dearest point that bears the highest load of that minute with room
  to spare. So a steady load sees at most one switch a minute, and when load falls the ceiling is back a minute later.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.lateness import Mix

HOLD_S = 60.0
"""After any switch, none upwards for so long."""
LATE_SHARE = 0.01
"""Of images that may take longer than the objective: it is a p99."""

# A point is left where its load makes more than the first share late, gone down to within the second, up to within the
# third: the gaps keep noise in the measured rate from switching back and forth.
_LEAVE, _DOWN, _UP = LATE_SHARE, LATE_SHARE / 5, LATE_SHARE / 20
# Of what is foreseen and of what was seen: so many late images are more than bad luck.
_LATE_IMAGES = 5.0
# A crowd has come where work of more than this share of the objective waits, and a load as steady as the last seconds',
# or as the one that the point was chosen for, would let so much wait with a smaller chance than that.
_CROWD, _CHANCE = 0.5, 1e-5
# A switch downwards is to make up for what is late within so long, and has that time to do so, unless by then images
# are later by this share of the objective.
_EFFECT_S, _WORSE = 1.0, 0.2
# Within a minute of a switch down it takes so many times more to make another, of one up a crowd.
_AGAIN = 5.0
# Averages of the rate: one that sees a crowd come (after some images, however short a time they took), one that does
# not see noise.
_FAST_S, _FAST_IMAGES, _SLOW_S = 0.5, 30, 10.0
# Two looks are never so close; a clock may be.
_LEAST_S = 0.001
# Below this share of the minute's peak the load is falling.
_FALLEN = 0.7
# Of the capacity that the costs of stages amount to, so much is counted on: batches are not all full, threads wait for
# each other, estimates lag. A misjudgement lowers it; it comes back by 2 % a minute.
_TRUST, _LEAST_TRUST, _MISJUDGED, _REGAINED = 0.95, 0.3, 0.9, 0.02
# How much harder images are than those that the shares were measured on; not looked at while those let in under another
# point are still inside.
_HARDER_S, _SETTLED_S = 10.0, 3.0
_LEAST_HARDER, _MOST_HARDER = 0.5, 2.0


@dataclass(frozen=True)
class Look:
    """What was seen since the last look, and how things stand.

    `offered`: images that came, refused ones too. `late`: images that were answered too late, of those that came under
    the present point. `backlog_s`: until those `inside` are done, by the exits that were lately taken; `work_s`: what a
    mean image takes by them. `points`: where images leave by each, from floor to ceiling, at the present costs.
    """

    now_s: float
    offered: int
    late: int
    inside: int
    backlog_s: float
    work_s: float
    points: Sequence[Mix]


class Controller:
    """Of one range of `points` and one objective; `at` is the point in force, 0 the floor. Begins at the ceiling."""

    def __init__(self, objective_s: float, points: int) -> None:
        assert objective_s > 0 and points >= 1
        self.at = points - 1
        self._objective_s = objective_s
        self._began_s: float | None = None
        self._seen_s = 0.0
        self._switched_s = -math.inf
        self._was_up = False
        self._late_then_s = 0.0
        self._chosen_for = math.inf
        self._fast = self._slow = 0.0
        # The highest slow rates of the last minute, each higher than all later ones.
        self._peaks: deque[tuple[float, float]] = deque()
        # Images of about the last minute; since the last switch those foreseen to be late, and those that were.
        self._came = self._foreseen = self._late = 0.0
        self._since = 0
        self._harder = 1.0
        self._trust = _TRUST

    def decide(self, look: Look) -> int:
        """The point to be in force from now on."""
        self._notice(look)
        if self._is_overloaded(look):
            self._go_down(look)
        elif look.now_s - self._switched_s >= HOLD_S:
            self._go_up(look)
        return self.at

    def _notice(self, look: Look) -> None:
        if self._began_s is None:
            self._began_s = self._seen_s = look.now_s
        passed_s, self._seen_s = max(0.0, look.now_s - self._seen_s), look.now_s
        if passed_s > 0:
            rate = look.offered / max(passed_s, _LEAST_S)
            self._fast += (rate - self._fast) * _news(max(passed_s / _FAST_S, look.offered / _FAST_IMAGES))
            # At first the mean of all that was seen.
            weight = max(_news(passed_s / _SLOW_S), passed_s / (look.now_s - self._began_s))
            self._slow += (rate - self._slow) * weight
        while self._peaks and self._peaks[-1][1] <= self._slow:
            self._peaks.pop()
        self._peaks.append((look.now_s, self._slow))
        while self._peaks[0][0] < look.now_s - HOLD_S:
            self._peaks.popleft()
        point, kept = look.points[self.at], 1 - _news(passed_s / HOLD_S)
        self._since += look.offered
        self._came = self._came * kept + look.offered
        self._late = self._late * kept + look.late
        takes_effect = look.now_s - self._switched_s < _EFFECT_S
        is_late = not takes_effect and self._late_by_s(look, point) > 0
        self._foreseen = self._foreseen * kept + is_late * look.offered
        self._trust = min(_TRUST, self._trust * (1 + _REGAINED * passed_s / 60))
        if point.work_s > 0 and look.now_s - self._switched_s >= _SETTLED_S:
            harder = min(max(look.work_s / point.work_s, _LEAST_HARDER), _MOST_HARDER)
            self._harder += (harder - self._harder) * _news(passed_s / _HARDER_S)

    @property
    def _bad_luck(self) -> float:
        """So many late images of the last minute are within the objective."""
        return max(_LATE_IMAGES, LATE_SHARE * self._came)

    def _is_overloaded(self, look: Look) -> bool:
        point, since_s = look.points[self.at], look.now_s - self._switched_s
        if not self._was_up and since_s < _EFFECT_S:
            return self._late_by_s(look, point) > self._late_then_s + _WORSE * self._objective_s
        backlog_s, steady_rate = self._backlog_s(look), self._counted(min(self._slow, self._chosen_for))
        if backlog_s > _CROWD * self._objective_s and point.wait_chance(steady_rate, backlog_s) < _CHANCE:
            return True
        if self._was_up and since_s < HOLD_S:
            return False
        rate, evidence = self._counted(self._slow), _AGAIN if since_s < HOLD_S else 1.0
        is_too_much = point.late_chance(rate, self._objective_s) > _LEAVE * evidence
        return is_too_much or max(self._late, self._foreseen) > self._bad_luck * evidence

    def _counted(self, rate_per_s: float) -> float:
        """The rate, with images as hard as the present ones on the share of capacity that is counted on."""
        return rate_per_s * self._harder / self._trust

    def _late_by_s(self, look: Look, point: Mix) -> float:
        """How late an image is that comes now; below 0 where it is in time."""
        path_s = point.nearly_all_s(self._slow * self._harder * point.work_s, LATE_SHARE)
        return self._backlog_s(look) + path_s - self._objective_s

    def _backlog_s(self, look: Look) -> float:
        """Right after a switch the exits that were lately taken are not those of the images that came since."""
        if look.now_s - self._switched_s >= _SETTLED_S:
            return look.backlog_s
        misjudged_s = look.work_s - self._harder * look.points[self.at].work_s
        return max(0.0, look.backlog_s - min(self._since, look.inside) * misjudged_s)

    def _go_down(self, look: Look) -> None:
        if self.at == 0:
            self._foreseen = self._late = 0.0  # Of no use here, and no reason to stay when the load has fallen.
            return
        is_unforeseen = self._late > self._bad_luck
        if is_unforeseen or (self._was_up and look.now_s - self._switched_s < HOLD_S):
            self._trust = max(_LEAST_TRUST, self._trust * _MISJUDGED)
        is_crowd = self._backlog_s(look) > _CROWD * self._objective_s
        self._chosen_for = max(self._fast, self._slow) if is_crowd else self._slow
        rate = self._counted(self._chosen_for)
        present_s = look.points[self.at].work_s
        for place in range(self.at - 1, 0, -1):
            point = look.points[place]
            if (
                point.work_s < present_s
                and point.late_chance(rate, self._objective_s) <= _DOWN
                and self._late_by_s(look, point) <= max(0.0, 1 - rate * point.work_s) * _EFFECT_S
            ):
                self._switch(look, place)
                return
        self._switch(look, 0)

    def _go_up(self, look: Look) -> None:
        peak = self._peaks[0][1]
        ceiling = len(look.points) - 1
        for place in range(ceiling, self.at, -1):
            point = look.points[place]
            bears = point.late_chance(self._counted(peak), self._objective_s) <= _UP
            if bears and self._late_by_s(look, point) <= 0:
                self._chosen_for = peak
                self._switch(look, place)
                return
            if self._slow < _FALLEN * peak:
                return  # Not halfway up while load falls: that would put off the ceiling by another minute.

    def _switch(self, look: Look, place: int) -> None:
        self._was_up = place > self.at
        self.at = place
        self._switched_s = look.now_s
        self._foreseen = self._late = 0.0
        self._since = 0
        self._late_then_s = max(0.0, self._late_by_s(look, look.points[place]))


def _news(memories: float) -> float:
    """Weight of what is new in an average, by how many times its memory that lasted."""
    return 1 - math.exp(-memories)
