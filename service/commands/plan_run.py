"""The work of `dvt plan`."""

import argparse
import os
import sys

from models import strict_json
from models.bundle import Bundle, read_bundle
from models.tables import write_tables
from service.main import open_bundle
from service.planner.costs import DeviceCosts, measured_costs, read_costs
from service.planner.document import Asked, plan_all
from service.planner.plan import TOPOLOGIES, Objective
from service.planner.show import plot, table
from service.settings import DEFAULT_BUNDLE, load_settings


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0; 1 where an objective is out of reach; 2 for what the user can mend."""
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


def _asked(arguments: argparse.Namespace) -> Asked:
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


def _exit_shares(arguments: argparse.Namespace, bundle: Bundle) -> tuple[float, ...]:
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


def _measured(bundle: Bundle) -> DeviceCosts:
    """On this machine, by the settings of the environment, as `dvt serve` would; of several devices on the first."""
    settings = load_settings(os.environ, {"bundle": str(bundle.path)}).settings
    print("measuring what the stages take here ...", file=sys.stderr)
    return measured_costs(open_bundle(settings, alone=True).backend, bundle.config.input.size_px, settings.max_batch)
