"""What was computed for answers, kept for those who come back for more: exits reached, and the state to go on from.

There is one `Work` for each image computed. It is found by the ids of the results that it gave, for refining them, and
by the content of its file, for the same image again. Its state lies in the slot that it was computed in: *resting*
while nobody goes on with it. A newcomer that finds no free slot takes the one that rested longest on his device.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.backends.base import Slot
from service.engine.counts import EngineCounts
from service.engine.resting import Resting
from service.types import Clock, ContentKey, ExitTaken

# Of a result's id, a work and an exit, beside its probabilities: what CPython takes for them, rounded up.
_ID_BYTES = 400
_WORK_BYTES = 1200
_EXIT_BYTES = 500


Standing = Literal["resting", "running", "gone"]
"""Of a work's state: there to go on from, being gone on with, or neither."""


@dataclass(eq=False)
class Work:
    """One image's, told apart by identity. `exits` are in order and without a gap; whoever reads them has a snapshot.

    `is_running`: a job, or an audit, holds the state and goes on with it. `is_wanted`: not given up. `device`: the one
    that it is computed on, where its state is and stays.
    """

    key: ContentKey | None
    exits: tuple[ExitTaken, ...] = ()
    is_running: bool = True
    is_wanted: bool = True
    ids: int = 0
    used_s: float = 0.0
    device: int = 0
    waiting: list[Callable[[], None]] = field(default_factory=list)

    @property
    def reach(self) -> tuple[int, int]:
        """What it can answer: so many classes at each of its exits, and so many exits."""
        return min((taken.ranking.held for taken in self.exits), default=0), len(self.exits)

    @property
    def nbytes(self) -> int:
        """In memory, about."""
        return _WORK_BYTES + sum(map(_exit_bytes, self.exits))


@dataclass(frozen=True)
class Remembered:
    """What a result's id stands for: the work that it came from, and the exit that it was answered with last."""

    work: Work
    exit_number: int
    owner: str
    used_s: float


@dataclass(frozen=True)
class KeptLimits:
    """`keep_s`: how long an answer can be refined, 0 if never; `slots`: most states at rest on each device;
    `answers_bytes`: most memory for everything else; `finds_content`: whether the same image again is known."""

    keep_s: float
    slots: int
    answers_bytes: int
    finds_content: bool

    @property
    def keeps_state(self) -> bool:
        return self.keep_s > 0 and self.slots > 0

    @property
    def keeps_anything(self) -> bool:
        return self.keep_s > 0 or self.finds_content


KEEP_NOTHING = KeptLimits(keep_s=0.0, slots=0, answers_bytes=0, finds_content=False)


class KeptWork:
    """Of a cascade of so many exits, computed on so many devices (numbered from 0). Thread-safe; a slot is only ever
    handed to a lane of its device, which releases it: `rest`, `take_oldest` and `take_released` are for that."""

    def __init__(
        self, limits: KeptLimits, *, exits: int, clock: Clock, metrics: EngineCounts, devices: int = 1
    ) -> None:
        self.limits = limits
        self._exits = exits
        self._clock = clock
        self._metrics = metrics
        self._lock = threading.Lock()
        # Each in the order of last use, which is that of ending too: what rests or is refinable is so for one time.
        self._works: OrderedDict[Work, None] = OrderedDict()
        self._works_bytes = 0
        self._resting = tuple(Resting() for _ in range(devices))
        self._ids: OrderedDict[str, Remembered] = OrderedDict()
        self._by_content: dict[ContentKey, Work] = {}

    # For any thread.

    def begin(self, key: ContentKey | None) -> Work | None:
        """For an image that is computed from its start; None where nothing is kept."""
        return Work(key) if self.limits.keeps_anything else None

    def find(self, key: ContentKey) -> Work | None:
        """What is known of the same image."""
        with self._lock:
            return self._by_content.get(key)

    def answer(self, result_id: str, owner: str) -> Remembered | None:
        """What the id stands for; None alike for one that is unknown, too old, or another owner's."""
        with self._lock:
            found = self._ids.get(result_id)
            if found is None or found.owner != owner or not found.work.is_wanted or self._is_old(found.used_s):
                return None
            return found

    def remember(self, result_id: str, work: Work, exit_number: int, owner: str) -> None:
        """An answer was given from this work. Of no effect where that was given up meanwhile."""
        now_s = self._clock()
        with self._lock:
            if not work.is_wanted:
                return
            if self.limits.keep_s > 0:
                work.ids += 1
                self._forget_id(result_id)
                self._ids[result_id] = Remembered(work, exit_number, owner, now_s)
            if work.key is not None:
                self._find_by_content(work.key, work)
            if not self._is_found(work):
                self._give_up(work)
                return
            work.used_s = now_s
            if work not in self._works:
                self._works_bytes += work.nbytes
            self._works[work] = None
            self._works.move_to_end(work)
            self._resting[work.device].use(work)
            self._make_room()

    def forget(self, work: Work) -> None:
        """Whoever it was computed for has left. Of no effect where an answer was given from it."""
        with self._lock:
            if work not in self._works:
                work.is_wanted = False

    def standing(self, work: Work) -> Standing:
        with self._lock:
            if work.is_running:
                return "running"
            return "resting" if work in self._resting[work.device] and not self._is_old(work.used_s) else "gone"

    def claim(self, work: Work) -> Slot | None:
        """Its state, for a job that goes on with it; None where that is gone, or somebody else does already."""
        with self._lock:
            resting = self._resting[work.device]
            if work not in resting or self._is_old(work.used_s):
                return None
            work.is_running = True
            return resting.take(work)

    def make_way(self, work: Work) -> None:
        """Its state goes, where it rests: newcomers have every place on its device."""
        with self._lock:
            if self._resting[work.device].let_go(work):
                self._metrics.kept_evicted("state", "needed")

    def watch(self, work: Work, seen: int, changed: Callable[[], None]) -> bool:
        """Have `changed` called once, from any thread, when it comes to another exit than the `seen` ones, or to rest;
        False, and nothing, where it has by now."""
        with self._lock:
            if not work.is_running or len(work.exits) != seen:
                return False
            work.waiting.append(changed)
            return True

    # For the lanes of a device, one at a time: whoever has their turn.

    def wants_state(self, work: Work | None) -> bool:
        """Whether what the next stage takes is to be written into its slot before it rests."""
        return work is not None and work.is_wanted and self.limits.keeps_state

    def reached(self, work: Work, taken: ExitTaken | None) -> None:
        """It has come to its next exit; None for one whose numbers are not finite: such work is not kept."""
        with self._lock:
            if taken is None:
                self._give_up(work)
            else:
                taken = taken.alone()
                work.exits = (*work.exits, taken)
                if work in self._works:  # Room for it is made when it is answered with.
                    self._works_bytes += _exit_bytes(taken)
            calls, work.waiting = work.waiting, []
        for call in calls:
            call()

    def rest(self, work: Work, slot: Slot | None) -> Slot | None:
        """Nobody goes on with it now; `slot` holds its next stage's input. Gives it back where it is not to be kept."""
        now_s = self._clock()
        with self._lock:
            work.is_running = False
            if slot is not None and self.wants_state(work) and len(work.exits) < self._exits:
                work.used_s = now_s
                if work in self._works:
                    self._works.move_to_end(work)
                resting = self._resting[work.device]
                resting.put(work, slot)
                slot = None
                while resting.states > self.limits.slots and (oldest := resting.oldest) is not None:
                    resting.let_go(oldest)
                    self._metrics.kept_evicted("state", "full")
            calls, work.waiting = work.waiting, []
        for call in calls:
            call()
        return slot

    def take_oldest(self, device: int = 0) -> Slot | None:
        """A slot for somebody who comes in there; None where nothing rests."""
        with self._lock:
            resting = self._resting[device]
            released, oldest = resting.take_one_released(), resting.oldest
            if released is not None or oldest is None:
                return released
            self._metrics.kept_evicted("state", "needed")
            return resting.take(oldest)

    def take_released(self, device: int = 0) -> Sequence[Slot]:
        """Slots whose time is over, or whose work was given up."""
        with self._lock:
            self._sweep()
            return self._resting[device].take_released()

    def take_all(self, device: int = 0) -> Sequence[Slot]:
        """At the end."""
        with self._lock:
            return self._resting[device].take_all()

    def due_s(self, device: int = 0) -> float | None:
        """When there is a slot to be released: at once where there is, else when the next state's time is over."""
        with self._lock:
            return self._resting[device].due_s(self.limits.keep_s)

    @property
    def slots(self) -> int:
        """Those that it has, on all devices: at rest, or about to be released."""
        return sum(resting.slots for resting in self._resting)

    @property
    def answers_bytes(self) -> int:
        """What everything but the states takes, about."""
        return self._works_bytes + len(self._ids) * _ID_BYTES

    # With the lock held.

    def _is_old(self, used_s: float) -> bool:
        return self._clock() - used_s >= self.limits.keep_s

    def _sweep(self) -> None:
        """Let go of all whose time is over."""
        for resting in self._resting:
            while (oldest := resting.oldest) is not None and self._is_old(oldest.used_s):
                resting.let_go(oldest)
                self._metrics.kept_evicted("state", "old")
        while self._ids and self._is_old(next(iter(self._ids.values())).used_s):
            self._forget_id(next(iter(self._ids)))

    def _make_room(self) -> None:
        self._sweep()
        while self._works and self.answers_bytes > self.limits.answers_bytes:
            oldest_work, oldest_id = next(iter(self._works)), next(iter(self._ids), None)
            if oldest_id is not None and self._ids[oldest_id].used_s < oldest_work.used_s:
                self._forget_id(oldest_id)
            else:
                self._give_up(oldest_work)
            self._metrics.kept_evicted("answer", "full")

    def _forget_id(self, result_id: str) -> None:
        found = self._ids.pop(result_id, None)
        if found is not None:
            work = found.work
            work.ids -= 1
            if not self._is_found(work):
                self._give_up(work)

    def _find_by_content(self, key: ContentKey, work: Work) -> None:
        """Of several the one that tells of most classes is found, of those the deepest: were it the deepest alone, who
        needs more classes would have the image computed every time."""
        before = self._by_content.get(key)
        if before is None or before.reach <= work.reach:
            self._by_content[key] = work
            if before is not None and not self._is_found(before):
                self._give_up(before)

    def _is_found(self, work: Work) -> bool:
        return work.ids > 0 or (work.key is not None and self._by_content.get(work.key) is work)

    def _give_up(self, work: Work) -> None:
        """Its ids stand for nothing any more, and age as they are."""
        work.is_wanted = False
        if work in self._works:
            del self._works[work]
            self._works_bytes -= work.nbytes
        if work.key is not None and self._by_content.get(work.key) is work:
            del self._by_content[work.key]
        self._resting[work.device].let_go(work)


def _exit_bytes(taken: ExitTaken) -> int:
    return _EXIT_BYTES + taken.ranking.nbytes
