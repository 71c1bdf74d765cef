"""States at rest on one device, in the order of last use, and slots there that are to be released."""

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from service.backends.base import Slot

if TYPE_CHECKING:
    from service.engine.kept import Work


class Resting:
    """Of one device; slots are its own, and another device's of the same number are others. For `KeptWork` alone, whose
    lock is held in every call."""

    def __init__(self) -> None:
        self._slots: OrderedDict[Work, Slot] = OrderedDict()
        self._released: list[Slot] = []

    def __contains__(self, work: "Work") -> bool:
        return work in self._slots

    @property
    def states(self) -> int:
        return len(self._slots)

    @property
    def slots(self) -> int:
        """Those that it has: at rest, or about to be released."""
        return len(self._slots) + len(self._released)

    @property
    def oldest(self) -> "Work | None":
        """That of the longest rest."""
        return next(iter(self._slots), None)

    def due_s(self, keep_s: float) -> float | None:
        """When the next of its slots is to be released; a time that is past where one waits for that."""
        if self._released:
            return -math.inf
        return None if self.oldest is None else self.oldest.used_s + keep_s

    def put(self, work: "Work", slot: Slot) -> None:
        self._slots[work] = slot

    def use(self, work: "Work") -> None:
        """It is the latest again, where it rests here."""
        if work in self._slots:
            self._slots.move_to_end(work)

    def take(self, work: "Work") -> Slot:
        return self._slots.pop(work)

    def let_go(self, work: "Work") -> bool:
        """Its slot is to be released; False where it does not rest here."""
        slot = self._slots.pop(work, None)
        if slot is not None:
            self._released.append(slot)
        return slot is not None

    def take_released(self) -> list[Slot]:
        released, self._released = self._released, []
        return released

    def take_all(self) -> list[Slot]:
        slots = [*self._released, *self._slots.values()]
        self._released.clear()
        self._slots.clear()
        return slots

    def take_one_released(self) -> Slot | None:
        return self._released.pop() if self._released else None
