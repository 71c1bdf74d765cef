"""`dvt bench server cpu|alone|memory`: what serving costs beyond decoding and the stages."""

import argparse
import asyncio
import http.client
import re
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.connection import Connection, Target, raw_request
from benchmarks.drive import Closed, drive
from benchmarks.floor import Batches, Direct, crowded, open_directly
from benchmarks.load import Limits, closed_loop
from benchmarks.machine import environment
from benchmarks.photos import Photos, load_photos
from benchmarks.processes import HOST, ServerError, family_rss_bytes, thread_cpu_s
from benchmarks.result_files import RESULTS, write_results
from benchmarks.results import (
    ALONE_FILE,
    CPU_FILE,
    MEMORY_FILE,
    AloneDocument,
    CpuDocument,
    MemoryDocument,
    MemoryPoint,
)
from benchmarks.servers import OwnServer
from models import strict_json
from models.progress import Progress
from service.settings import DEFAULT_BUNDLE

FLOOR_IMAGES = 600
FLOOR_ROUNDS = 2
# One client: photos of a block, blocks, and those at a block's start that only warm the caches again.
BLOCK, BLOCKS, COLD = 60, 5, 10
MEMORY_STEP = 1000


def run(args: argparse.Namespace) -> int:
    """Measures, keeps the result, and says in one line what came out."""
    try:
        photos = load_photos(args.data, args.photos, args.seed)
        bundle: Path = args.bundle or DEFAULT_BUNDLE
        if args.what == "cpu":
            cpu = measure_cpu(bundle, args.profile, photos, args.clients, args.seconds)
            document: object = cpu
            name, words = CPU_FILE, cpu_words(cpu)
        elif args.what == "alone":
            alone = measure_alone(bundle, args.profile, photos)
            document, name, words = alone, ALONE_FILE, alone_words(alone)
        else:
            memory = measure_memory(bundle, args.profile, photos, args.clients, args.requests)
            document, name, words = memory, MEMORY_FILE, memory_words(memory)
    except (ValueError, OSError, ServerError) as error:
        print(f"dvt bench server: {error}", file=sys.stderr)
        return 2
    write_results(document, (args.results or RESULTS) / name)
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    print(words, file=sys.stderr)
    return 0


def measure_cpu(bundle: Path, profile: str, photos: Photos, clients: int, seconds: float) -> CpuDocument:
    """The server under a closed loop, then decoding and stages directly, in batches as large as the server's were."""
    with OwnServer(bundle, profile).running() as server:
        target = Target(HOST, server.port, "/classify")
        drive(target, photos.files, raw_request, Closed(clients), Limits(1.0, 2.0), server.pid, "warm-up, ")
        threads, before = thread_cpu_s(server.pid), _batches_so_far(server.port)
        load = drive(target, photos.files, raw_request, Closed(clients), Limits(seconds, 0.0), server.pid)
        main_s = thread_cpu_s(server.pid)[server.pid] - threads[server.pid]
        after = _batches_so_far(server.port)
    done = tuple(
        (images - images_before, batches - batches_before)
        for (images, batches), (images_before, batches_before) in zip(after, before, strict=True)
    )
    first = done[0][0]
    batches = Batches(
        tuple(images / max(1.0, count) for images, count in done), tuple(images / first for images, _ in done)
    )
    opened = open_directly(bundle)
    direct = Direct(opened, profile)
    crowded(opened, direct, photos.files, 100, batches)
    floors = []
    with Progress("decoding and stages directly", unit="") as progress:
        for number in range(FLOOR_ROUNDS):
            progress.update(number, FLOOR_ROUNDS)
            floors.append(crowded(opened, direct, photos.files, FLOOR_IMAGES, batches))
    return CpuDocument(
        environment(),
        photos.source,
        bundle.name,
        profile,
        load,
        1000 * main_s / max(1, load.requests),
        batches.mean_images,
        tuple(floors),
    )


def cpu_beyond_ms(document: CpuDocument) -> float:
    """Server CPU a request beyond decoding and stages."""
    floors = document.floors
    images = sum(floor.images for floor in floors)
    floor_ms = sum(floor.cpu_ms * floor.images for floor in floors) / images
    assert document.load.server_cpu_ms is not None, "the server was ours"
    return document.load.server_cpu_ms - floor_ms


def cpu_words(document: CpuDocument) -> str:
    floors = ", ".join(f"{floor.cpu_ms:.2f}" for floor in document.floors)
    return (
        f"server {document.load.server_cpu_ms:.2f} ms of CPU a request (event loop {document.main_thread_ms:.2f}), "
        f"decoding and stages directly {floors}: {cpu_beyond_ms(document):.2f} ms beyond; "
        f"{document.load.throughput_per_s:.1f} requests/s"
    )


def _batches_so_far(port: int) -> tuple[tuple[float, float], ...]:
    """Images and batches of each stage since the start, from the server's own metrics."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    found = {
        (kind, int(stage)): float(value)
        for kind, stage, value in re.findall(
            r'^dvt_batch_images_(sum|count)\{stage="(\d+)"\} (\S+)$', text, re.MULTILINE
        )
    }
    stages = sorted({stage for _, stage in found})
    if not stages:
        raise ValueError("the server's metrics have no dvt_batch_images")
    return tuple((found["sum", stage], found["count", stage]) for stage in stages)


def measure_alone(bundle: Path, profile: str, photos: Photos) -> AloneDocument:
    """The same photos by HTTP, one client, and directly in this process, in alternating blocks: neither has company."""
    direct = Direct(open_directly(bundle), profile)
    chosen = [photos.files[index % len(photos.files)] for index in range(BLOCK)]
    client_ms: list[float] = []
    direct_ms: list[float] = []
    with (
        OwnServer(bundle, profile).running() as server,
        Progress("one client, and directly", unit="") as progress,
    ):
        requests = [raw_request(Target(HOST, server.port, "/classify"), photo) for photo in chosen]
        for block in range(BLOCKS + 1):
            progress.update(block, BLOCKS + 1)
            by_http = asyncio.run(_one_client(server.port, requests))
            directly = []
            for photo in chosen:
                started_s = time.perf_counter()
                direct.classify(photo)
                directly.append(1000 * (time.perf_counter() - started_s))
            if block:  # The first warms up.
                client_ms += by_http[COLD:]
                direct_ms += directly[COLD:]
    return AloneDocument(environment(), photos.source, bundle.name, profile, tuple(client_ms), tuple(direct_ms))


async def _one_client(port: int, requests: list[bytes]) -> list[float]:
    """Milliseconds of each request, one after another on one connection."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, HOST, port)
    taken = []
    try:
        for request in requests:
            started_s = time.perf_counter()
            response = await connection.ask(request)
            taken.append(1000 * (time.perf_counter() - started_s))
            if response.status != 200:
                raise ValueError(f"a lone request was answered with {response.status}")
    finally:
        connection.close()
    return taken


def alone_beyond_ms(document: AloneDocument) -> float:
    return median(document.client_ms) - median(document.direct_ms)


def alone_words(document: AloneDocument) -> str:
    return (
        f"one client: {median(document.client_ms):.2f} ms, directly {median(document.direct_ms):.2f} ms (medians of "
        f"{len(document.client_ms)}): {alone_beyond_ms(document):.2f} ms beyond"
    )


def measure_memory(bundle: Path, profile: str, photos: Photos, clients: int, requests: int) -> MemoryDocument:
    """Resident memory of the server each time another thousand requests are answered."""
    points: list[MemoryPoint] = []
    with OwnServer(bundle, profile).running() as server, Progress("memory", unit="req") as progress:
        target = Target(HOST, server.port, "/classify")

        def tick(answered: int, _: float) -> None:
            if answered >= MEMORY_STEP * (len(points) + 1):
                points.append(MemoryPoint(answered, family_rss_bytes(server.pid)))
                progress.update(answered, requests)

        encoded = [raw_request(target, photo) for photo in photos.files]
        limits = Limits(seconds=3600.0, warmup_s=0.0, requests=requests)
        recorded = asyncio.run(closed_loop(target, encoded, clients, limits, lambda: None, tick))
        answered = sum(sample.status == 200 for sample in recorded.samples)
        points.append(MemoryPoint(answered, family_rss_bytes(server.pid)))
    if answered < requests:
        raise ValueError(f"only {answered} of {requests} requests were answered with 200")
    return MemoryDocument(environment(), photos.source, bundle.name, profile, clients, tuple(points))


def memory_growth(document: MemoryDocument) -> float:
    """Memory at the end over that after the first thousand."""
    return document.points[-1].rss_bytes / document.points[0].rss_bytes


def memory_words(document: MemoryDocument) -> str:
    first, last = document.points[0], document.points[-1]
    return (
        f"{first.rss_bytes / 2**20:.1f} MiB after {first.requests:,} requests, {last.rss_bytes / 2**20:.1f} MiB after "
        f"{last.requests:,}: {memory_growth(document):.4f}"
    )
