"""Measurements of backends for docs/backends.md: `python -m benchmarks.backends copies | decisions | spinning | speed`.

Results go to benchmarks/results/ as JSON.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from benchmarks.decisions import Way, measure_decisions
from benchmarks.machine import Environment, environment, installed
from benchmarks.photos import load_photos
from benchmarks.result_files import RESULTS, write_results
from benchmarks.spinning import Load, measure_spinning
from benchmarks.state_copies import measure_copies
from models.bundle import read_bundle
from service.backends.base import Capacity, StageBackend
from service.backends.choose import Named, Wanted, image_seconds, open_backend
from service.decode import ImageLimits, decode, silence_pillow


@dataclass(frozen=True)
class SpeedRun:
    """CPU milliseconds of an image through all stages, over all threads, in full batches."""

    backend: str
    round: int
    cpu_ms_an_image: float


@dataclass(frozen=True)
class SpeedDocument:
    environment: Environment
    torch: dict[str, str]
    architecture: str
    batch: int
    threads: int
    runs: tuple[SpeedRun, ...]


SHIPPED = Path("checkpoints/imagenette-hybrid")
_STATE_BYTES = 1 << 30


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backends", description=__doc__)
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    for name, run, text in (
        ("copies", _copies, "copy cost of state as a share of stage time"),
        ("decisions", _decisions, "how often exit decisions differ between batch sizes, backends and precisions"),
        ("speed", _speed, "CPU time of an image at full depth, by backend"),
        ("spinning", _spinning, "threads that wait busily or not, while photos are decoded"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--bundle", type=Path, default=SHIPPED, help=f"default: {SHIPPED}")
        command.add_argument("--threads", type=int, default=2, help="of a stage (default: 2)")
        command.add_argument("--batch", type=int, default=8, help="default: 8")
        command.add_argument("--data", type=Path, help="folder of JPEG photos (default: the samples)")
        command.add_argument("--photos", type=int, default=400, help="how many of them (default: 400)")
        command.add_argument("--rounds", type=int, default=3, help="default: 3; of copies, times 10")
        command.add_argument("--seconds", type=float, default=10.0, help="of each run of spinning (default: 10)")
        command.add_argument("--profile", default="balanced", help="of spinning (default: balanced)")
        command.add_argument("--backends", default="onnx,eager", help="of speed (default: onnx,eager)")
        command.set_defaults(run=run)
    args = parser.parse_args()
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"benchmarks.backends: {error}", file=sys.stderr)
        return 2
    return 0


def _copies(args: argparse.Namespace) -> None:
    document = measure_copies(read_bundle(args.bundle), args.batch, args.threads, 10 * args.rounds)
    for stage in document.stages:
        print(
            f"stage {stage.stage}: {stage.stage_ms:.1f} ms a batch, copies {stage.copies_ms:.2f} ms, "
            f"{100 * stage.share:.1f} %",
            file=sys.stderr,
        )
    write_results(document, RESULTS / f"backend-copies-{document.architecture}.json")


def _decisions(args: argparse.Namespace) -> None:
    bundle = read_bundle(args.bundle)
    photos = load_photos(args.data, args.photos, seed=0)
    silence_pillow()
    limits = ImageLimits(max_bytes=1 << 26, max_side_px=8192)
    pixels = [decode(photo, bundle.config.input, limits) for photo in photos.files]
    capacity = Capacity(args.batch, _STATE_BYTES, args.batch)

    def opened(way: Way) -> tuple[Way, StageBackend]:
        wanted = Wanted(way.backend, "cpu", args.threads, capacity, way.precision, lanes=1)
        return way, open_backend(bundle, wanted).backend

    sizes = sorted({1, 2, 3, args.batch})
    ways = [opened(Way("onnx", "float32", size)) for size in sizes]
    ways += [opened(Way("eager", "float32", size)) for size in (1, args.batch)]
    ways.append(opened(Way("eager", "bfloat16", args.batch)))
    document = measure_decisions(bundle, pixels, photos.source, ways, lambda way: print(way, file=sys.stderr))
    for found in document.found:
        print(
            f"{found.way} {found.profile}: exits {found.exits_differ:.4f}, labels {found.labels_differ:.4f}, "
            f"confidence by at most {found.confidence:.1e}",
            file=sys.stderr,
        )
    write_results(document, RESULTS / f"backend-decisions-{bundle.name}.json")


def _speed(args: argparse.Namespace) -> None:
    bundle = read_bundle(args.bundle)
    capacity = Capacity(args.batch, _STATE_BYTES, args.batch)
    backends: list[StageBackend] = []
    for name in args.backends.split(","):
        if name not in get_args(Named):
            raise ValueError(f"{name!r} is no backend, those are {', '.join(get_args(Named))}")
        backends.append(open_backend(bundle, Wanted(name, "cpu", args.threads, capacity, lanes=1)).backend)
    runs = []
    for number in range(1, args.rounds + 1):
        for backend in backends if number % 2 else reversed(backends):
            # CPU time, since it says the same beside other work.
            seconds = image_seconds(backend, bundle.config.input.size_px, time.process_time)
            runs.append(SpeedRun(backend.name, number, 1e3 * seconds))
            print(runs[-1], file=sys.stderr)
    document = SpeedDocument(
        environment(), installed(("torch",)), bundle.config.architecture, args.batch, args.threads, tuple(runs)
    )
    write_results(document, RESULTS / f"backend-speed-{document.architecture}.json")


def _spinning(args: argparse.Namespace) -> None:
    load = Load(args.profile, args.threads, args.threads, args.batch, 8 * args.batch, args.seconds)
    silence_pillow()
    photos = load_photos(args.data, args.photos, seed=0)
    document = measure_spinning(read_bundle(args.bundle), photos, load, args.rounds)
    for run in document.runs:
        print(run, file=sys.stderr)
    print(f"not spinning over spinning: {document.quiet_over_busy:.3f}", file=sys.stderr)
    write_results(document, RESULTS / "backend-spinning.json")


if __name__ == "__main__":
    sys.exit(main())
