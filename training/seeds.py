"""Random numbers as pure functions of what they are for, so that a resumed run draws what an uninterrupted one would.

No global generator is read or written. numpy's generators are used, not torch's, because they take all of the key
(the CPU generator of torch keeps 32 bits of its seed) and draw from a beta distribution.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
IntArray = NDArray[np.int64]


def rng(purpose: str, *key: int) -> Rng:
    """A generator for `purpose` ("shuffle", "augment" ...) and non-negative numbers such as (seed, step, rank)."""
    tag = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([tag, *key])))


def epoch_order(n: int, seed: int, epoch: int) -> IntArray:
    """The order (n,) in which an epoch visits the training images: a permutation of 0..n-1."""
    return rng("shuffle", seed, epoch).permutation(n).astype(np.int64)


def steps_per_epoch(n: int, batch: int, world: int = 1) -> int:
    """Whole global batches in an epoch; the rest, fewer than `batch * world` images, is left out of that epoch."""
    return n // (batch * world)


def step_indices(order: IntArray, step: int, batch: int, rank: int = 0, world: int = 1) -> IntArray:
    """What process `rank` of `world` trains on at `step` (from 0) of an epoch: (batch,) of `order`.

    Together the processes see, in rank order, exactly what one process with a batch of `batch * world` sees.
    """
    if not 0 <= step < steps_per_epoch(len(order), batch, world):
        raise ValueError(f"step {step} is outside the epoch's {steps_per_epoch(len(order), batch, world)} steps")
    start = (step * world + rank) * batch
    return order[start : start + batch]
