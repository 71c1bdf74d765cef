"""What `dvt plan --json` prints: the plans, and all that they were made from."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.planner.costs import DeviceCosts
from service.planner.forecast import Load
from service.planner.plan import Objective, Plan, Topology, UnreachableError, plan


@dataclass(frozen=True)
class Asked:
    """What is to be planned; `front_s` of each image beyond the stages, on their cores."""

    bundle: str
    device: DeviceCosts
    exit_shares: tuple[float, ...]
    front_s: float
    rates_per_s: tuple[float, ...]
    topologies: tuple[Topology, ...]
    objective: Objective


@dataclass(frozen=True)
class PlanDocument:
    """`batch_s`, `lanes` and `max_batch` are those of `DeviceCosts`, so that this file can be planned from again.

    `unreachable`: why there is no plan for a topology that was asked for.
    """

    bundle: str
    exit_shares: tuple[float, ...]
    p99_ms: float
    front_ms: float
    hop_ms: float
    spare: int
    most_load: float
    batch_s: tuple[dict[str, float], ...]
    lanes: int
    max_batch: int
    plans: tuple[Plan, ...]
    unreachable: tuple[str, ...]


def plan_all(asked: Asked) -> PlanDocument:
    """Raises `ValueError` for shares or prices that do not fit the device."""
    load = Load(asked.device.with_front(asked.front_s), asked.exit_shares)
    objective = asked.objective
    if objective.stage_prices and len(objective.stage_prices) != asked.device.stages:
        raise ValueError(
            f"{len(objective.stage_prices)} prices for {asked.device.stages} stages: give one, or one a stage"
        )
    plans: list[Plan] = []
    unreachable: list[str] = []
    for topology in asked.topologies:
        try:
            plans += _at_rates(load, topology, asked.rates_per_s, objective)
        except UnreachableError as error:
            unreachable.append(str(error))
    return PlanDocument(
        asked.bundle,
        asked.exit_shares,
        1000 * objective.p99_s,
        1000 * asked.front_s,
        1000 * objective.hop_s,
        objective.spare,
        objective.most_load,
        asked.device.batch_s,
        asked.device.lanes,
        asked.device.max_batch,
        tuple(plans),
        tuple(unreachable),
    )


def _at_rates(load: Load, topology: Topology, rates_per_s: Sequence[float], objective: Objective) -> list[Plan]:
    return [plan(load, topology, rate, objective) for rate in rates_per_s]
