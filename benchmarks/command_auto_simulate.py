"""`dvt bench auto simulate`: what `auto` does under each shape of load, in simulated time, beside its fixed ceiling."""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.floor import open_directly
from benchmarks.machine import environment
from benchmarks.result_files import RESULTS, write_results
from benchmarks.results import AUTO_SIMULATION_FILE, AutoSimulationDocument, SimulatedRun
from benchmarks.show_auto import plot_simulated, simulated_table
from benchmarks.simulation import Device, Simulated, simulate
from benchmarks.traffic import Traffic, shapes
from models import strict_json
from models.bundle import read_bundle
from models.profiles import Profiles
from models.progress import Progress
from models.tables import write_tables
from service.backends.base import StageBackend
from service.engine.catalogue import AutoGoal, BudgetRequest, Catalogue
from service.errors import ServiceError
from service.planner.costs import measured_costs
from service.settings import DEFAULT_BUNDLE, Settings


def run(args: argparse.Namespace) -> int:
    try:
        document, ran = measure(args)
    except (ValueError, OSError) as error:
        print(f"dvt bench auto simulate: {error}", file=sys.stderr)
        return 2
    except ServiceError as error:
        print(f"dvt bench auto simulate: {error.detail}", file=sys.stderr)
        return 2
    name = AUTO_SIMULATION_FILE.format(bundle=document.bundle)
    write_results(document, (args.results or RESULTS) / name)
    if args.json:
        sys.stdout.write(strict_json.dumps(document))
    write_tables([simulated_table(document)], sys.stderr)
    if args.png is not None:
        plot_simulated(document, ran, args.png)
    return 0


def measure(args: argparse.Namespace) -> tuple[AutoSimulationDocument, Sequence[tuple[Traffic, str, Simulated]]]:
    """Raises `ValueError` for a bundle without profiles, and what resolving the budgets raises."""
    bundle = read_bundle(args.bundle or DEFAULT_BUNDLE)
    if bundle.profiles is None:
        raise ValueError(f"{bundle.path} has no profiles to choose from: run `dvt profile` on it")
    goal = AutoGoal(args.p99_ms, args.floor, args.ceiling)
    # Checked first, so that a mistake costs no measurement.
    points = Catalogue(len(bundle.profiles.exits), bundle.profiles).range_of(goal)
    settings = Settings()
    device = measured_device(open_directly(bundle.path).backend, bundle.config.input.size_px, settings.max_batch)
    floor, ceiling = (_capacity(device, bundle.profiles, name) for name in (goal.floor, goal.ceiling))
    ran: list[tuple[Traffic, str, Simulated]] = []
    budgets = (
        (f"fixed `{goal.ceiling}`", BudgetRequest(profile=goal.ceiling)),
        (f"auto, {len(points)} points", BudgetRequest(auto=goal)),
    )
    with Progress("simulated runs", unit="") as progress:
        for traffic in shapes(args.seconds):
            for name, request in budgets:
                progress.update(len(ran), 2 * len(shapes(args.seconds)), f"{traffic.name}, {name}")
                outcome = simulate(
                    bundle.profiles,
                    device,
                    request,
                    traffic,
                    capacity_per_s=ceiling,
                    queue_limit=settings.queue_limit,
                    seed=args.seed,
                )
                ran.append((traffic, name, outcome))
        progress.update(len(ran), len(ran))
    document = AutoSimulationDocument(
        environment(),
        bundle.name,
        goal.floor,
        goal.ceiling,
        goal.p99_ms,
        device.batch_s,
        device.lanes,
        device.max_batch,
        settings.queue_limit,
        ceiling,
        floor / ceiling,
        args.seconds,
        args.seed,
        tuple(_summary(traffic, name, outcome, goal.p99_ms / 1000) for traffic, name, outcome in ran),
    )
    return document, ran


def measured_device(backend: StageBackend, size_px: int, max_batch: int) -> Device:
    costs = measured_costs(backend, size_px, max_batch)
    return Device(costs.batch_s, costs.lanes, costs.max_batch)


def _capacity(device: Device, profiles: Profiles, name: str) -> float:
    shares = profiles.named[name].exit_shares
    assert shares is not None, "the range was resolved"
    return device.capacity_per_s(shares)


def _summary(traffic: Traffic, budget: str, ran: Simulated, objective_s: float) -> SimulatedRun:
    return SimulatedRun(
        traffic.name,
        budget,
        ran.offered,
        len(ran.refused_s),
        1000 * ran.latency_s(0.5),
        1000 * ran.latency_s(0.99),
        ran.late_share(objective_s),
        ran.gmacs,
        ran.top1,
        len(ran.switches),
        ran.most_switches_a_minute,
    )
