"""`dvt bench auto load`: more than the ceiling bears, over HTTP, under the fixed ceiling and under `auto`."""

import argparse
import http.client
import json
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from benchmarks.connection import Target, raw_request
from benchmarks.drive import Closed, Open, drive, record
from benchmarks.floor import open_directly
from benchmarks.geometry import Geometry, read_geometry
from benchmarks.load import Limits, Recorded
from benchmarks.machine import environment
from benchmarks.measure import summarise
from benchmarks.photos import Photos, cropped, load_photos
from benchmarks.processes import HOST, ServerError
from benchmarks.result_files import RESULTS, write_results
from benchmarks.results import AUTO_LOAD_FILE, AutoLoadDocument, AutoLoadRun
from benchmarks.scripted import confidences_of, scripted_profiles
from benchmarks.servers import OwnServer
from benchmarks.show_auto import load_table, plot_load
from models import strict_json
from models.bundle import read_bundle, write_profiles
from models.tables import write_tables
from service.engine.catalogue import AutoGoal

FLOOR, CEILING = "fast", "accurate"
_EMPTY_S = 60.0


def run(args: argparse.Namespace) -> int:
    try:
        document, recorded = measure(args)
    except (ValueError, OSError, ServerError) as error:
        print(f"dvt bench auto load: {error}", file=sys.stderr)
        return 2
    write_results(document, (args.results or RESULTS) / AUTO_LOAD_FILE)
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    write_tables([load_table(document)], sys.stderr)
    if args.png is not None:
        plot_load(document, recorded, args.png)
    return 0


def measure(args: argparse.Namespace) -> tuple[AutoLoadDocument, tuple[Recorded, ...]]:
    """The capacity of the ceiling by a closed loop, then both budgets at a multiple of it. Raises `ValueError`."""
    geometry = read_geometry(args.bundles)
    floor, ceiling = (tuple(part / 100 for part in shares) for shares in (args.floor_shares, args.ceiling_shares))
    photos = load_photos(args.data, args.photos, args.seed)
    if args.data is None:
        photos = cropped(photos, args.photos, args.seed)
    goal = AutoGoal(args.p99_ms, FLOOR, CEILING)
    with tempfile.TemporaryDirectory(prefix="dvt-bench-") as folder:
        bundle = _scripted(geometry, photos, floor, ceiling, Path(folder) / "cascade")
        key = secrets.token_hex(16)
        with OwnServer(bundle, CEILING, {"DVT_ADMIN_KEY": key}).running() as server:
            target = Target(HOST, server.port, "/classify")
            closed = drive(
                target,
                photos.files,
                raw_request,
                Closed(args.clients),
                Limits(args.seconds / 4, args.warmup),
                server.pid,
                "capacity of the ceiling, ",
            )
            capacity = closed.throughput_per_s
            loop = Open(args.times * capacity, args.seed)
            runs, kept = [], []
            budgets: tuple[tuple[str, dict[str, object]], ...] = (
                (f"fixed `{CEILING}`", {"profile": CEILING}),
                ("auto", {"auto": asdict(goal)}),
            )
            for title, request in budgets:
                _wait_until_empty(server.port)
                put_budget(server.port, key, request)
                limits = Limits(args.seconds, args.warmup)
                recorded, usage = record(target, photos.files, raw_request, loop, limits, server.pid, f"{title}, ")
                load = summarise(recorded, usage, offered_per_s=loop.rate_per_s)
                runs.append(AutoLoadRun(title, load, late_share(recorded, goal.p99_ms / 1000), _points(recorded)))
                kept.append(recorded)
    document = AutoLoadDocument(
        environment(),
        geometry.costs.architecture,
        photos.source,
        floor,
        ceiling,
        goal.p99_ms,
        capacity,
        tuple(runs),
    )
    return document, tuple(kept)


def _scripted(
    geometry: Geometry, photos: Photos, floor: tuple[float, ...], ceiling: tuple[float, ...], to: Path
) -> Path:
    """A copy of the cascade with profiles for these photos."""
    bundle = geometry.cascade
    confidences = confidences_of(open_directly(bundle.path), photos)
    profiles = scripted_profiles(bundle, confidences, geometry.costs.exit_gmacs, floor, ceiling)
    shutil.copytree(bundle.path, to)
    write_profiles(read_bundle(to), profiles)
    return to


def put_budget(port: int, key: str, request: dict[str, object]) -> None:
    """Raises `ValueError` with what the server says, where it refuses."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("PUT", "/budget", json.dumps(request), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"PUT /budget: {answer.get('detail', response.status)}")


def _wait_until_empty(port: int) -> None:
    """Raises `ValueError` where images of the run before do not get done."""
    ends_s = time.monotonic() + _EMPTY_S
    while time.monotonic() < ends_s:
        connection = http.client.HTTPConnection(HOST, port, timeout=30)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        if "\ndvt_in_flight_images 0.0\n" in text:
            return
        time.sleep(0.2)
    raise ValueError(f"the server still had images inside after {_EMPTY_S:g} s")


def late_share(recorded: Recorded, objective_s: float) -> float:
    """Of the requests that were answered with 200."""
    took_s = [sample.done_s - sample.due_s for sample in recorded.samples if sample.status == 200]
    return sum(each > objective_s for each in took_s) / max(1, len(took_s))


def _points(recorded: Recorded) -> dict[str, int]:
    found = Counter(sample.point for sample in recorded.samples if sample.point is not None)
    return {str(point): found[point] for point in sorted(found)}
