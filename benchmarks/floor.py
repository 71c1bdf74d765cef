"""Decoding and the stages done directly, without a server: what serving is measured against.

`Direct` does one photo after another, as one client sees it. `crowded` keeps decoding threads and stages busy at once,
in batches as large as the server's were, since CPU time rises where threads share cores and caches: comparing a busy
server with an idle machine would charge that to the server.
"""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from models import policy
from models.preprocess import Pixels
from service.backends.base import Slot
from service.cpus import available_cpus
from service.decode import ImageLimits, decode
from service.main import Opened, open_bundle
from service.settings import Settings
from service.types import Thresholds


@dataclass(frozen=True)
class Floor:
    """CPU of one image, decoding and stages, with as many decoding threads as serving has."""

    images: int
    cpu_ms: float


@dataclass(frozen=True)
class Batches:
    """How a server ran: images of an average batch, and images that reach a stage for one that comes in, by stage."""

    mean_images: tuple[float, ...]
    reach: tuple[float, ...]


def open_directly(bundle: Path) -> Opened:
    """The backend that `dvt serve` has, in this process. Raises `ValueError`."""
    return open_bundle(Settings(bundle=bundle, backend="onnx"))


class Direct:
    """Photos one by one: decode, stages in batches of one, exit rule."""

    def __init__(self, opened: Opened, profile: str) -> None:
        settings = Settings()
        profiles = opened.bundle.profiles
        if profiles is None or profile not in profiles.named:
            raise ValueError(f"{opened.bundle.path} has no profile {profile!r}; `dvt profile` finds them")
        self._backend = opened.backend
        self._measure = opened.bundle.measure
        self._input = opened.bundle.config.input
        self._limits = ImageLimits(settings.max_image_bytes, settings.max_image_px)
        self._thresholds: Thresholds = profiles.named[profile].thresholds

    def decode(self, photo: bytes) -> Pixels:
        return decode(photo, self._input, self._limits)

    def classify(self, photo: bytes) -> int:
        """The exit that the photo leaves at."""
        slot = self._backend.begin(self.decode(photo))
        try:
            return self._leave(slot)
        finally:
            self._backend.release(slot)

    def _leave(self, slot: Slot) -> int:
        for stage in range(1, self._backend.stages):
            output = self._backend.run(stage, [slot])
            temperature = self._measure.temperatures[stage - 1]
            probabilities = policy.softmax(output.logits.astype(np.float64), temperature)
            confidence = policy.confidence(probabilities, self._measure.confidence)
            if policy.leaves(confidence, self._thresholds[stage - 1])[0]:
                return stage
            output.keep([0])
        self._backend.run(self._backend.stages, [slot])
        return self._backend.stages


def crowded(opened: Opened, direct: Direct, photos: Sequence[bytes], images: int, batches: Batches) -> Floor:
    """`images` photos through decoding threads and stages at once. Which image goes on is not asked, only how many."""
    backend = opened.backend
    stages = backend.stages
    waiting: list[deque[Slot]] = [deque() for _ in range(stages)]
    sizes = [Rounded(mean) for mean in batches.mean_images]
    shares = [Rounded(0.0)] + [
        Rounded(0.0 if before == 0 else reached / before)
        for before, reached in zip(batches.reach, batches.reach[1:], strict=False)
    ]
    left = images
    with ThreadPoolExecutor(available_cpus()) as decoders:
        source = cycle(photos)
        coming = deque(decoders.submit(direct.decode, next(source)) for _ in range(min(images, 16)))
        started_s = time.process_time()
        size = [each.next() for each in sizes]
        while left:
            stage = next((at for at in reversed(range(stages)) if len(waiting[at]) >= size[at]), None)
            if stage is None:
                if coming:
                    waiting[0].append(backend.begin(coming.popleft().result()))
                    if images - left + len(coming) + sum(map(len, waiting)) < images:
                        coming.append(decoders.submit(direct.decode, next(source)))
                    continue
                stage = next(at for at in range(stages) if waiting[at])
            batch = [waiting[stage].popleft() for _ in range(min(size[stage], len(waiting[stage])))]
            size[stage] = sizes[stage].next()
            output = backend.run(stage + 1, batch)
            stay = sum(shares[stage + 1].next() for _ in batch) if stage + 1 < stages else 0
            if stay:
                output.keep(range(stay))
                waiting[stage + 1].extend(batch[:stay])
            for slot in batch[stay:]:
                backend.release(slot)
                left -= 1
        seconds = time.process_time() - started_s
    return Floor(images, 1000 * seconds / images)


class Rounded:
    """Whole numbers, one after another, whose mean is `mean`."""

    def __init__(self, mean: float) -> None:
        self._mean = mean
        self._rest = 0.0

    def next(self) -> int:
        self._rest += self._mean
        whole = int(self._rest + 1e-9)
        self._rest -= whole
        return whole
