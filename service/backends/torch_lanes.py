"""What a torch device is given work by: lanes, each computing one batch at a time.

On a GPU a lane is a stream of its own. So while one lane's batch is computed, another lane's thread chooses the next,
has it gathered and launched; the host waits once a batch, for its results. What a batch needs of others, images on
their way and state that another lane handed on, is waited for by the device. On a CPU, which has no streams, nothing
of this takes any time or memory.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Numbers(IntEnum):
    """What a lane's numbers are for; each has a place of its own."""

    BATCH = 0
    """Slots of the batch to compute."""
    ROWS = 1
    """Rows of the computed batch that stay."""
    STAYERS = 2
    """Slots of those rows."""


class Lane:
    """Work is given to it within `working`, by one thread at a time; others wait there for their turn."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    @contextmanager
    def working(self, after: Sequence["Lane"] = ()) -> Iterator[None]:
        """What is given to this lane within comes after all that those lanes have marked."""
        with self._turn, torch.inference_mode():
            yield

    def mark(self) -> None:
        """What was given to this lane so far is what others wait for."""

    def numbers(self, purpose: Numbers, values: Sequence[int]) -> Tensor:
        """(n,) on the device, until the next numbers of that purpose."""
        return torch.tensor(values, dtype=torch.int64)

    def fetch(self, tensor: Tensor) -> NDArray[np.floating]:
        """Its values, once they are computed: an array of its own."""
        values: NDArray[np.floating] = tensor.numpy().copy()
        return values


class StreamLane(Lane):
    """On a CUDA device. Numbers and results pass through pinned memory, so that no copy makes the host wait."""

    def __init__(self, device: torch.device, max_batch: int) -> None:
        super().__init__()
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it without types
        # Created by the first record; until then it counts as passed.
        self._marked, self._fetched = (torch.cuda.Event() for _ in range(2))  # type: ignore[no-untyped-call]
        shape = (len(Numbers), max_batch)
        self._pinned_numbers = pinned(shape, torch.int64)
        self._host_numbers = self._pinned_numbers.numpy()
        self._numbers = torch.empty(shape, dtype=torch.int64, device=device)
        self._max_batch = max_batch
        self._pinned_results: dict[tuple[torch.dtype, torch.Size], Tensor] = {}

    @contextmanager
    def working(self, after: Sequence[Lane] = ()) -> Iterator[None]:
        # A thread works for one device. Were it another's at first, leaving the stream would open that one as well.
        torch.cuda.set_device(self.stream.device)
        with super().working(), torch.cuda.stream(self.stream):
            for lane in after:
                if isinstance(lane, StreamLane) and lane is not self:
                    self.stream.wait_event(lane._marked)
            yield

    def mark(self) -> None:
        self._marked.record(self.stream)

    def numbers(self, purpose: Numbers, values: Sequence[int]) -> Tensor:
        """In the same memory each time, where a captured graph finds them."""
        if purpose != Numbers.BATCH:
            # The last batch's were waited for with its results; these may still be on their way, in theory.
            self._marked.synchronize()
        count = len(values)
        self._host_numbers[purpose, :count] = values
        on_device = self._numbers[purpose, :count]
        on_device.copy_(self._pinned_numbers[purpose, :count], non_blocking=True)
        return on_device

    def fetch(self, tensor: Tensor) -> NDArray[np.floating]:
        """Waits for all that this lane was given."""
        here = self._pinned_for(tensor)[: len(tensor)]
        here.copy_(tensor, non_blocking=True)
        self._fetched.record(self.stream)
        self._fetched.synchronize()
        values: NDArray[np.floating] = here.numpy().copy()
        return values

    def _pinned_for(self, tensor: Tensor) -> Tensor:
        key = (tensor.dtype, tensor.shape[1:])
        if key not in self._pinned_results:
            self._pinned_results[key] = pinned((self._max_batch, *tensor.shape[1:]), tensor.dtype)
        return self._pinned_results[key]


def pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory of this machine that a CUDA device copies from and to by itself."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def open_lane(device: torch.device, max_batch: int) -> Lane:
    """For batches of at most so many."""
    return StreamLane(device, max_batch) if device.type == "cuda" else Lane()
