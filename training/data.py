"""Images of a list as uint8 tensors at the network's input size: all in memory, or decoded as they are asked for.

Shapes: n images of the list, B of a batch, S the input side in pixels. Decoding runs in threads (Pillow lets go of
the interpreter's lock while it decodes and resizes).
"""

import os
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.config import InputConfig
from models.preprocess import preprocess
from training.folders import DataError, ImageFolder, ImageList
from training.seeds import IntArray

__all__ = [
    "Batch",
    "DataError",
    "DecodedImages",
    "ImageFolder",
    "ImageList",
    "ImageSource",
    "StreamedImages",
    "Unreadable",
    "available_cpus",
    "batches",
    "decode_all",
    "evaluation_orders",
    "open_images",
]

MEMORY_LIMIT_BYTES = 6 * 2**30

# Handing a thread one small image at a time costs more than decoding it.
_CHUNK = 32

# What Pillow's decoders are known to raise on damaged files; anything else is a bug and must not pass for one.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, Image.DecompressionBombError)

Progress = Callable[[int, int], None]

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Unreadable:
    """An image file that could not be decoded, and what the decoder said."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """`images` uint8 (B, 3, S, S) and `targets` int64 (B,); `indices` (B,) are their places in the source."""

    images: Tensor
    targets: Tensor
    indices: IntArray


class ImageSource(Protocol):
    """Where a loop takes its batches from."""

    @property
    def targets(self) -> IntArray:
        """Class indices (n,)."""

    @property
    def unreadable(self) -> Sequence[Unreadable]:
        """The files found damaged so far."""

    def __len__(self) -> int:
        """How many images, n."""

    def batch(self, indices: IntArray) -> Batch:
        """The images at `indices`; damaged ones are left out, so B may be smaller.

        Raises `DataError` if none is left.
        """


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """A list wholly in memory: `images` uint8 (n, 3, S, S), `kept` the readable part of the list, n long."""

    images: Tensor
    kept: ImageList
    unreadable: tuple[Unreadable, ...]

    @property
    def targets(self) -> IntArray:
        return self.kept.targets

    def __len__(self) -> int:
        return len(self.kept)

    def batch(self, indices: IntArray) -> Batch:
        device = self.images.device
        rows, targets = (
            torch.from_numpy(each).to(device, non_blocking=True) for each in (indices, self.targets[indices])
        )
        return Batch(self.images.index_select(0, rows), targets, indices)

    def on(self, device: torch.device) -> "DecodedImages":
        """The same with the images on `device`, where batches are then cut from them."""
        return replace(self, images=self.images.to(device))


def decode_all(
    images: ImageList, config: InputConfig, *, threads: int | None = None, progress: Progress | None = None
) -> DecodedImages:
    """Decode a list into memory, n * 3 * S * S bytes.

    Damaged files are named, not fatal; raises `DataError` if all are damaged. To train on crops of more than the
    evaluation sees, pass a `config` with larger sizes.
    """
    side = config.size_px
    pixels = np.empty((len(images), 3, side, side), dtype=np.uint8)
    damaged: dict[int, Unreadable] = {}

    def decode_chunk(start: int) -> int:
        chunk = range(start, min(start + _CHUNK, len(images)))
        for i in chunk:
            decoded = _decode(images, i, config)
            if isinstance(decoded, Unreadable):
                damaged[i] = decoded
            else:
                pixels[i] = decoded
        return len(chunk)

    with ThreadPoolExecutor(threads or available_cpus()) as pool:
        done = 0
        for size in pool.map(decode_chunk, range(0, len(images), _CHUNK)):
            done += size
            if progress is not None:
                progress(done, len(images))
    unreadable = tuple(damaged[i] for i in sorted(damaged))
    kept = np.array([i for i in range(len(images)) if i not in damaged], dtype=np.int64)
    _require_some(len(kept), unreadable)
    if unreadable:
        for row, i in enumerate(kept):  # in place: a second copy of the whole set may not fit
            pixels[row] = pixels[i]
    return DecodedImages(torch.from_numpy(pixels[: len(kept)]), images.subset(kept), unreadable)


class StreamedImages:
    """A list that does not fit in memory: every batch is decoded when asked for. Close it to end its threads."""

    def __init__(self, images: ImageList, config: InputConfig, *, threads: int | None = None) -> None:
        self._images = images
        self._config = config
        self._pool = ThreadPoolExecutor(threads or available_cpus())
        self._unreadable: dict[str, Unreadable] = {}

    @property
    def targets(self) -> IntArray:
        return self._images.targets

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        return tuple(self._unreadable.values())

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: IntArray) -> Batch:
        rows = list(self._pool.map(lambda i: _decode(self._images, i, self._config), indices.tolist()))
        damaged = [row for row in rows if isinstance(row, Unreadable)]
        self._unreadable |= {row.path: row for row in damaged}
        _require_some(len(rows) - len(damaged), damaged)
        kept = indices[[not isinstance(row, Unreadable) for row in rows]]
        pixels = np.stack([row for row in rows if not isinstance(row, Unreadable)])
        return Batch(torch.from_numpy(pixels), torch.from_numpy(self.targets[kept]), kept)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "StreamedImages":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_images(
    images: ImageList,
    config: InputConfig,
    *,
    limit_bytes: int = MEMORY_LIMIT_BYTES,
    threads: int | None = None,
    progress: Progress | None = None,
) -> DecodedImages | StreamedImages:
    """Decode into memory what takes at most `limit_bytes` there, stream the rest."""
    if len(images) * 3 * config.size_px**2 <= limit_bytes:
        return decode_all(images, config, threads=threads, progress=progress)
    return StreamedImages(images, config, threads=threads)


def batches(source: ImageSource, orders: Iterable[IntArray], *, ahead: int = 2) -> Generator[Batch, None, None]:
    """The batches of `orders`, each an array of indices; `ahead` of them of a streamed source are made beforehand."""
    in_memory = isinstance(source, DecodedImages)  # copying rows is too quick to be worth a thread
    return prepared(source.batch, orders, 0 if in_memory else ahead)


def prepared(make: Callable[[K], V], keys: Iterable[K], ahead: int) -> Generator[V, None, None]:
    """`make` of each key in order; `ahead` of them are made in a thread beforehand (0: each when asked for)."""
    if ahead == 0:
        yield from map(make, keys)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="prepared") as pool:
        waiting: deque[Future[V]] = deque()
        try:
            for key in keys:
                waiting.append(pool.submit(make, key))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def evaluation_orders(n: int, batch: int) -> list[IntArray]:
    """0..n-1 in order, cut into batches; the last may be smaller."""
    return np.split(np.arange(n, dtype=np.int64), range(batch, n, batch))


def available_cpus() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decode(images: ImageList, i: int, config: InputConfig) -> NDArray[np.uint8] | Unreadable:
    try:
        with Image.open(images.root / images.paths[i]) as image:
            return preprocess(image, config)
    except _DECODE_ERRORS as error:
        return Unreadable(images.paths[i], str(error) or type(error).__name__)


def _require_some(readable: int, damaged: Sequence[Unreadable]) -> None:
    if readable == 0:
        said = f", the first: {damaged[0].path}: {damaged[0].reason}" if damaged else ""
        raise DataError(f"none of the {len(damaged)} images could be read{said}; check that the files are whole images")
