"""Chapters of docs/performance.md, one a subject: lines of Markdown; none where it was not measured."""

from collections.abc import Iterator

from benchmarks import command_engine, command_peers, command_ray
from benchmarks.command_cache import cache_table, speed_up
from benchmarks.command_server import alone_words, cpu_words
from benchmarks.page import markdown, paragraph, where
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.plan import Piece
from benchmarks.plan_check import LOADS, TOLERANCE, plan_table
from benchmarks.results import (
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
from models.tables import Table


def engine(document: EngineDocument | None) -> Iterator[str]:
    if document is None:
        return
    verdict = command_engine.verdict(document)
    shares = "/".join(f"{100 * share:g}" for share in document.shares)
    yield "## The engine"
    yield from paragraph(
        f"`dvt bench geometry DIR && dvt bench engine DIR`: random weights with the geometry of "
        f"`{document.architecture}`, exits scripted by `max_exit` in shares of {shares} %, batch {document.batch}, "
        f"{document.in_flight} images in flight, {document.threads} threads; the ways alternate, over one backend. "
        f"{where(document.environment)}"
    )
    for table in command_engine.tables(document):
        yield from markdown(table)
    yield from paragraph(
        f"FLOPs saved by these exits: {verdict.flop_saving:.2f} times; the engine is {verdict.over_static:.2f} times "
        "as fast as with the static twin."
    )


def peers(document: PeersDocument | None) -> Iterator[str]:
    if document is None:
        return
    yield "## Other servers"
    yield from paragraph(
        f"`dvt bench peers --data PATH`: `{document.bundle}` with the profile `{document.profile}` "
        f"({100 * document.top1:.2f} % top-1) served by this service with its defaults; `{document.static_bundle}` "
        f"({100 * document.static_top1:.2f} %) by the others through the same ONNX Runtime with the same "
        f"preprocessing, and by this service too. Photos: {document.photos}. Two rounds in alternating order, server "
        f"and load generator accounted apart. {where(document.pieces[-1].environment)}"
    )
    for table in command_peers.tables(document):
        yield from markdown(table, headed=True)
    tuning = tuple(_tuning_row(piece) for piece in document.pieces if piece.phase == "tuning")
    yield from paragraph("Settings tried for each peer (workers x threads of each); the best are used above:")
    yield from markdown(Table("", ("server", "settings", "requests/s"), tuning))
    yield from (f"- {peer.name} {peer.version}: {peer.fixed}." for peer in PEERS)
    yield ""


def _tuning_row(piece: Piece) -> tuple[str, ...]:
    return (piece.server, piece.settings, f"{piece.result.throughput_per_s:.1f}")


def cpu(document: CpuDocument | None) -> Iterator[str]:
    if document is None:
        return
    batches = ", ".join(f"{mean:.1f}" for mean in document.mean_batches)
    yield "## CPU beyond decoding and stages"
    yield from paragraph(
        f"`dvt bench server cpu --data PATH`: {document.load.clients} clients on `{document.bundle}`, profile "
        f"`{document.profile}`, {document.photos}. The floor is decoding threads and stages at work at once in one "
        f"process, in batches as large as the server's ({batches}). {where(document.environment)}"
    )
    yield from paragraph(f"Measured: {cpu_words(document)}.")


def alone(document: AloneDocument | None) -> Iterator[str]:
    if document is None:
        return
    yield "## One client"
    yield from paragraph(
        f"`dvt bench server alone --data PATH`: the same photos ({document.photos}) by HTTP to `{document.bundle}`, "
        f"profile `{document.profile}`, and directly, in alternating blocks on an idle machine. "
        f"{where(document.environment)}"
    )
    yield from paragraph(f"Measured: {alone_words(document)}.")


def memory(document: MemoryDocument | None) -> Iterator[str]:
    if document is None:
        return
    every = max(1, len(document.points) // 10)
    shown = (*document.points[:-1:every], document.points[-1])
    rows = tuple((f"{point.requests:,}", f"{point.rss_bytes / 2**20:.1f}") for point in shown)
    yield "## Memory"
    yield from paragraph(
        f"`dvt bench server memory --data PATH`: `{document.bundle}`, {document.clients} clients. "
        f"{where(document.environment)}"
    )
    yield from markdown(Table("", ("requests", "resident MiB"), rows))


def auto(load: AutoLoadDocument | None, simulated: tuple[AutoSimulationDocument, ...]) -> Iterator[str]:
    if load is None and not simulated:
        return
    yield "## Budget by load"
    if load is not None:
        shares = " to ".join(
            "/".join(f"{100 * share:g}" for share in each) for each in (load.floor_shares, load.ceiling_shares)
        )
        yield from paragraph(
            f"`dvt bench geometry DIR && dvt bench auto load DIR`: random weights with the geometry of "
            f"`{load.architecture}` behind HTTP, in an open loop; thresholds lie between the confidences that the "
            f"photos ({load.photos}) happen to have, so that exits are taken in shares of {shares} %, floor to "
            f"ceiling. A closed loop got {load.capacity_per_s:.1f} requests/s out of the ceiling. "
            f"{where(load.environment)}"
        )
        yield from markdown(load_table(load), headed=True)
    for each in simulated:
        stages = " / ".join(f"{1000 * seconds['1']:.1f}" for seconds in each.batch_s)
        yield from paragraph(
            f"`dvt bench auto simulate`: {each.seconds:g} s of each shape of load in simulated time, through the "
            f"admission, queues, batching and controller that serve. A stage takes what the warm-up measured "
            f"({stages} ms a single image, {each.lanes} lanes); top-1 is that of the points which images were let in "
            f"under, on the report split. {where(each.environment)}"
        )
        yield from markdown(simulated_table(each), headed=True)


def cache(document: CacheDocument | None) -> Iterator[str]:
    if document is None:
        return
    yield "## The same images again"
    yield from paragraph(
        f"`dvt bench cache --data PATH`: {document.requests:,} requests for {document.images:,} images "
        f"({document.photos}) by Zipf's law, {100 * document.repeats:.0f} % of them for one that was asked for before; "
        f"{document.computed.clients} clients, `{document.bundle}`, profile `{document.profile}`. Both servers start "
        f"empty. With the cache {speed_up(document):.2f} times the requests/s. {where(document.environment)}"
    )
    yield from markdown(cache_table(document))


def plan(document: PlanDocument | None) -> Iterator[str]:
    if document is None:
        return
    within = sum(case.worst <= TOLERANCE for case in document.cases)
    yield "## Capacity planner"
    yield from paragraph(
        f"`dvt bench plan`: what `dvt plan` forecasts ([how](planning.md)) beside {document.images:,} images of each "
        f"case in simulated time, through the queues and batching that serve. p50, p99, mean and utilisation are all "
        f"within {100 * TOLERANCE:g} % in {within} of {len(document.cases)} cases. The worst of each device, exits and "
        f"topology, over loads of {min(LOADS):g} to {max(LOADS):g}:"
    )
    yield from markdown(plan_table(document.cases))


def ray(document: RayDocument | None) -> Iterator[str]:
    if document is None:
        return
    stages = " / ".join(f"{1000 * seconds:g}" for seconds in document.stage_seconds)
    yield "## Replicas on Ray Serve"
    yield from paragraph(
        f"`dvt bench ray`: Ray {document.ray}, stages that sleep ({stages} ms an image, batches of "
        f"{document.max_batch}) instead of computing, so that replicas do not share cores; {document.clients} clients "
        f"whose images are all hard. {where(document.environment)}"
    )
    yield from markdown(command_ray.table(document))
