"""How many photos the CPUs beside a device decode and preprocess in a second: what can feed it."""

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.gpu.document import DecodeRate, Decoding
from benchmarks.photos import Photos
from models.config import InputConfig
from service.cpus import available_cpus
from service.decode import ImageLimits, decode

SECONDS = 3.0
# Beyond any photo: here they limit nothing.
_LIMITS = ImageLimits(1 << 30, 1 << 16)


def decoding(photos: Photos, config: InputConfig, seconds: float = SECONDS) -> Decoding:
    """By one thread, and by as many as there are CPUs."""
    counts = dict.fromkeys((1, available_cpus()))
    rates = tuple(DecodeRate(threads, _images_per_s(photos.files, config, threads, seconds)) for threads in counts)
    return Decoding(photos.source, photos.mean_bytes, config.size_px, rates)


def _images_per_s(files: Sequence[bytes], config: InputConfig, threads: int, seconds: float) -> float:
    for file in files[:threads]:  # What a decoder allocates comes once.
        decode(file, config, _LIMITS)
    photos = itertools.cycle(files)
    began_s = time.perf_counter()
    ends_s = began_s + seconds

    def work() -> int:
        done = 0
        while time.perf_counter() < ends_s:
            decode(next(photos), config, _LIMITS)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as decoders:
        done = sum(each.result() for each in [decoders.submit(work) for _ in range(threads)])
    return done / (time.perf_counter() - began_s)
