"""What `dvt bench gpu` measures, in pieces, the most telling first: each is kept as soon as it is done, and not
measured again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch

from benchmarks.gpu.backends import geometry
from benchmarks.gpu.cascades import cascade_runs
from benchmarks.gpu.decoding import decoding
from benchmarks.gpu.document import GpuDocument, Kind
from benchmarks.gpu.kernels import kernel_cases
from benchmarks.gpu.on_device import Wanted, measured_apart
from benchmarks.gpu.stages import stage_times
from benchmarks.photos import Photos
from models.architectures import build_config
from service.backends.base import Precision

# Those that have a number to reach.
_FIRST_BATCHES = (256, 1)


@dataclass(frozen=True)
class Plan:
    """What is to be measured: of every architecture, by every backend, the first of them with all its pieces first.

    `in_flight`: images inside the engine at once; `most_jobs`: images of one run of it. `bundles`: where random weights
    are made and kept.
    """

    architectures: tuple[str, ...]
    kinds: tuple[Kind, ...]
    batches: tuple[int, ...]
    in_flight: tuple[int, ...]
    kernel_batches: tuple[int, ...]
    most_jobs: int
    precision: Precision
    bundles: Path
    photos: Photos

    def folder(self, architecture: str) -> Path:
        return self.bundles / f"gpu-{architecture}"


@dataclass(frozen=True)
class Piece:
    """What is measured in one go: whether a document has it, and the document with it."""

    note: str
    is_in: Callable[[GpuDocument], bool]
    add_to: Callable[[GpuDocument], GpuDocument]


def pieces(plan: Plan, device: torch.device) -> Iterator[Piece]:
    """Raises `ValueError` for an unknown architecture."""
    inputs = [build_config(architecture, ("a", "b")).input for architecture in plan.architectures]
    yield Piece(
        "decoding",
        lambda document: document.decoding is not None,
        lambda document: replace(document, decoding=decoding(plan.photos, inputs[0])),
    )
    for kind in plan.kinds:
        yield from _stages(plan, kind, device)
        for architecture in plan.architectures:
            yield _on_device(plan, architecture, kind, device)
        for architecture in plan.architectures:  # Last, since every batch size up to the largest is warmed up there.
            yield from _cascades(plan, architecture, kind, device)
    for each in kernel_cases(plan.architectures, plan.kernel_batches, plan.precision, device):
        yield Piece(each.note, each.is_in, partial(each.add_to, device=device))


def _stages(plan: Plan, kind: Kind, device: torch.device) -> Iterator[Piece]:
    batches = sorted(plan.batches, key=lambda batch: (batch not in _FIRST_BATCHES, -batch))
    for batch, architecture in product(batches, plan.architectures):
        key = (architecture, kind, plan.precision, batch)

        def add_to(document: GpuDocument, batch: int = batch, architecture: str = architecture) -> GpuDocument:
            weights = geometry(plan.folder(architecture), architecture)
            rows = stage_times(weights, kind, plan.precision, batch, device, document.ceilings)
            return replace(document, stages=(*document.stages, *rows))

        yield Piece(f"{architecture}, {kind}, batch {batch}", partial(_has_stages, key), add_to)


_Key = tuple[str, Kind, Precision, int]


def _has_stages(key: _Key, document: GpuDocument) -> bool:
    return key in [(row.architecture, row.backend, row.precision, row.batch) for row in document.stages]


def _cascades(plan: Plan, architecture: str, kind: Kind, device: torch.device) -> Iterator[Piece]:
    for in_flight in sorted(plan.in_flight, reverse=True):
        key = (architecture, kind, plan.precision, in_flight)

        def add_to(document: GpuDocument, in_flight: int = in_flight) -> GpuDocument:
            weights = geometry(plan.folder(architecture), architecture)
            runs = cascade_runs(weights, kind, plan.precision, in_flight, plan.most_jobs, max(plan.batches), device)
            return replace(document, cascades=(*document.cascades, *runs))

        yield Piece(f"{architecture}, {kind}, {in_flight} inside", partial(_has_cascade, key), add_to)


def _has_cascade(key: _Key, document: GpuDocument) -> bool:
    return key in [(run.architecture, run.backend, run.precision, run.in_flight) for run in document.cascades]


def _on_device(plan: Plan, architecture: str, kind: Kind, device: torch.device) -> Piece:
    key = (architecture, kind, plan.precision)

    def is_in(document: GpuDocument) -> bool:
        return key in [(row.architecture, row.backend, row.precision) for row in document.on_device]

    def add_to(document: GpuDocument) -> GpuDocument:
        folder = plan.folder(architecture)
        geometry(folder, architecture)  # Made here, once.
        wanted = Wanted(str(folder.resolve()), kind, plan.precision, tuple(sorted(plan.batches)), str(device))
        return replace(document, on_device=(*document.on_device, *measured_apart(wanted)))

    return Piece(f"{architecture}, {kind}, by the device's own time stamps", is_in, add_to)
