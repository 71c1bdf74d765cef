"""The command `dvt plan`."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from models.arguments import natural, positive_number
from service.planner.plan import MOST_LOAD

if TYPE_CHECKING:
    from models.bundle import Bundle
    from service.planner.costs import DeviceCosts
    from service.planner.document import Asked

# From one machine to what the largest services get.
_RATES = (10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)
# Decoding and HTTP of a photo. With it the capacity planned for the machine of docs/performance.md is the one that was
# measured there, 460 requests/s.
_FRONT_MS = 2.4


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


def run_plan(arguments: argparse.Namespace) -> int:
    """Exit code 0; 1 where an objective is out of reach; 2 for what the user can mend."""
    from models import strict_json
    from models.tables import write_tables
    from service.planner.document import plan_all
    from service.planner.show import plot, table

    try:
        document = plan_all(_asked(arguments))
    except (ValueError, OSError) as error:
        print(f"dvt plan: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        sys.stdout.write(strict_json.dumps(document))
    if document.plans:
        write_tables([table(document)], sys.stderr)
    for reason in document.unreachable:
        print(f"dvt plan: {reason}", file=sys.stderr)
    if arguments.png is not None and document.plans:
        plot(document, arguments.png)
    return 1 if document.unreachable else 0


def _asked(arguments: argparse.Namespace) -> "Asked":
    from models.bundle import read_bundle
    from service.planner.costs import read_costs
    from service.planner.document import Asked
    from service.planner.plan import TOPOLOGIES, Objective
    from service.settings import DEFAULT_BUNDLE

    prices: tuple[float, ...] = arguments.price
    bundle = read_bundle(arguments.bundle or DEFAULT_BUNDLE)
    # Checked first, so that a mistake costs no measurement.
    exit_shares = _exit_shares(arguments, bundle)
    return Asked(
        bundle.name,
        read_costs(arguments.costs) if arguments.costs is not None else _measured(bundle),
        exit_shares,
        arguments.front_ms / 1000,
        tuple(sorted(arguments.rate)),
        TOPOLOGIES if arguments.topology == "both" else (arguments.topology,),
        Objective(
            arguments.p99_ms / 1000,
            prices[0],
            prices if len(prices) > 1 else (),
            arguments.hop_ms / 1000,
            arguments.spare,
            arguments.most_load,
        ),
    )


def _exit_shares(arguments: argparse.Namespace, bundle: "Bundle") -> tuple[float, ...]:
    if arguments.shares is not None:
        total = sum(arguments.shares)
        if abs(total - 100) > 0.1 or len(arguments.shares) != bundle.config.exits:
            raise ValueError(f"--shares must be {bundle.config.exits} and 100 altogether, they are {arguments.shares}")
        return tuple(share / total for share in arguments.shares)
    if bundle.profiles is None:
        raise ValueError(f"{bundle.path} has no profiles: run `dvt profile` on it, or give --shares")
    named = bundle.profiles.named
    if arguments.profile not in named:
        raise ValueError(f"{bundle.name} has no profile {arguments.profile!r}; it has {', '.join(named)}")
    shares = named[arguments.profile].exit_shares
    if shares is None:
        raise ValueError(f"of profile {arguments.profile!r} the exit shares are not known: give --shares")
    return shares


def _measured(bundle: "Bundle") -> "DeviceCosts":
    """On this machine, by the settings of the environment, as `dvt serve` would."""
    from service.main import open_bundle
    from service.planner.costs import measured_costs
    from service.settings import load_settings

    settings = load_settings(os.environ, {"bundle": str(bundle.path)}).settings
    print("measuring what the stages take here ...", file=sys.stderr)
    return measured_costs(open_bundle(settings).backend, bundle.config.input.size_px, settings.max_batch)


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
