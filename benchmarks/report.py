"""`dvt bench report`: docs/performance.md from the kept results, so that no number in it is written by hand."""

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from benchmarks import command_engine, command_peers, command_ray
from benchmarks.command_cache import cache_table, speed_up
from benchmarks.command_peers import tail_ratio
from benchmarks.command_server import alone_beyond_ms, alone_words, cpu_beyond_ms, cpu_words, memory_growth
from benchmarks.machine import Environment
from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.peers.plan import Piece, best_peer, capacity, next_piece
from benchmarks.photos import ROOT
from benchmarks.plan_check import LOADS, TOLERANCE, plan_table
from benchmarks.result_files import RESULTS, read_results
from benchmarks.results import (
    ALONE_FILE,
    AUTO_LOAD_FILE,
    AUTO_SIMULATION_FILE,
    CACHE_FILE,
    CPU_FILE,
    ENGINE_FILE,
    MEMORY_FILE,
    PEERS_FILE,
    PLAN_FILE,
    RAY_FILE,
    AloneDocument,
    AutoLoadDocument,
    AutoSimulationDocument,
    CacheDocument,
    CpuDocument,
    EngineDocument,
    MemoryDocument,
    PeersDocument,
    PlanDocument,
    RayDocument,
)
from benchmarks.show_auto import load_table, simulated_table
from models.bundle import write_file_atomically
from models.tables import Table

PAGE = ROOT / "docs" / "performance.md"
NOTES = "notes.md"

AT_LEAST: Final = "at least"
AT_MOST: Final = "at most"

D = TypeVar("D")
N = TypeVar("N")


@dataclass(frozen=True)
class Goal:
    """A number to reach: at least `bound`, or at most. `value` is None where it was not measured yet."""

    what: str
    bound: float
    kind: Literal["at least", "at most"]
    value: float | None
    unit: str = ""

    @property
    def reached(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.bound if self.kind == AT_MOST else self.value >= self.bound

    def row(self) -> tuple[str, str, str, str]:
        needed = f"{self.kind} {self.bound:g}{self.unit}"
        measured = "" if self.value is None else f"{self.value:.2f}{self.unit}"
        return (self.what, needed, measured, {None: "not measured", True: "yes", False: "**no**"}[self.reached])


@dataclass(frozen=True)
class Kept:
    """All results; None for what was not measured."""

    engine: EngineDocument | None
    peers: PeersDocument | None
    cpu: CpuDocument | None
    alone: AloneDocument | None
    memory: MemoryDocument | None
    auto_load: AutoLoadDocument | None = None
    auto_simulated: tuple[AutoSimulationDocument, ...] = ()
    cache: CacheDocument | None = None
    plan: PlanDocument | None = None
    ray: RayDocument | None = None

    @staticmethod
    def read(folder: Path) -> "Kept":
        peers = read_results(PeersDocument, folder / PEERS_FILE)
        return Kept(
            read_results(EngineDocument, folder / ENGINE_FILE),
            # A comparison that is not complete compares nothing.
            None if peers is None or next_piece(peers.pieces) is not None else peers,
            read_results(CpuDocument, folder / CPU_FILE),
            read_results(AloneDocument, folder / ALONE_FILE),
            read_results(MemoryDocument, folder / MEMORY_FILE),
            read_results(AutoLoadDocument, folder / AUTO_LOAD_FILE),
            tuple(
                document
                for path in sorted(folder.glob(AUTO_SIMULATION_FILE.format(bundle="*")))
                if (document := read_results(AutoSimulationDocument, path)) is not None
            ),
            read_results(CacheDocument, folder / CACHE_FILE),
            read_results(PlanDocument, folder / PLAN_FILE),
            read_results(RayDocument, folder / RAY_FILE),
        )


def run(args: argparse.Namespace) -> int:
    folder: Path = args.results or RESULTS
    page: Path = args.out or PAGE
    try:
        kept = Kept.read(folder)
        notes = folder / NOTES
        text = render(kept, notes.read_text(encoding="utf-8") if notes.exists() else "")
    except (ValueError, OSError) as error:
        print(f"dvt bench report: {error}", file=sys.stderr)
        return 2
    write_file_atomically(page, text.encode())
    missed = [goal.what for goal in goals(kept) if goal.reached is False]
    print(f"{page}: {len(missed)} numbers missed{''.join(f'; {what}' for what in missed)}", file=sys.stderr)
    return 0


def goals(kept: Kept) -> tuple[Goal, ...]:
    engine = _of(kept.engine, command_engine.verdict)
    return (
        Goal(
            "engine over “the whole batch runs until its last image leaves”",
            2.2,
            AT_LEAST,
            _of(engine, lambda it: it.over_whole),
        ),
        Goal(
            "engine over “the batch shrinks, and is never merged”",
            1.2,
            AT_LEAST,
            _of(engine, lambda it: it.over_shrinking),
        ),
        Goal(
            "engine over static twin, as share of the FLOPs saved",
            0.95,
            AT_LEAST,
            _of(engine, lambda it: it.share_of_saving),
        ),
        Goal("server CPU a request beyond decoding and stages", 1.0, AT_MOST, _of(kept.cpu, cpu_beyond_ms), " ms"),
        Goal("requests/s over the best peer's", 2.0, AT_LEAST, _of(kept.peers, _over_best)),
        Goal("p99 at half of that peer's capacity, over the peer's", 1.0, AT_MOST, _of(kept.peers, tail_ratio)),
        Goal(
            "one client, beyond decoding and stages done directly",
            2.0,
            AT_MOST,
            _of(kept.alone, alone_beyond_ms),
            " ms",
        ),
        Goal("memory after 20,000 requests over after 1,000", 1.02, AT_MOST, _of(kept.memory, memory_growth)),
        Goal(
            "Ray Serve: two replicas of the whole service over one",
            1.9,
            AT_LEAST,
            _of(kept.ray, command_ray.replicas_doubled),
        ),
        Goal(
            "Ray Serve: later stages doubled, over one replica each",
            1.9,
            AT_LEAST,
            _of(kept.ray, command_ray.late_doubled),
        ),
        Goal(
            "Ray Serve: later stages doubled, over every stage doubled",
            0.95,
            AT_LEAST,
            _of(kept.ray, command_ray.late_over_all),
        ),
    )


def _of(document: D | None, number: Callable[[D], N]) -> N | None:
    return None if document is None else number(document)


def _over_best(document: PeersDocument) -> float:
    return capacity(document.pieces, OURS) / capacity(document.pieces, best_peer(document.pieces))


def render(kept: Kept, notes: str) -> str:
    """The page. `notes` stand at its end: causes of what was missed, in words."""
    lines = [
        "# Performance",
        "",
        *_text(
            "Made by `dvt bench report` from `benchmarks/results/*.json`; every number is a ratio, or stands beside "
            "its like, within one run on one machine. How each is measured is written below, with the command."
        ),
        *_markdown(Table("", ("what", "needed", "measured", "reached"), tuple(goal.row() for goal in goals(kept)))),
        *_engine(kept.engine),
        *_peers(kept.peers),
        *_cpu(kept.cpu),
        *_alone(kept.alone),
        *_memory(kept.memory),
        *_auto(kept.auto_load, kept.auto_simulated),
        *_cache(kept.cache),
        *_plan(kept.plan),
        *_ray(kept.ray),
    ]
    return "\n".join([*lines, *([notes.strip(), ""] if notes.strip() else [])])


def _engine(document: EngineDocument | None) -> Iterator[str]:
    if document is None:
        return
    verdict = command_engine.verdict(document)
    shares = "/".join(f"{100 * share:g}" for share in document.shares)
    yield "## The engine"
    yield from _text(
        f"`dvt bench geometry DIR && dvt bench engine DIR`: random weights with the geometry of "
        f"`{document.architecture}`, exits scripted by `max_exit` in shares of {shares} %, batch {document.batch}, "
        f"{document.in_flight} images in flight, {document.threads} threads; the ways alternate, over one backend. "
        f"{_where(document.environment)}"
    )
    for table in command_engine.tables(document):
        yield from _markdown(table)
    yield from _text(
        f"FLOPs saved by these exits: {verdict.flop_saving:.2f} times; the engine is {verdict.over_static:.2f} times "
        "as fast as with the static twin."
    )


def _peers(document: PeersDocument | None) -> Iterator[str]:
    if document is None:
        return
    yield "## Other servers"
    yield from _text(
        f"`dvt bench peers --data PATH`: `{document.bundle}` with the profile `{document.profile}` "
        f"({100 * document.top1:.2f} % top-1) served by this service with its defaults; `{document.static_bundle}` "
        f"({100 * document.static_top1:.2f} %) by the others through the same ONNX Runtime with the same "
        f"preprocessing, and by this service too. Photos: {document.photos}. Two rounds in alternating order, server "
        f"and load generator accounted apart. {_where(document.pieces[-1].environment)}"
    )
    for table in command_peers.tables(document):
        yield from _markdown(table, headed=True)
    tuning = tuple(_tuning_row(piece) for piece in document.pieces if piece.phase == "tuning")
    yield from _text("Settings tried for each peer (workers x threads of each); the best are used above:")
    yield from _markdown(Table("", ("server", "settings", "requests/s"), tuning))
    yield from (f"- {peer.name} {peer.version}: {peer.fixed}." for peer in PEERS)
    yield ""


def _tuning_row(piece: Piece) -> tuple[str, ...]:
    return (piece.server, piece.settings, f"{piece.result.throughput_per_s:.1f}")


def _cpu(document: CpuDocument | None) -> Iterator[str]:
    if document is None:
        return
    batches = ", ".join(f"{mean:.1f}" for mean in document.mean_batches)
    yield "## CPU beyond decoding and stages"
    yield from _text(
        f"`dvt bench server cpu --data PATH`: {document.load.clients} clients on `{document.bundle}`, profile "
        f"`{document.profile}`, {document.photos}. The floor is decoding threads and stages at work at once in one "
        f"process, in batches as large as the server's ({batches}). {_where(document.environment)}"
    )
    yield from _text(f"Measured: {cpu_words(document)}.")


def _alone(document: AloneDocument | None) -> Iterator[str]:
    if document is None:
        return
    yield "## One client"
    yield from _text(
        f"`dvt bench server alone --data PATH`: the same photos ({document.photos}) by HTTP to `{document.bundle}`, "
        f"profile `{document.profile}`, and directly, in alternating blocks on an idle machine. "
        f"{_where(document.environment)}"
    )
    yield from _text(f"Measured: {alone_words(document)}.")


def _memory(document: MemoryDocument | None) -> Iterator[str]:
    if document is None:
        return
    every = max(1, len(document.points) // 10)
    shown = (*document.points[:-1:every], document.points[-1])
    rows = tuple((f"{point.requests:,}", f"{point.rss_bytes / 2**20:.1f}") for point in shown)
    yield "## Memory"
    yield from _text(
        f"`dvt bench server memory --data PATH`: `{document.bundle}`, {document.clients} clients. "
        f"{_where(document.environment)}"
    )
    yield from _markdown(Table("", ("requests", "resident MiB"), rows))


def _auto(load: AutoLoadDocument | None, simulated: tuple[AutoSimulationDocument, ...]) -> Iterator[str]:
    if load is None and not simulated:
        return
    yield "## Budget by load"
    if load is not None:
        shares = " to ".join(
            "/".join(f"{100 * share:g}" for share in each) for each in (load.floor_shares, load.ceiling_shares)
        )
        yield from _text(
            f"`dvt bench geometry DIR && dvt bench auto load DIR`: random weights with the geometry of "
            f"`{load.architecture}` behind HTTP, in an open loop; thresholds lie between the confidences that the "
            f"photos ({load.photos}) happen to have, so that exits are taken in shares of {shares} %, floor to "
            f"ceiling. A closed loop got {load.capacity_per_s:.1f} requests/s out of the ceiling. "
            f"{_where(load.environment)}"
        )
        yield from _markdown(load_table(load), headed=True)
    for each in simulated:
        stages = " / ".join(f"{1000 * seconds['1']:.1f}" for seconds in each.batch_s)
        yield from _text(
            f"`dvt bench auto simulate`: {each.seconds:g} s of each shape of load in simulated time, through the "
            f"admission, queues, batching and controller that serve. A stage takes what the warm-up measured "
            f"({stages} ms a single image, {each.lanes} lanes); top-1 is that of the points which images were let in "
            f"under, on the report split. {_where(each.environment)}"
        )
        yield from _markdown(simulated_table(each), headed=True)


def _cache(document: CacheDocument | None) -> Iterator[str]:
    if document is None:
        return
    yield "## The same images again"
    yield from _text(
        f"`dvt bench cache --data PATH`: {document.requests:,} requests for {document.images:,} images "
        f"({document.photos}) by Zipf's law, {100 * document.repeats:.0f} % of them for one that was asked for before; "
        f"{document.computed.clients} clients, `{document.bundle}`, profile `{document.profile}`. Both servers start "
        f"empty. With the cache {speed_up(document):.2f} times the requests/s. {_where(document.environment)}"
    )
    yield from _markdown(cache_table(document))


def _plan(document: PlanDocument | None) -> Iterator[str]:
    if document is None:
        return
    within = sum(case.worst <= TOLERANCE for case in document.cases)
    yield "## Capacity planner"
    yield from _text(
        f"`dvt bench plan`: what `dvt plan` forecasts ([how](planning.md)) beside {document.images:,} images of each "
        f"case in simulated time, through the queues and batching that serve. p50, p99, mean and utilisation are all "
        f"within {100 * TOLERANCE:g} % in {within} of {len(document.cases)} cases. The worst of each device, exits and "
        f"topology, over loads of {min(LOADS):g} to {max(LOADS):g}:"
    )
    yield from _markdown(plan_table(document.cases))


def _ray(document: RayDocument | None) -> Iterator[str]:
    if document is None:
        return
    stages = " / ".join(f"{1000 * seconds:g}" for seconds in document.stage_seconds)
    yield "## Replicas on Ray Serve"
    yield from _text(
        f"`dvt bench ray`: Ray {document.ray}, stages that sleep ({stages} ms an image, batches of "
        f"{document.max_batch}) instead of computing, so that replicas do not share cores; {document.clients} clients "
        f"whose images are all hard. {_where(document.environment)}"
    )
    yield from _markdown(command_ray.table(document))


def _where(environment: Environment) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    machine = f"{environment.cpu}, {environment.cores} cores"
    return f"{machine}, Python {environment.python}, {packages}; {environment.date} UTC."


def _text(paragraph: str) -> list[str]:
    """Lines of readable length, and an empty one after them."""
    return [*textwrap.wrap(paragraph, 118, break_long_words=False, break_on_hyphens=False), ""]


def _markdown(table: Table, *, headed: bool = False) -> list[str]:
    """The table with an empty line after it."""
    lines = [f"**{table.title}**", ""] if headed else []
    lines += ["| " + " | ".join(row) + " |" for row in (table.columns, ("---",) * len(table.columns), *table.rows)]
    return [*lines, ""]
