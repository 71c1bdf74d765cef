"""What computes a stage. The engine moves slot numbers; a backend owns the memory behind them.

A job holds one slot from `begin` to `release`. The slot holds the image, and between stages what the last stage handed
on. Stages are numbered from 1.

Shapes: B batch, S input side in px, C classes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NewType, Protocol

import numpy as np
from numpy.typing import NDArray

from models.preprocess import Pixels

Slot = NewType("Slot", int)
"""A place for one image and what it carries from stage to stage. Opaque to the engine."""


Precision = Literal["float32", "bfloat16", "float16"]
"""Of weights, products and state, where a backend leaves the choice."""


class BackendError(ValueError):
    """A bundle cannot be computed here: what is missing, and the way out."""


BRIEF_CLASSES = 16
"""Most classes of a brief. Answers quote five unless asked for more, and are seldom asked for more than ten; so many
are 264 bytes an image, where the logits of 1000 classes are 4000."""


@dataclass(frozen=True)
class Brief:
    """What a device makes of a batch's logits, by its bundle's measure, so that they need not leave it: confidences
    (B,), and the best k of C classes (B, k) with their probabilities (B, k), the best first, of equals the lower one.

    In float64, in which thresholds are compared. Arrays of its own, which later batches leave alone.
    """

    confidences: NDArray[np.floating]
    probabilities: NDArray[np.floating]
    classes: NDArray[np.integer]
    of: int

    def tells(self, count: int) -> bool:
        """Whether it holds so many classes of each image, or all where there are fewer."""
        held: int = self.classes.shape[1]
        return held >= min(count, self.of)


class StageOutput(Protocol):
    """One computed batch; valid until the next `run` of the same lane, whose buffers may be the same."""

    @property
    def brief(self) -> Brief | None:
        """None where the host has the logits anyway."""
        ...

    @property
    def logits(self) -> NDArray[np.float32]:
        """(B, C). An array of its own, which later batches leave alone; where there is a brief, fetched when asked for,
        while the output is valid."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Write what the stage hands on into the slots of these rows of the batch, for their next stage.

        All in one go; the slots of other rows stay as they were. After the last stage there is nothing to write.
        """
        ...


class StageBackend(Protocol):
    """`begin` and `release` are called by one thread at a time, `run` and its output's `keep` by up to `lanes` at once,
    each with slots and a lane of its own."""

    @property
    def name(self) -> str:
        """What the operator reads in `GET /model`."""
        ...

    @property
    def stages(self) -> int:
        """K."""
        ...

    @property
    def lanes(self) -> int:
        """How many batches it computes at once without one slowing another down much."""
        ...

    @property
    def slots(self) -> int:
        """How many images can be inside at once."""
        ...

    @property
    def slots_in_use(self) -> int: ...

    @property
    def slot_bytes(self) -> int:
        """What one image needs at its costliest hand-over, where the old state and the new exist together."""
        ...

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes, ascending: those to warm up and to measure; the last is the largest that `run` takes.

        A backend of static shapes pads a batch to the next of them; the others compute any size up to the last.
        """
        ...

    def begin(self, pixels: Pixels) -> Slot:
        """A slot with an image (3, S, S) in it, before stage 1. There are as many as `slots`, never more."""
        ...

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> StageOutput:
        """Compute one stage for a batch of distinct slots. Changes nothing in them, also when it raises.

        `lane`: whose batch it is, below `lanes`; a lane computes one at a time.
        Raises whatever the runtime raises; the batch can then be run again in parts.
        """
        ...

    def release(self, slot: Slot) -> None:
        """The image is done with: its slot may be used again."""
        ...


@dataclass(frozen=True)
class Capacity:
    """The operator's limits: images inside at once, bytes of state altogether, images of one batch."""

    images: int
    state_bytes: int
    max_batch: int

    def slots(self, slot_bytes: int) -> int:
        """How many slots of that size fit. Raises `BackendError` where not even one does."""
        fit = self.state_bytes // slot_bytes
        if fit < 1:
            raise BackendError(
                f"one image needs {slot_bytes} bytes of state, the limit is {self.state_bytes} "
                "(DVT_STATE_BYTES); raise it"
            )
        return min(self.images, fit)

    @property
    def buckets(self) -> tuple[int, ...]:
        """1, 2, 4, ... and the largest batch."""
        powers = [1 << exponent for exponent in range(self.max_batch.bit_length()) if 1 << exponent < self.max_batch]
        return (*powers, self.max_batch)


class SlotPool:
    """Which slots are free. The one released last is used first: memory that was never needed stays untouched."""

    def __init__(self, slots: int) -> None:
        self._free = [Slot(number) for number in reversed(range(slots))]
        self._taken: set[Slot] = set()

    @property
    def in_use(self) -> int:
        return len(self._taken)

    def take(self) -> Slot:
        assert self._free, "more images were let in than there are slots"
        slot = self._free.pop()
        self._taken.add(slot)
        return slot

    @contextmanager
    def taking(self) -> Iterator[Slot]:
        """A slot to write an image into; it goes back if that fails."""
        slot = self.take()
        try:
            yield slot
        except BaseException:
            self.give_back(slot)
            raise

    def give_back(self, slot: Slot) -> None:
        assert slot in self._taken, "a slot was released twice"
        self._taken.remove(slot)
        self._free.append(slot)
