"""`dvt bench peers`: piece by piece, each kept as soon as it is measured."""

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.connection import Target, raw_request
from benchmarks.drive import Closed, Loop, Open, drive
from benchmarks.load import Limits
from benchmarks.machine import environment
from benchmarks.measure import LoadResult
from benchmarks.peers.catalogue import OURS, OURS_STATIC, PEERS, STATIC_BUNDLE, own_server, peer_named
from benchmarks.peers.plan import TAIL_FACTOR, TUNING_SHARE, Next, Piece, best_peer, best_variant, capacity, next_piece
from benchmarks.photos import ROOT, Photos, load_photos
from benchmarks.processes import HOST, ServerError
from benchmarks.result_files import RESULTS, read_results, write_results
from benchmarks.results import PEERS_FILE, PeersDocument
from benchmarks.show import errors_in_words
from models import strict_json
from models.bundle import Bundle, read_bundle
from models.tables import Table, write_tables
from service.settings import DEFAULT_BUNDLE

WARM_UP_S = 3.0


def run(args: argparse.Namespace) -> int:
    path: Path = (args.results or RESULTS) / PEERS_FILE
    try:
        document = _document(args, path)
        photos = load_photos(args.data, args.photos, args.seed)
        make_environments()
        while (coming := next_piece(document.pieces)) is not None:
            piece = _measure(coming, args, photos)
            document = replace(document, pieces=(*document.pieces, piece))
            write_results(document, path)
            print(_line(piece), file=sys.stderr)
            if args.one:
                break
    except (ValueError, OSError, ServerError, subprocess.CalledProcessError) as error:
        print(f"dvt bench peers: {error}", file=sys.stderr)
        return 2
    if next_piece(document.pieces) is None:
        write_tables(list(tables(document)), sys.stderr)
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    return 0


def make_environments() -> None:
    """A virtual environment for each peer, without torch; does nothing where they are made. Raises on failure."""
    for peer in PEERS:
        subprocess.run(
            ["scripts/venv.sh", str(peer.venv), str(peer.requirements)], cwd=ROOT, check=True, stdout=sys.stderr
        )


def _document(args: argparse.Namespace, path: Path) -> PeersDocument:
    """The pieces that there are, if they are of this comparison. Raises `ValueError` if not."""
    photos = load_photos(args.data, args.photos, args.seed)
    ours, static = read_bundle(args.bundle or DEFAULT_BUNDLE), read_bundle(args.static or STATIC_BUNDLE)
    new = PeersDocument(
        photos.source, ours.name, args.profile, _top1(ours, args.profile), static.name, _top1(static, "full"), ()
    )
    kept = None if args.fresh else read_results(PeersDocument, path)
    if kept is None:
        return new
    if replace(kept, pieces=()) != new:
        raise ValueError(f"{path} holds another comparison; --fresh forgets it, --results DIR keeps both")
    return kept


def _top1(bundle: Bundle, profile: str) -> float:
    if bundle.profiles is None or profile not in bundle.profiles.named:
        raise ValueError(f"{bundle.path} has no profile {profile!r}, so nothing is known of its accuracy")
    return bundle.profiles.named[profile].top1


def _measure(coming: Next, args: argparse.Namespace, photos: Photos) -> Piece:
    label = f"{coming.phase} {coming.round}, {coming.server}: "
    loop: Loop = Closed(args.clients)
    seconds = args.seconds * (TUNING_SHARE if coming.phase == "tuning" else 1.0)
    if coming.rate_per_s is not None:
        loop, seconds = Open(coming.rate_per_s, args.seed), args.seconds * TAIL_FACTOR
    limits = Limits(seconds, WARM_UP_S)
    static = (args.static or STATIC_BUNDLE).resolve()

    def drive_at(port: int, pid: int) -> LoadResult:
        return drive(Target(HOST, port, "/classify"), photos.files, raw_request, loop, limits, pid, label)

    if coming.server in (OURS, OURS_STATIC):
        with own_server(coming.server, args.bundle or DEFAULT_BUNDLE, static, args.profile).running() as server:
            result = drive_at(server.port, server.pid)
        settings = "defaults"
    else:
        peer = peer_named(coming.server)
        variant = peer.variants[coming.variant]
        with peer.running(static, variant, photos.files[0]) as server:
            result = drive_at(server.port, server.pid)
        settings = variant.title
    if result.requests == 0:
        # Not kept: nothing can be compared with it, and the next try may find the machine less busy.
        raise ServerError(
            f"{coming.server} ({settings}) answered no request with 200: {errors_in_words(result)} errors"
        )
    return Piece(coming.phase, coming.round, coming.server, settings, environment(), result)


def _line(piece: Piece) -> str:
    latency = piece.result.latency
    tail = "" if latency is None else f", p99 {latency.p99_ms:.0f} ms"
    return (
        f"{piece.phase} {piece.round}, {piece.server} ({piece.settings}): {piece.result.throughput_per_s:.1f} "
        f"requests/s{tail}"
    )


def tables(document: PeersDocument) -> tuple[Table, ...]:
    """The comparison, once all its pieces are there: capacity and CPU with ratios, then the tail."""
    pieces = document.pieces
    best = best_peer(pieces)
    ours = capacity(pieces, OURS)
    rows = []
    for server in (OURS, OURS_STATIC, *(peer.name for peer in PEERS)):
        runs = [piece.result for piece in pieces if piece.phase == "capacity" and piece.server == server]
        peer = next((peer for peer in PEERS if peer.name == server), None)
        rows.append(
            (
                server if peer is None else f"{peer.name} {peer.version}",
                "defaults" if peer is None else peer.variants[best_variant(pieces, server)].title,
                *(f"{result.throughput_per_s:.1f}" for result in runs),
                f"{ours / capacity(pieces, server):.2f}",
                f"{_mean([result.server_cpu_ms or 0.0 for result in runs]):.2f}",
                f"{_mean([result.generator_cpu_ms for result in runs]):.2f}",
                str(sum(sum(result.errors.values()) for result in runs)),
            )
        )
    columns = ("server", "settings", "round 1, requests/s", "round 2", "ours over it", "server CPU ms a request")
    capacities = Table("Closed loop", (*columns, "generator CPU ms", "errors"), tuple(rows))
    tail_rows = []
    for server in (OURS, best):
        runs = [piece.result for piece in pieces if piece.phase == "tail" and piece.server == server]
        for number, result in enumerate(runs, start=1):
            assert result.latency is not None, "a run without an answer has no tail"
            latency = result.latency
            tail_rows.append(
                (
                    server,
                    str(number),
                    f"{result.offered_per_s:.1f}",
                    f"{latency.p50_ms:.1f}",
                    f"{latency.p95_ms:.1f}",
                    f"{latency.p99_ms:.1f}",
                    str(sum(result.errors.values())),
                )
            )
    tail_columns = ("server", "round", "offered, requests/s", "p50 ms", "p95 ms", "p99 ms", "errors")
    return capacities, Table(f"Open loop at half of {best}'s capacity", tail_columns, tuple(tail_rows))


def tail_ratio(document: PeersDocument) -> float:
    """p99 of ours over the best peer's, means of the rounds."""
    best = best_peer(document.pieces)
    ours, theirs = (
        _mean(
            [
                piece.result.latency.p99_ms
                for piece in document.pieces
                if piece.phase == "tail" and piece.server == server and piece.result.latency is not None
            ]
        )
        for server in (OURS, best)
    )
    return ours / theirs


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
