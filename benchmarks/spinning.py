"""Whether the runtime's threads should wait busily for the next piece of a stage, while other threads decode photos.

A closed loop in one process: decoding threads and the stages share the cores, a photo that is answered makes room for
the next. Both ways in turn, several rounds, in alternating order.
"""

import queue
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.machine import Environment, environment
from benchmarks.photos import Photos
from models import policy
from models.bundle import Bundle
from models.preprocess import Pixels
from service.backends.base import Capacity, Slot
from service.backends.onnx import OnnxBackend
from service.decode import ImageLimits, decode

_STATE_BYTES = 1 << 30
_LONGEST_DECODE_S = 60.0
_LIMITS = ImageLimits(max_bytes=1 << 26, max_side_px=8192)


@dataclass(frozen=True)
class SpinRun:
    """One way in one round: images/s, and seconds of CPU an image, over all threads."""

    spinning: bool
    round: int
    images_per_s: float
    cpu_ms_an_image: float


@dataclass(frozen=True)
class SpinningDocument:
    """`quiet_over_busy` is the ratio of throughputs, over all rounds: above 1 where threads better do not spin."""

    environment: Environment
    bundle: str
    profile: str
    photos: str
    threads: int
    decode_threads: int
    batch: int
    in_flight: int
    runs: tuple[SpinRun, ...]
    quiet_over_busy: float


@dataclass(frozen=True)
class Load:
    """What both ways have to do."""

    profile: str
    threads: int
    decode_threads: int
    batch: int
    in_flight: int
    seconds: float


def measure_spinning(bundle: Bundle, photos: Photos, load: Load, rounds: int) -> SpinningDocument:
    """Raises `ValueError` for a bundle without that profile."""
    if bundle.profiles is None or load.profile not in bundle.profiles.named:
        raise ValueError(f"{bundle.path} has no profile {load.profile!r}")
    capacity = Capacity(load.in_flight, _STATE_BYTES, load.batch)
    runs: list[SpinRun] = []
    for number in range(1, rounds + 1):
        for spinning in (False, True) if number % 2 else (True, False):
            # Opened anew for each run: the threads of the other way would still be there otherwise.
            backend = OnnxBackend(bundle, load.threads, capacity, spinning=spinning)
            Pipeline(bundle, backend, photos, load).run(load.seconds / 10)
            cpu_s = time.process_time()
            images, seconds = Pipeline(bundle, backend, photos, load).run(load.seconds)
            cpu_ms = 1e3 * (time.process_time() - cpu_s) / images
            runs.append(SpinRun(spinning, number, images / seconds, cpu_ms))
    quiet, busy = (
        float(np.mean([run.images_per_s for run in runs if run.spinning is spinning])) for spinning in (False, True)
    )
    return SpinningDocument(
        environment(),
        bundle.name,
        load.profile,
        photos.source,
        load.threads,
        load.decode_threads,
        load.batch,
        load.in_flight,
        tuple(runs),
        quiet / busy,
    )


class Pipeline:
    """Decoding threads and one loop over the stages, deepest full batch first."""

    def __init__(self, bundle: Bundle, backend: OnnxBackend, photos: Photos, load: Load) -> None:
        assert bundle.profiles is not None
        self._config = bundle.config.input
        self._profiles = bundle.profiles
        self._thresholds = (*bundle.profiles.named[load.profile].thresholds, 0.0)
        self._backend = backend
        self._photos = photos
        self._load = load
        self._waiting: list[deque[Slot]] = [deque() for _ in range(backend.stages)]
        self._decoded: queue.SimpleQueue[Pixels] = queue.SimpleQueue()
        self._next_photo = 0

    def run(self, seconds: float) -> tuple[int, float]:
        """Images answered in about so many seconds, and the seconds that it really took."""
        answered = 0
        with ThreadPoolExecutor(self._load.decode_threads) as decoders:
            began_s = time.perf_counter()
            for _ in range(self._load.in_flight):
                self._submit(decoders)
            while (now_s := time.perf_counter()) < began_s + seconds:
                self._take_in()
                left = self._step()
                answered += left
                for _ in range(left):
                    self._submit(decoders)
        for slots in self._waiting:
            for slot in slots:
                self._backend.release(slot)
        return answered, now_s - began_s

    def _submit(self, decoders: ThreadPoolExecutor) -> None:
        photo = self._photos.files[self._next_photo % len(self._photos.files)]
        self._next_photo += 1
        decoders.submit(lambda: self._decoded.put(decode(photo, self._config, _LIMITS)))

    def _take_in(self) -> None:
        """Everything that is decoded; waits only where nothing at all could run."""
        while not self._decoded.empty() or not any(self._waiting):
            self._waiting[0].append(self._backend.begin(self._decoded.get(timeout=_LONGEST_DECODE_S)))

    def _step(self) -> int:
        """One batch; how many left."""
        batch = self._load.batch
        full = [stage for stage, slots in enumerate(self._waiting, start=1) if len(slots) >= batch]
        stage = max(full) if full else max(range(1, len(self._waiting) + 1), key=lambda k: len(self._waiting[k - 1]))
        queued = self._waiting[stage - 1]
        slots = [queued.popleft() for _ in range(min(batch, len(queued)))]
        output = self._backend.run(stage, slots)
        probabilities = policy.softmax(output.logits, self._profiles.exits[stage - 1].temperature)
        confidences = policy.confidence(probabilities, self._profiles.confidence)
        leaves = policy.leaves(confidences, self._thresholds[stage - 1])
        stays = np.flatnonzero(~leaves).tolist()
        if stays:
            output.keep(stays)
        for row, slot in enumerate(slots):
            if leaves[row]:
                self._backend.release(slot)
            else:
                self._waiting[stage].append(slot)
        return int(leaves.sum())
