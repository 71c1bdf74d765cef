"""The deployment of one stage: each replica computes the batches that ingresses send, merged where several wait."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve

from deploy.ray_serve.autoscaling import BUSY, WORK
from deploy.ray_serve.cluster import fetch
from deploy.ray_serve.compute import Computed, StageComputer, State
from deploy.ray_serve.remote_stages import ImageRefs, ReplicaLostError
from models.bundle import Bundle
from service.backends.layout import state_layout
from service.settings import Settings, load_settings

# Share of a new measurement in the estimate.
_NEWS = 0.1


@dataclass(frozen=True)
class StageSource:
    """What is served: `bundle` of the settings, and `open_stage` of settings, bundle, stage (from 1) and CPUs.

    Ray sends these functions by their names to where replicas run.
    """

    name: str
    bundle: Callable[[Settings], Bundle]
    open_stage: Callable[[Settings, Bundle, int, float], StageComputer]


def hashes(bundle: Bundle) -> str:
    """What tells bundles apart."""
    return f"{bundle.weights_sha256}:{bundle.config_sha256}"


def _images(calls: Sequence[Sequence[ImageRefs]]) -> int:
    return sum(map(len, calls))


class Stage:
    """One replica. Warm when it is made; its computation has a thread of its own."""

    def __init__(self, source: StageSource, stage: int, cpus: float) -> None:
        settings = load_settings(os.environ).settings
        bundle = source.bundle(settings)
        self._computer = source.open_stage(settings, bundle, stage, cpus)
        self._thread = ThreadPoolExecutor(1, f"dvt-stage-{stage}")
        self._served = hashes(bundle)
        self._inside = 0
        self._computing = 0
        self._image_s = _warm_up(self._computer, bundle, stage, settings.max_batch)
        self._together.set_max_batch_size(settings.max_batch)

    async def compute(self, served: str, images: Sequence[ImageRefs]) -> AsyncIterator[NDArray[np.float32] | State]:
        """A batch of one ingress: its logits, then each image's state, each an object of its own.

        So who leaves here frees its state at once, and the ingress never loads what only the next stage needs.
        `served`: the hashes of the ingress's bundle. Raises `ReplicaLostError` where they are not those of this one, as
        while one bundle replaces another: features of one network mean nothing to another.
        """
        if served != self._served:
            raise ReplicaLostError("this replica serves another bundle")
        self._inside += len(images)
        try:
            computed = await self._together(images)
        finally:
            self._inside -= len(images)
        if isinstance(computed, Exception):
            raise computed
        yield computed.logits
        for state in computed.states:
            yield state

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.0, batch_size_fn=_images)  # type: ignore[untyped-decorator] # Ray has no types here.
    async def _together(self, calls: list[Sequence[ImageRefs]]) -> list[Computed | Exception]:
        """Batches that wait at the same time are computed as one, whichever ingress they come from."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._run_all, calls)

    def _run_all(self, calls: Sequence[Sequence[ImageRefs]]) -> list[Computed | Exception]:
        self._computing = 1
        try:
            together = self._run([image for call in calls for image in call])
        except Exception as error:  # Whatever a runtime raises: an ingress finds the guilty image, among its own alone.
            return [error] if len(calls) == 1 else [result for call in calls for result in self._run_all([call])]
        finally:
            self._computing = 0
        return list(_apart(together, [len(call) for call in calls]))

    def _run(self, images: Sequence[ImageRefs]) -> Computed:
        pixels, states = fetch(images)
        began_s = time.monotonic()
        computed = self._computer.run(pixels, states)
        self._image_s += _NEWS * ((time.monotonic() - began_s) / len(images) - self._image_s)
        return computed

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `ByQueueDelay` looks at."""
        return {WORK: self._inside * self._image_s, BUSY: float(self._computing)}


def _apart(together: Computed, sizes: Sequence[int]) -> list[Computed]:
    """The part of each call."""
    parts, start = [], 0
    for size in sizes:
        parts.append(Computed(together.logits[start : start + size], together.states[start : start + size]))
        start += size
    return parts


def _warm_up(computer: StageComputer, bundle: Bundle, stage: int, max_batch: int) -> float:
    """The first batch of a size pays for what comes once. Gives the seconds of one image."""
    layout = state_layout(bundle.config)
    pixels = np.zeros(layout.image, np.uint8)
    state: dict[str, Any] = {part.name: np.zeros(part.shape, np.float32) for part in layout.taken[stage - 1]}
    computer.run([pixels] * max_batch, [state] * max_batch)
    began_s = time.monotonic()
    computer.run([pixels], [state])
    return time.monotonic() - began_s
