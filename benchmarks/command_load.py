"""`dvt bench load`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.connection import Target, form_request, parse_target, raw_request
from benchmarks.drive import Closed, Loop, Open, drive
from benchmarks.load import Limits
from benchmarks.machine import Environment, environment
from benchmarks.measure import LoadResult
from benchmarks.photos import load_photos
from benchmarks.processes import HOST, ServerError
from benchmarks.servers import OwnServer
from benchmarks.show import plot_latency, show_loads
from models import strict_json
from service.settings import DEFAULT_BUNDLE

CLIENTS = 16


@dataclass(frozen=True)
class LoadDocument:
    """What `--json` prints. `bundle` and `profile` are None where the server was not started here."""

    environment: Environment
    target: str
    bundle: str | None
    profile: str | None
    photos: str
    runs: tuple[LoadResult, ...]


def run(args: argparse.Namespace) -> int:
    try:
        document = measure(args)
    except (ValueError, OSError, ServerError) as error:
        print(f"dvt bench load: {error}", file=sys.stderr)
        return 2
    title = f"{document.bundle or document.target}, {document.photos}"
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    show_loads(title, document.runs)
    if args.png is not None:
        plot_latency(title, document.runs, args.png)
    failed = any(result.requests == 0 for result in document.runs)
    if failed:
        print("dvt bench load: a run had no answer at all", file=sys.stderr)
    return 1 if failed else 0


def measure(args: argparse.Namespace) -> LoadDocument:
    """Raises `ValueError` for arguments that do not fit together, `ServerError` where ours does not start."""
    if args.png is not None and args.rate is None:
        raise ValueError("--png needs --rate: latency is drawn against offered load")
    if args.url is not None and args.bundle is not None:
        raise ValueError("--url and BUNDLE exclude each other: measure that server, or serve this bundle")
    if args.pid is not None and args.url is None:
        raise ValueError("--pid is for --url; a server started here is known")
    query = _query(args.query)
    photos = load_photos(args.data, args.photos, args.seed)
    limits = Limits(args.seconds, args.warmup, args.requests)
    loops: list[Loop] = [Closed(args.clients or CLIENTS)]
    if args.rate is not None:
        loops = [Open(rate, args.seed) for rate in args.rate]
    encode = form_request if args.form == "multipart" else raw_request

    def runs(target: Target, pid: int | None) -> tuple[LoadResult, ...]:
        return tuple(drive(target, photos.files, encode, loop, limits, pid) for loop in loops)

    if args.url is not None:
        target = parse_target(args.url).with_query(query)
        document = LoadDocument(environment(), target.url, None, None, photos.source, ())
        return replace(document, runs=runs(target, args.pid))
    bundle: Path = args.bundle or DEFAULT_BUNDLE
    with OwnServer(bundle, args.profile).running() as server:
        target = Target(HOST, server.port, "/classify").with_query(query)
        document = LoadDocument(environment(), target.url, bundle.name, args.profile, photos.source, ())
        return replace(document, runs=runs(target, server.pid))


def _query(pairs: Sequence[str]) -> dict[str, str]:
    query = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--query is {pair!r}; write KEY=VALUE, such as top_k=1")
        query[key] = value
    return query
