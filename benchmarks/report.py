"""`dvt bench report`: docs/performance.md from the kept results, so that no number in it is written by hand."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks import chapters, command_engine, command_ray
from benchmarks.command_peers import tail_ratio
from benchmarks.command_server import alone_beyond_ms, cpu_beyond_ms, memory_growth
from benchmarks.goals import AT_LEAST, AT_MOST, Goal
from benchmarks.gpu.chapter import Device, chapter, device_goals, read_devices
from benchmarks.page import markdown, paragraph
from benchmarks.peers.catalogue import OURS
from benchmarks.peers.plan import best_peer, capacity, next_piece
from benchmarks.photos import ROOT
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
from models.bundle import write_file_atomically
from models.tables import Table

PAGE = ROOT / "docs" / "performance.md"
NOTES = "notes.md"

D = TypeVar("D")
N = TypeVar("N")


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
    devices: tuple[Device, ...] = ()

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
            read_devices(folder),
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
        *device_goals(kept.devices),
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
        *paragraph(
            "Made by `dvt bench report` from `benchmarks/results/*.json`; every number is a ratio, or stands beside "
            "its like, within one run on one machine. How each is measured is written below, with the command."
        ),
        *markdown(Table("", ("what", "needed", "measured", "reached"), tuple(goal.row() for goal in goals(kept)))),
        *chapters.engine(kept.engine),
        *chapters.peers(kept.peers),
        *chapters.cpu(kept.cpu),
        *chapters.alone(kept.alone),
        *chapters.memory(kept.memory),
        *chapters.auto(kept.auto_load, kept.auto_simulated),
        *chapters.cache(kept.cache),
        *chapters.plan(kept.plan),
        *chapters.ray(kept.ray),
        *(line for device in kept.devices for line in chapter(device)),
    ]
    return "\n".join([*lines, *([notes.strip(), ""] if notes.strip() else [])])
