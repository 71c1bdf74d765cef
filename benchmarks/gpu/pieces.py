"""What `dvt bench gpu` measures, in pieces: each is kept as soon as it is done, and not measured again."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import cast

import torch

from benchmarks.gpu.backends import geometry
from benchmarks.gpu.cascades import cascade_runs
from benchmarks.gpu.document import Ceilings, GpuDocument, Kind
from benchmarks.gpu.kernels import kernel_cases
from benchmarks.gpu.stages import stage_times
from service.backends.base import Precision


@dataclass(frozen=True)
class Piece:
    """What is measured in one go: whether a document has it, and the document with it."""

    note: str
    is_in: Callable[[GpuDocument], bool]
    add_to: Callable[[GpuDocument], GpuDocument]


def pieces(args: argparse.Namespace, device: torch.device, ceilings: Ceilings) -> Iterator[Piece]:
    batches, inside = (tuple(map(int, words.split(","))) for words in (args.batches, args.in_flight))
    kinds = cast("tuple[Kind, ...]", tuple(args.backends.split(",")))
    for architecture in args.architectures.split(","):
        folder = args.bundles / f"gpu-{architecture}"
        for kind, batch in product(kinds, batches):
            key = (architecture, kind, args.precision, batch)
            yield Piece(
                f"{architecture}, {kind}, batch {batch}",
                partial(_has_stages, key),
                partial(_with_stages, folder, key, device, ceilings),
            )
        for kind, in_flight in product(kinds, inside):
            run = (architecture, kind, args.precision, in_flight)
            yield Piece(
                f"{architecture}, {kind}, {in_flight} inside",
                partial(_has_cascade, run),
                partial(_with_cascade, folder, run, args.jobs, max(batches), device),
            )
    of_kernels = tuple(map(int, args.kernel_batches.split(",")))
    for each in kernel_cases(args.architectures.split(","), of_kernels, args.precision, device):
        yield Piece(each.note, each.is_in, partial(each.add_to, device=device))


_Key = tuple[str, Kind, Precision, int]


def _has_stages(key: _Key, document: GpuDocument) -> bool:
    return key in [(row.architecture, row.backend, row.precision, row.batch) for row in document.stages]


def _with_stages(
    folder: Path, key: _Key, device: torch.device, ceilings: Ceilings, document: GpuDocument
) -> GpuDocument:
    architecture, kind, precision, batch = key
    rows = stage_times(geometry(folder, architecture), kind, precision, batch, device, ceilings)
    return replace(document, stages=(*document.stages, *rows))


def _has_cascade(key: _Key, document: GpuDocument) -> bool:
    return key in [(run.architecture, run.backend, run.precision, run.in_flight) for run in document.cascades]


def _with_cascade(
    folder: Path, key: _Key, jobs: int, max_batch: int, device: torch.device, document: GpuDocument
) -> GpuDocument:
    architecture, kind, precision, in_flight = key
    runs = cascade_runs(geometry(folder, architecture), kind, precision, in_flight, jobs, max_batch, device)
    return replace(document, cascades=(*document.cascades, *runs))
