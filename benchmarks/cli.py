"""`dvt bench`: load on a server, the engine beside simpler ways to run a cascade, the peers, the page made of them."""

import argparse
import importlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from models.arguments import natural, positive, positive_number

PHOTOS = 500
# Kept short: a run is repeated more easily than a long one is trusted.
SECONDS = 20.0


def add_bench(parser: argparse.ArgumentParser) -> None:
    """One subcommand a measurement. Progress goes to standard error, `--json` alone to standard output."""
    parser.description = "Measure: `dvt bench load` is the one for everyday, the others make docs/performance.md."
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    for name, add, text in (
        ("load", _add_load, "HTTP load on a server: a closed loop of clients, or Poisson arrivals at a rate"),
        ("geometry", _add_geometry, "make the bundles of random weights that `engine` computes with"),
        ("engine", _add_engine, "the engine in process, with scripted exits, beside simpler ways to run a cascade"),
        ("gpu", _add_gpu, "stages, cascade and static twin on a GPU, against what it can do at most"),
        ("server", _add_server, "what serving costs beyond decoding and the stages: CPU, latency, memory"),
        ("cache", _add_cache, "the same images again and again, by Zipf's law, with and without the cache"),
        ("auto", _add_auto, "budget by load beside its fixed ceiling: in simulated time, or over HTTP"),
        ("plan", _add_plan, "the capacity planner's formulas beside the simulation of many replicas"),
        ("peers", _add_peers, "other servers with the static twin, beside this one, on the same photos"),
        ("ray", _add_ray, "replicas on Ray Serve, of the whole service and of single stages, with stages that sleep"),
        ("report", _add_report, "write docs/performance.md from benchmarks/results/"),
    ):
        add(commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}."))


def _add_photos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder of JPEG photos (default: the samples)")
    parser.add_argument("--photos", type=positive, default=PHOTOS, metavar="N", help="how many of them (default: 500)")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of photos and arrivals (default: 0)")


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="results as JSON on standard output, and nothing else there"
    )
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="where results are kept (default: benchmarks/results)"
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", nargs="?", type=Path, metavar="BUNDLE", help="served for the run (default: the shipped)"
    )
    parser.add_argument(
        "--url", metavar="URL", help="a running server instead, wherever it is; only then may it be remote"
    )
    parser.add_argument("--pid", type=positive, metavar="PID", help="process of that server, to account for its CPU")
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--clients", type=positive, metavar="N", help="closed loop of so many clients (default: 16)")
    load.add_argument("--rate", type=_rates, metavar="R[,R...]", help="open loop: requests/s, one run for each")
    parser.add_argument("--seconds", type=positive_number, default=SECONDS, metavar="S", help="measured (default: 20)")
    parser.add_argument("--warmup", type=positive_number, default=3.0, metavar="S", help="not measured (default: 3)")
    parser.add_argument("--requests", type=positive, default=1_000_000, metavar="N", help="stop after so many")
    parser.add_argument(
        "--profile", default="balanced", metavar="NAME", help="of the served bundle (default: balanced)"
    )
    parser.add_argument("--query", action="append", default=[], metavar="KEY=VALUE", help="parameter of every request")
    parser.add_argument("--form", choices=("raw", "multipart"), default="raw", help="of the body (default: raw)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="picture of latency against offered load")
    parser.add_argument(
        "--json", action="store_true", help="results as JSON on standard output, and nothing else there"
    )
    _add_photos(parser)
    parser.set_defaults(run=_lazily("command_load:run"))


def _add_geometry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; gets a cascade and its static twin")
    parser.add_argument("--architecture", default="dvt_t2t_vit_12", metavar="NAME", help="default: dvt_t2t_vit_12")
    parser.set_defaults(run=_lazily("command_engine:run_geometry"))


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", type=Path, metavar="BUNDLES", help="folder made by `dvt bench geometry`")
    parser.add_argument("--jobs", type=positive, default=240, metavar="N", help="images a measurement (default: 240)")
    parser.add_argument(
        "--in-flight", type=positive, default=64, metavar="N", help="at once in the engine (default: 64)"
    )
    parser.add_argument("--rounds", type=positive, default=2, metavar="N", help="in alternating order (default: 2)")
    parser.add_argument("--batch", type=positive, default=8, metavar="N", help="largest batch (default: 8)")
    parser.add_argument("--threads", type=positive, metavar="N", help="of a stage (default: all cores)")
    parser.add_argument(
        "--shares", default="60,25,15", metavar="A,B,C", help="of the images that leave at each exit, in per cent"
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of the order of exits (default: 0)")
    _add_results(parser)
    parser.set_defaults(run=_lazily("command_engine:run_engine_rows"))


def _add_gpu(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundles", type=Path, default=Path("build"), metavar="DIR", help="of random weights; made there"
    )
    parser.add_argument(
        "--architectures",
        default="dvt_t2t_vit_12,dvt_t2t_vit_14,dvt_deit_small",
        metavar="A,B",
        help="default: dvt_t2t_vit_12,dvt_t2t_vit_14,dvt_deit_small",
    )
    parser.add_argument(
        "--backends",
        default="cudagraph,compiled-cudagraph,eager,compiled",
        metavar="A,B",
        help="the first with all its pieces first (default: cudagraph,compiled-cudagraph,eager,compiled)",
    )
    parser.add_argument(
        "--batches", type=_numbers, default=(1, 8, 64, 256, 1024), metavar="N,M", help="default: 1,8,64,256,1024"
    )
    parser.add_argument(
        "--kernel-batches", type=_numbers, default=(1, 64, 256), metavar="N,M", help="of kernels (default: 1,64,256)"
    )
    parser.add_argument(
        "--in-flight", type=_numbers, default=(1, 64, 1024), metavar="N,M", help="images at once in the engine"
    )
    parser.add_argument(
        "--jobs", type=positive, default=32768, metavar="N", help="images of a run, at most (default: 32768)"
    )
    parser.add_argument(
        "--minutes", type=positive_number, metavar="N", help="begin no piece after so many (default: no limit)"
    )
    parser.add_argument("--precision", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="what has this in its name: relations, pointwise, ..."
    )
    parser.add_argument("--device", metavar="DEVICE", help="default: cuda where there is one, else cpu for a try")
    _add_photos(parser)
    _add_results(parser)
    parser.set_defaults(run=_lazily("gpu.command:run"))


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("cpu", "alone", "memory"), help="CPU a request, latency of one client, memory")
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="default: the shipped")
    parser.add_argument("--profile", default="balanced", metavar="NAME", help="default: balanced")
    parser.add_argument("--seconds", type=positive_number, default=SECONDS, metavar="S", help="of load (default: 20)")
    parser.add_argument("--clients", type=positive, default=16, metavar="N", help="for cpu and memory (default: 16)")
    parser.add_argument("--requests", type=positive, default=20_000, metavar="N", help="for memory (default: 20000)")
    _add_photos(parser)
    _add_results(parser)
    parser.set_defaults(run=_lazily("command_server:run"))


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="default: the shipped")
    parser.add_argument("--profile", default="balanced", metavar="NAME", help="default: balanced")
    parser.add_argument("--images", type=positive, default=1000, metavar="N", help="different ones (default: 1000)")
    parser.add_argument("--requests", type=positive, default=10_000, metavar="N", help="of each run (default: 10000)")
    parser.add_argument("--clients", type=positive, default=16, metavar="N", help="of the closed loop (default: 16)")
    _add_photos(parser)
    _add_results(parser)
    parser.set_defaults(run=_lazily("command_cache:run"))


def _add_auto(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="HOW", required=True)
    simulated = commands.add_parser("simulate", help="each shape of load in simulated time, stages as measured here")
    simulated.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="default: the shipped")
    simulated.add_argument("--p99-ms", type=positive_number, default=100.0, metavar="MS", help="default: 100")
    simulated.add_argument("--floor", default="fast", metavar="NAME", help="profile (default: fast)")
    simulated.add_argument("--ceiling", default="full", metavar="NAME", help="profile (default: full)")
    simulated.add_argument(
        "--seconds", type=positive_number, default=600.0, metavar="S", help="simulated, of each shape (default: 600)"
    )
    loaded = commands.add_parser("load", help="open loops over HTTP, on random weights with scripted exits")
    loaded.add_argument("bundles", type=Path, metavar="BUNDLES", help="folder made by `dvt bench geometry`")
    loaded.add_argument("--p99-ms", type=positive_number, default=1000.0, metavar="MS", help="default: 1000")
    loaded.add_argument(
        "--times", type=positive_number, default=1.5, metavar="X", help="of the ceiling's capacity (default: 1.5)"
    )
    loaded.add_argument("--seconds", type=positive_number, default=120.0, metavar="S", help="of a run (default: 120)")
    loaded.add_argument("--warmup", type=positive_number, default=15.0, metavar="S", help="before it (default: 15)")
    loaded.add_argument(
        "--clients", type=positive, default=16, metavar="N", help="that find the capacity (default: 16)"
    )
    loaded.add_argument(
        "--floor-shares", type=_rates, default=(95.0, 4.0, 1.0), metavar="A,B,C", help="of exits, in per cent (95,4,1)"
    )
    loaded.add_argument(
        "--ceiling-shares", type=_rates, default=(60.0, 25.0, 15.0), metavar="A,B,C", help="the same (60,25,15)"
    )
    for each, name in ((simulated, "command_auto_simulate:run"), (loaded, "command_auto_load:run")):
        each.add_argument("--png", type=Path, metavar="FILE", help="picture of it")
        _add_results(each)
        each.set_defaults(run=_lazily(name))
    simulated.add_argument("--seed", type=natural, default=0, metavar="N", help="of arrivals and images (default: 0)")
    _add_photos(loaded)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=positive, default=200_000, metavar="N", help="simulated, of each case (default: 200000)"
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of arrivals and exits (default: 0)")
    _add_results(parser)
    parser.set_defaults(run=_lazily("command_plan:run"))


def _add_peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--one", action="store_true", help="only the next piece (one server, one short run), then end")
    parser.add_argument("--fresh", action="store_true", help="forget the pieces that were measured before")
    parser.add_argument("--seconds", type=positive_number, default=SECONDS, metavar="S", help="a piece (default: 20)")
    parser.add_argument("--clients", type=positive, default=16, metavar="N", help="of the closed loop (default: 16)")
    parser.add_argument("--bundle", type=Path, metavar="BUNDLE", help="ours (default: the shipped)")
    parser.add_argument("--static", type=Path, metavar="BUNDLE", help="the peers' (default: the shipped one's twin)")
    parser.add_argument("--profile", default="balanced", metavar="NAME", help="of ours (default: balanced)")
    _add_photos(parser)
    _add_results(parser)
    parser.set_defaults(run=_lazily("command_peers:run"))


def _add_ray(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=positive_number, default=30.0, metavar="S", help="of a run (default: 30)")
    parser.add_argument("--clients", type=positive, default=32, metavar="N", help="of the closed loop (default: 32)")
    _add_results(parser)
    parser.set_defaults(run=_lazily("command_ray:run"))


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: docs/performance.md")
    parser.set_defaults(run=_lazily("report:run"))


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers of 1 or more, with commas between."""
    return tuple(positive(word) for word in text.split(","))


def _rates(text: str) -> tuple[float, ...]:
    """Numbers above 0, with commas between."""
    return tuple(positive_number(word) for word in text.split(","))


def _terminated(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _lazily(name: str) -> Callable[[argparse.Namespace], int]:
    """`module:function` of this package, imported when it is called."""
    module, _, function = name.partition(":")

    def run(args: argparse.Namespace) -> int:
        # A server that was started here must not outlive the measurement, however that ends.
        before = signal.signal(signal.SIGTERM, _terminated)
        try:
            return int(getattr(importlib.import_module(f"benchmarks.{module}"), function)(args))
        finally:
            signal.signal(signal.SIGTERM, before)

    return run
