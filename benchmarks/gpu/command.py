"""`dvt bench gpu`: the stages, the cascade and its twin on a device, held against what that can do at most.

What is measured is kept at once, and not measured again: a run that was cut off goes on where it stopped.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch

from benchmarks.engine import Ran, Work, run_engine, scripted
from benchmarks.geometry import Geometry, read_geometry, write_geometry
from benchmarks.gpu import relations
from benchmarks.gpu.ceilings import Ceilings
from benchmarks.gpu.ceilings import measure as measure_ceilings
from benchmarks.gpu.relations import WayMeasured
from benchmarks.gpu.roofline import least_seconds, products_of
from benchmarks.machine import Environment, environment
from benchmarks.result_files import RESULTS, read_results, write_results
from models import strict_json
from models.bundle import Bundle
from models.progress import Progress
from models.tables import Table, write_tables
from service.backends.base import Capacity, Precision, Slot, StageBackend
from service.backends.compiled import CompiledBackend
from service.backends.cudagraph import CudaGraphBackend
from service.backends.eager import EagerBackend

FILE = "gpu-{device}.json"
SHARES = (0.60, 0.25, 0.15)

Kind = Literal["eager", "compiled", "cudagraph"]

_BACKENDS: dict[Kind, Callable[..., StageBackend]] = {
    "eager": EagerBackend,
    "compiled": CompiledBackend,
    "cudagraph": CudaGraphBackend,
}
_STATE_BYTES = 32 << 30
# Batches that take turns, so that their images and state do not stay in the cache.
_MOST_SETS = 8
_TIMED_RUNS = 12


@dataclass(frozen=True)
class StageTime:
    """One stage (from 1) of one backend: the median of a batch, and the least that the device's ceilings allow."""

    architecture: str
    backend: Kind
    precision: Precision
    batch: int
    stage: int
    seconds: float
    least_seconds: float


@dataclass(frozen=True)
class CascadeRun:
    """The engine with so many images inside; `gmacs` of an image, on average. `is_static`: the twin, one stage."""

    architecture: str
    backend: Kind
    precision: Precision
    is_static: bool
    in_flight: int
    gmacs: float
    ran: Ran

    @property
    def outside_share(self) -> float:
        """Of the time, what was spent outside of the stages."""
        return 1 - sum(use.seconds for use in self.ran.stages.values()) / self.ran.seconds


@dataclass(frozen=True)
class GpuDocument:
    environment: Environment
    ceilings: Ceilings
    stages: tuple[StageTime, ...] = ()
    cascades: tuple[CascadeRun, ...] = ()
    relations: tuple[WayMeasured, ...] = ()


def run(args: argparse.Namespace) -> int:
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        for name in args.backends.split(","):
            if name not in _BACKENDS:
                raise ValueError(f"--backends has {name!r}, known are {', '.join(get_args(Kind))}")
        document = measure(args, device)
    except (ValueError, OSError) as error:
        print(f"dvt bench gpu: {error}", file=sys.stderr)
        return 2
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    write_tables(list(tables(document)), sys.stderr)
    return 0


def measure(args: argparse.Namespace, device: torch.device) -> GpuDocument:
    """Raises `ValueError` for an unknown architecture."""
    ceilings = measure_ceilings(device)
    path = (args.results or RESULTS) / FILE.format(device=ceilings.device.lower().replace(" ", "-"))
    document = read_results(GpuDocument, path) or GpuDocument(environment(), ceilings)
    pieces = list(_pieces(args, device, ceilings))
    with Progress("measuring", unit="") as progress:
        for number, piece in enumerate(pieces):
            progress.update(number, len(pieces), piece.note)
            if not piece.is_in(document):
                document = piece.add_to(document)
                write_results(document, path)
    return document


@dataclass(frozen=True)
class _Piece:
    """What is measured in one go: whether a document has it, and the document with it."""

    note: str
    is_in: Callable[[GpuDocument], bool]
    add_to: Callable[[GpuDocument], GpuDocument]


def _pieces(args: argparse.Namespace, device: torch.device, ceilings: Ceilings) -> Iterator[_Piece]:
    batches, inside = (tuple(map(int, words.split(","))) for words in (args.batches, args.in_flight))
    kinds = cast("tuple[Kind, ...]", tuple(args.backends.split(",")))
    for architecture in args.architectures.split(","):
        folder = args.bundles / f"gpu-{architecture}"
        for kind, batch in product(kinds, batches):
            key = (architecture, kind, args.precision, batch)
            yield _Piece(
                f"{architecture}, {kind}, batch {batch}",
                partial(_has_stages, key),
                partial(_with_stages, folder, key, device, ceilings),
            )
        for kind, in_flight in product(kinds, inside):
            run = (architecture, kind, args.precision, in_flight)
            yield _Piece(
                f"{architecture}, {kind}, {in_flight} inside",
                partial(_has_cascade, run),
                partial(_with_cascade, folder, run, args.jobs, max(batches), device),
            )
    yield _Piece(
        "attention with reused relations",
        lambda document: bool(document.relations),
        partial(_with_relations, max(batches), args.precision, device),
    )


_Key = tuple[str, Kind, Precision, int]


def _has_stages(key: _Key, document: GpuDocument) -> bool:
    return key in [(row.architecture, row.backend, row.precision, row.batch) for row in document.stages]


def _with_stages(
    folder: Path, key: _Key, device: torch.device, ceilings: Ceilings, document: GpuDocument
) -> GpuDocument:
    architecture, kind, precision, batch = key
    rows = stage_times(_geometry(folder, architecture), kind, precision, batch, device, ceilings)
    return replace(document, stages=(*document.stages, *rows))


def _has_cascade(key: _Key, document: GpuDocument) -> bool:
    return key in [(run.architecture, run.backend, run.precision, run.in_flight) for run in document.cascades]


def _with_cascade(
    folder: Path, key: _Key, jobs: int, max_batch: int, device: torch.device, document: GpuDocument
) -> GpuDocument:
    architecture, kind, precision, in_flight = key
    runs = cascade_runs(_geometry(folder, architecture), kind, precision, in_flight, jobs, max_batch, device)
    return replace(document, cascades=(*document.cascades, *runs))


def _with_relations(images: int, precision: Precision, device: torch.device, document: GpuDocument) -> GpuDocument:
    ways = relations.measure(images, heads=4, width=64, device=device, dtype=getattr(torch, precision))
    return replace(document, relations=tuple(ways))


def _geometry(folder: Path, architecture: str) -> Geometry:
    return read_geometry(folder) if folder.exists() else write_geometry(folder, architecture, with_graphs=False)


def _open(
    bundle: Bundle, kind: Kind, precision: Precision, images: int, batch: int, device: torch.device
) -> StageBackend:
    return _BACKENDS[kind](bundle, str(device), 1, Capacity(images, _STATE_BYTES, batch), precision)


def stage_times(
    geometry: Geometry, kind: Kind, precision: Precision, batch: int, device: torch.device, ceilings: Ceilings
) -> list[StageTime]:
    """Full batches of fresh noise; the next of the sets each time."""
    bundle = geometry.cascade
    sets = max(1, min(_MOST_SETS, 256 // batch)) if device.type == "cuda" else 1
    backend = _open(bundle, kind, precision, sets * batch, batch, device)
    size_px = bundle.config.input.size_px
    random = np.random.default_rng(batch)
    slots: list[list[Slot]] = [
        [backend.begin(random.integers(0, 256, (3, size_px, size_px), dtype=np.uint8)) for _ in range(batch)]
        for _ in range(sets)
    ]
    element_bytes = torch.finfo(getattr(torch, precision)).bits // 8
    rows = []
    for stage, products in enumerate(products_of(bundle.config, batch), start=1):
        for each in slots:  # Compiled and captured by this; and what the next stage takes is there.
            output = backend.run(stage, each)
            if not np.isfinite(output.logits).all():
                raise ArithmeticError(f"stage {stage} of {kind} gives logits that are no numbers")
            output.keep(range(batch))
        timed = []
        for number in range(_TIMED_RUNS):
            began_s = time.perf_counter()
            backend.run(stage, slots[number % sets])
            timed.append(time.perf_counter() - began_s)
        least_s = least_seconds(products, ceilings, element_bytes)
        architecture = geometry.costs.architecture
        rows.append(StageTime(architecture, kind, precision, batch, stage, statistics.median(timed), least_s))
    return rows


def cascade_runs(
    geometry: Geometry,
    kind: Kind,
    precision: Precision,
    in_flight: int,
    jobs: int,
    max_batch: int,
    device: torch.device,
) -> Iterator[CascadeRun]:
    """The cascade, and its static twin on as many images; exits are scripted."""
    costs, size_px = geometry.costs, geometry.cascade.config.input.size_px
    batch = min(max_batch, in_flight)
    work = scripted(SHARES, jobs, 0, size_px)
    spent = sum(share * gmacs for share, gmacs in zip(SHARES, costs.exit_gmacs, strict=True))
    for bundle, todo, gmacs in (
        (geometry.cascade, work, spent),
        (geometry.static, Work((1,) * jobs, work.pixels), costs.static_gmacs),
    ):
        backend = _open(bundle, kind, precision, in_flight + batch, batch, device)
        ran = run_engine(bundle, backend, todo, batch, in_flight)
        is_static = bundle is geometry.static
        yield CascadeRun(costs.architecture, kind, precision, is_static, in_flight, gmacs, ran)


def tables(document: GpuDocument) -> Iterator[Table]:
    """Stages, the cascade beside its twin, and the ways to attend."""
    ceilings = document.ceilings
    yield Table(
        f"{ceilings.device}: {ceilings.matrix_tflops:.3g} TFLOP/s in bf16, {ceilings.copy_tb_per_s:.3g} TB/s",
        ("architecture", "backend", "batch", "ms by stage", "images/s by stage", "of the roofline"),
        tuple(_stage_rows(document.stages)),
    )
    yield Table(
        "Cascade, 60/25/15 % by exit",
        ("architecture", "backend", "inside", "images/s", "outside of stages", "over the twin", "of the saving"),
        tuple(_cascade_rows(document.cascades)),
    )
    yield Table(
        "Attention with reused relations, last stage", ("way", "error", "ms"), tuple(map(_way_row, document.relations))
    )


def _way_row(way: WayMeasured) -> tuple[str, ...]:
    if way.error is None or way.seconds is None:
        return (way.way, "-", "cannot")
    return (way.way, f"{way.error:.1e}", f"{1000 * way.seconds:.3f}")


def _stage_rows(rows: Sequence[StageTime]) -> Iterator[tuple[str, ...]]:
    for key in dict.fromkeys((row.architecture, row.backend, row.batch) for row in rows):
        of = [row for row in rows if (row.architecture, row.backend, row.batch) == key]
        yield (
            key[0],
            key[1],
            str(key[2]),
            " / ".join(f"{1000 * row.seconds:.2f}" for row in of),
            " / ".join(f"{row.batch / row.seconds:,.0f}" for row in of),
            " / ".join(f"{100 * row.least_seconds / row.seconds:.1f} %" for row in of),
        )


def _cascade_rows(runs: Sequence[CascadeRun]) -> Iterator[tuple[str, ...]]:
    twins = {(each.architecture, each.backend, each.in_flight): each for each in runs if each.is_static}
    for each in runs:
        if each.is_static:
            continue
        twin = twins[each.architecture, each.backend, each.in_flight]
        over, saving = each.ran.images_per_s / twin.ran.images_per_s, twin.gmacs / each.gmacs
        yield (
            each.architecture,
            each.backend,
            str(each.in_flight),
            f"{each.ran.images_per_s:,.0f}",
            f"{100 * each.outside_share:.1f} %",
            f"{over:.2f}",
            f"{over / saving:.2f} of {saving:.2f}",
        )
