"""`dvt bench geometry` and `dvt bench engine`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.engine import Ran, Work, run_engine, run_shrinking_batches, run_whole_batches, scripted, warm_up
from benchmarks.geometry import Geometry, read_geometry, write_geometry
from benchmarks.machine import environment
from benchmarks.result_files import RESULTS, write_results
from benchmarks.results import ENGINE_FILE, EngineDocument, EngineRun
from models import strict_json
from models.bundle import Bundle
from models.progress import Progress
from models.tables import Table, write_tables
from service.backends.base import Capacity, StageBackend
from service.backends.choose import Wanted, open_backend
from service.cpus import available_cpus

ENGINE, WHOLE, SHRINKING, STATIC = (
    "engine",
    "the whole batch runs until its last image leaves",
    "the batch shrinks, and is never merged with others",
    "engine, static twin",
)
_STATE_BYTES = 4 << 30


@dataclass(frozen=True)
class Verdict:
    """Images/s of the engine over each other way, and over the static twin as a share of the FLOPs saved."""

    over_whole: float
    over_shrinking: float
    over_static: float
    flop_saving: float

    @property
    def share_of_saving(self) -> float:
        return self.over_static / self.flop_saving


def run_geometry(args: argparse.Namespace) -> int:
    try:
        geometry = write_geometry(args.out, args.architecture)
    except (ValueError, OSError) as error:
        print(f"dvt bench geometry: {error}", file=sys.stderr)
        return 2
    gmacs = ", ".join(f"{each:.4f}" for each in geometry.costs.exit_gmacs)
    print(
        f"{args.out}: {geometry.costs.architecture}, {gmacs} GMACs by exit, static twin "
        f"{geometry.costs.static_gmacs:.4f}; next: `dvt bench engine {args.out}`",
        file=sys.stderr,
    )
    return 0


def run_engine_rows(args: argparse.Namespace) -> int:
    try:
        document = measure(args)
    except (ValueError, OSError) as error:
        print(f"dvt bench engine: {error}", file=sys.stderr)
        return 2
    write_results(document, (args.results or RESULTS) / ENGINE_FILE)
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    write_tables(list(tables(document)), sys.stderr)
    return 0


def measure(args: argparse.Namespace) -> EngineDocument:
    """Every way once a round, in alternating order, all in one process. Raises `ValueError`."""
    geometry = read_geometry(args.bundles)
    threads = args.threads or available_cpus()
    shares = tuple(float(word) / 100 for word in args.shares.split(","))
    if len(shares) != geometry.cascade.config.exits:
        raise ValueError(f"--shares has {len(shares)} entries, this cascade has {geometry.cascade.config.exits} exits")
    size_px = geometry.cascade.config.input.size_px
    work = scripted(shares, args.jobs, args.seed, size_px)
    ways = _ways(geometry, work, threads, args.batch, args.in_flight)
    runs: list[EngineRun] = []
    with Progress("ways to run a cascade", unit="") as progress:
        for number in range(1, args.rounds + 1):
            for way, go in ways if number % 2 else tuple(reversed(ways)):
                progress.update(len(runs), len(ways) * args.rounds, way)
                runs.append(EngineRun(way, number, go()))
        progress.update(len(runs), len(runs))
    return EngineDocument(
        environment(),
        geometry.costs.architecture,
        geometry.costs.exit_gmacs,
        geometry.costs.static_gmacs,
        shares,
        args.batch,
        args.in_flight,
        threads,
        tuple(runs),
    )


def _ways(
    geometry: Geometry, work: Work, threads: int, batch: int, in_flight: int
) -> tuple[tuple[str, Callable[[], Ran]], ...]:
    """The ways to compare. Those of the cascade share one backend, so that only the order of work differs."""
    cascade = _open(geometry.cascade, threads, batch, in_flight)
    static = _open(geometry.static, threads, batch, in_flight)
    all_of_it = Work((1,) * len(work.exits), work.pixels)
    for backend in (cascade, static):
        warm_up(backend, work.pixels[0], batch)
    return (
        (ENGINE, lambda: run_engine(geometry.cascade, cascade, work, batch, in_flight)),
        (WHOLE, lambda: run_whole_batches(cascade, work, batch)),
        (SHRINKING, lambda: run_shrinking_batches(cascade, work, batch)),
        (STATIC, lambda: run_engine(geometry.static, static, all_of_it, batch, in_flight)),
    )


def _open(bundle: Bundle, threads: int, batch: int, in_flight: int) -> StageBackend:
    capacity = Capacity(in_flight + batch, _STATE_BYTES, batch)
    return open_backend(bundle, Wanted("onnx", "cpu", threads, capacity)).backend


def verdict(document: EngineDocument) -> Verdict:
    engine = images_per_s(document.runs, ENGINE)
    spent = sum(share * gmacs for share, gmacs in zip(document.shares, document.exit_gmacs, strict=True))
    return Verdict(
        engine / images_per_s(document.runs, WHOLE),
        engine / images_per_s(document.runs, SHRINKING),
        engine / images_per_s(document.runs, STATIC),
        document.static_gmacs / spent,
    )


def images_per_s(runs: Sequence[EngineRun], way: str) -> float:
    """Over all rounds."""
    found = [run.ran for run in runs if run.way == way]
    return sum(ran.images for ran in found) / sum(ran.seconds for ran in found)


def tables(document: EngineDocument) -> tuple[Table, ...]:
    """Speed of each way, what its stages took, and how full their batches were."""
    rows = []
    for way in dict.fromkeys(run.way for run in document.runs):
        rans = [run.ran for run in document.runs if run.way == way]
        stages = sorted({stage for ran in rans for stage in ran.stages})
        uses = [[ran.stages[stage] for ran in rans if stage in ran.stages] for stage in stages]
        rows.append(
            (
                way,
                f"{images_per_s(document.runs, way):.2f}",
                f"{images_per_s(document.runs, ENGINE) / images_per_s(document.runs, way):.2f}",
                " / ".join(f"{sum(use.images for use in of) / sum(use.batches for use in of):.1f}" for of in uses),
                " / ".join(
                    f"{1000 * sum(use.seconds for use in of) / sum(use.images for use in of):.1f}" for of in uses
                ),
                f"{100 * sum(use.seconds for of in uses for use in of) / sum(ran.seconds for ran in rans):.1f} %",
            )
        )
    columns = ("way", "images/s", "engine over it", "images a batch", "stage ms an image", "time in stages")
    return (Table("One cascade, one backend", columns, tuple(rows)),)
