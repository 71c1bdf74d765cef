"""`dvt bench cache`: the same images again and again, by Zipf's law, with and without the cache."""

import argparse
import random
import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from benchmarks.connection import Target, raw_request
from benchmarks.drive import Closed, drive
from benchmarks.load import Limits
from benchmarks.machine import environment
from benchmarks.measure import LoadResult
from benchmarks.photos import Photos, cropped, load_photos
from benchmarks.processes import HOST, ServerError
from benchmarks.result_files import RESULTS, write_results
from benchmarks.results import CACHE_FILE, CacheDocument
from benchmarks.servers import OwnServer
from models import strict_json
from models.tables import Table, write_tables
from service.settings import DEFAULT_BUNDLE

# Requests end a run, not time: both runs send the same.
_LONGEST_S = 3600.0


def run(args: argparse.Namespace) -> int:
    """Measures, keeps the result, and says what came out."""
    try:
        bundle: Path = args.bundle or DEFAULT_BUNDLE
        photos = cropped(load_photos(args.data, args.photos, args.seed), args.images, args.seed)
        document = measure(bundle, args.profile, photos, args.clients, args.requests, args.seed)
    except (ValueError, OSError, ServerError) as error:
        print(f"dvt bench cache: {error}", file=sys.stderr)
        return 2
    write_results(document, (args.results or RESULTS) / CACHE_FILE)
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    write_tables([cache_table(document)], sys.stderr)
    return 0


def zipf(images: int, requests: int, seed: int) -> list[int]:
    """Which image each request is for: the most popular one twice as often as the second, three times as the third."""
    weights = list(accumulate(1 / rank for rank in range(1, images + 1)))
    return random.Random(seed).choices(range(images), cum_weights=weights, k=requests)


def measure(bundle: Path, profile: str, photos: Photos, clients: int, requests: int, seed: int) -> CacheDocument:
    """The same requests to a server without the cache and to one with it, both of which have seen none before."""
    order = zipf(len(photos.files), requests, seed)
    sent = [photos.files[image] for image in order]
    return CacheDocument(
        environment(),
        photos.source,
        bundle.name,
        profile,
        len(photos.files),
        requests,
        1 - len(set(order)) / requests,
        _load(bundle, profile, "off", sent, clients),
        _load(bundle, profile, "key", sent, clients),
    )


def _load(bundle: Path, profile: str, cache: str, sent: Sequence[bytes], clients: int) -> LoadResult:
    with OwnServer(bundle, profile, {"DVT_CACHE": cache}).running() as server:
        target = Target(HOST, server.port, "/classify")
        limits = Limits(_LONGEST_S, 0.0, len(sent))
        return drive(target, sent, raw_request, Closed(clients), limits, server.pid, f"cache {cache}, ")


def speed_up(document: CacheDocument) -> float:
    """Requests/s with the cache over those without."""
    return document.cached.throughput_per_s / document.computed.throughput_per_s


def cache_table(document: CacheDocument) -> Table:
    title = f"{document.requests:,} requests for {document.images:,} images, {speed_up(document):.2f} times as fast"
    rows = tuple(_row(name, result) for name, result in (("off", document.computed), ("key", document.cached)))
    return Table(title, ("DVT_CACHE", "requests/s", "p50 ms", "p99 ms", "server CPU ms", "errors"), rows)


def _row(name: str, result: LoadResult) -> tuple[str, ...]:
    latency = result.latency
    percentiles = ("", "") if latency is None else (f"{latency.p50_ms:.1f}", f"{latency.p99_ms:.1f}")
    cpu = "" if result.server_cpu_ms is None else f"{result.server_cpu_ms:.2f}"
    return (name, f"{result.throughput_per_s:.1f}", *percentiles, cpu, str(sum(result.errors.values())))
