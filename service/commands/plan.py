"""`dvt plan`: how many replicas a load needs."""

import argparse
from pathlib import Path

from models.arguments import natural, positive_number
from service.planner.plan import MOST_LOAD

# From one machine to what the largest services get.
_RATES = (10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)
# Decoding and HTTP of a photo. With it the capacity planned for the machine of docs/performance.md is about what was
# measured there, 460 requests/s.
_FRONT_MS = 2.6


def add_plan(parser: argparse.ArgumentParser) -> None:
    """`dvt plan [BUNDLE] [--costs FILE] [--rate R,R] [--p99-ms MS]`."""
    parser.description = (
        "Replicas, latency and price for a load: by queueing formulas (docs/planning.md) over what the stages cost "
        "here, measured as `dvt serve` does when it warms up, or in a file."
    )
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="default: the shipped")
    parser.add_argument(
        "--costs",
        type=Path,
        metavar="FILE",
        help="costs of another machine: the JSON of `dvt plan` or `dvt bench auto simulate` there",
    )
    shares = parser.add_mutually_exclusive_group()
    shares.add_argument("--profile", default="balanced", metavar="NAME", help="whose exit shares (default: balanced)")
    shares.add_argument(
        "--shares", type=_numbers, metavar="A,B,C", help="of images that leave at each exit, in per cent"
    )
    parser.add_argument(
        "--rate", type=_positive, default=_RATES, metavar="R[,R...]", help="images/s (default: 10 to a million)"
    )
    parser.add_argument("--p99-ms", type=positive_number, default=100.0, metavar="MS", help="objective (default: 100)")
    parser.add_argument("--topology", choices=("whole", "stages", "both"), default="both", help="default: both")
    parser.add_argument(
        "--price",
        type=_positive,
        default=(1.0,),
        metavar="P[,P...]",
        help="of a replica an hour; or of each stage's pool, the first that of a whole replica too (default: 1)",
    )
    parser.add_argument(
        "--front-ms",
        type=_not_negative,
        default=_FRONT_MS,
        metavar="MS",
        help=f"CPU of an image beyond the stages, on their cores; 0 beside a GPU (default: {_FRONT_MS:g})",
    )
    parser.add_argument(
        "--hop-ms", type=_not_negative, default=1.0, metavar="MS", help="from pool to pool (default: 1)"
    )
    parser.add_argument("--spare", type=natural, default=0, metavar="N", help="replicas more in each pool (default: 0)")
    parser.add_argument(
        "--most-load",
        type=_load,
        default=MOST_LOAD,
        metavar="X",
        help=f"of a pool's capacity; beyond {MOST_LOAD:g} forecasts are less exact (default: {MOST_LOAD:g})",
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="picture of it; needs matplotlib")
    parser.add_argument("--json", action="store_true", help="JSON on standard output, and nothing else there")
    parser.set_defaults(run=run_plan)


def run_plan(args: argparse.Namespace) -> int:
    from service.commands import plan_run

    return plan_run.run(args)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_not_negative(word) for word in text.split(","))


def _positive(text: str) -> tuple[float, ...]:
    return tuple(positive_number(word) for word in text.split(","))


def _load(text: str) -> float:
    share = positive_number(text)
    if not 0.05 <= share <= 0.9:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0.05 and 0.9")
    return share


def _not_negative(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0.0") else positive_number(text)
