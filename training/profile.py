"""From a bundle to its profiles.json: temperatures and thresholds on the search split, quoted on the report split.

Shapes: K exits, n images, C classes. Costs are GMACs (1e9 multiply-accumulates) of one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.architectures import as_static
from models.bundle import read_bundle, write_profiles
from models.dvt import DVT
from models.flops import cumulative_gmacs
from models.policy import Measure
from models.profiles import DEFAULT_CLAIMS, PROFILE_NAMES, ExitProfile, OperatingPoint, Profiles
from training.compare import Comparison, compare_measures
from training.data import Unreadable
from training.evaluate import BATCH, ExitLogits, Progress
from training.modelcard import write_promises
from training.operating_points import choose_named, operating_point
from training.probabilities import ExitProbabilities
from training.split_logits import as_measured, collect_splits, eager, find_images
from training.splits import read_record
from training.temperature import Reliability, TemperatureFit, fit_temperature, reliability
from training.thresholds import evaluate_many, threshold_rule
from training.thresholds.frontier import non_dominated
from training.thresholds.rules import RuleName

FRONTIER_POINTS = 60


@dataclass(frozen=True)
class ExitCalibration:
    """An exit's temperature as fitted on the search split, and how honest it makes confidence on the report split."""

    fit: TemperatureFit
    before: Reliability
    after: Reliability


@dataclass(frozen=True)
class Findings:
    """All that the logits of two splits tell about leaving early."""

    exits: tuple[ExitProfile, ...]
    calibration: tuple[ExitCalibration, ...]
    frontier: tuple[OperatingPoint, ...]
    named: dict[str, OperatingPoint]
    comparison: Comparison


@dataclass(frozen=True)
class ProfileRun:
    """What `dvt profile` did: the profiles as written, the findings behind them, the files left out.

    `report_differs`: the report images are not those that were there when the bundle was trained.
    """

    profiles: Profiles
    findings: Findings
    unreadable: tuple[Unreadable, ...]
    report_differs: bool


def find_operating_points(
    search: ExitLogits,
    report: ExitLogits,
    grids: Sequence[int],
    gmacs: Sequence[float],
    measure: Measure = "max_softmax",
    rule: RuleName = "exhaustive",
) -> Findings:
    """Temperatures and thresholds from `search`, by harm; what they cost and achieve, from `report`.

    Thresholds, and which of them are named, are never chosen on `report`. It only drops points from the
    frontier that it shows to be dominated by others there: an operator who asks for a budget wants neither of two.
    """
    costs = np.asarray(gmacs)
    fits = [fit_temperature(logits, search.targets) for logits in search.logits]
    temperatures = [fit.temperature for fit in fits]
    seen, unseen = ExitProbabilities.of(search, temperatures), ExitProbabilities.of(report, temperatures)
    find = threshold_rule(rule)
    sought = seen.calibration_by_harm(costs, measure, "accuracy_drop")
    frontier = find(sought).thinned(FRONTIER_POINTS)
    choice = choose_named(sought, seen.calibration(costs, measure), find, frontier)

    never = np.full((1, len(costs) - 1), np.inf)
    vectors = np.concatenate((frontier.thresholds, never))
    outcomes = evaluate_many(unseen.calibration(costs, measure), vectors)
    rows = choice.rows | {"full": len(frontier)}
    kept = non_dominated(outcomes.mean_gmacs, outcomes.top1)
    untempered = ExitProbabilities.of(report, [1.0] * len(costs))
    return Findings(
        exits=tuple(
            ExitProfile(grid, float(cost), top1, temperature)
            for grid, cost, top1, temperature in zip(grids, costs, report.exit_top1, temperatures, strict=True)
        ),
        calibration=tuple(
            ExitCalibration(
                fit,
                reliability(untempered.probabilities[k], report.targets),
                reliability(unseen.probabilities[k], report.targets),
            )
            for k, fit in enumerate(fits)
        ),
        frontier=tuple(operating_point(vectors, outcomes, int(row)) for row in kept),
        named={name: operating_point(vectors, outcomes, rows[name]) for name in PROFILE_NAMES},
        comparison=compare_measures(seen, unseen, costs, find),
    )


def profile_bundle(
    path: Path,
    data: Path,
    *,
    measure: Measure = "max_softmax",
    rule: RuleName = "exhaustive",
    limit: int | None = None,
    device: torch.device | str = "cpu",
    batch: int = BATCH,
    progress: Progress | None = None,
) -> ProfileRun:
    """Write the profiles of the bundle at `path`, measured on the images under `data` that it was trained from.

    The search images must be those that the bundle recorded, since all others may have been trained on. Report images
    may be new ones. With `limit`, that many images of each split are used. Raises `BundleError`, `DataError`,
    `ValueError`.
    """
    bundle = read_bundle(path)
    images = find_images(bundle, ("search", "report"), data, limit)
    logits = collect_splits(eager(bundle, device), images, bundle.config.input, batch, progress)
    splits = tuple(as_measured(name, chosen) for name, chosen in images.items())
    findings = find_operating_points(
        logits["search"],
        logits["report"],
        [stage.grid for stage in bundle.config.stages],
        cumulative_gmacs(DVT(bundle.config)),
        measure,
        rule,
    )
    profiles = Profiles(
        weights_sha256=bundle.weights_sha256,
        config_sha256=bundle.config_sha256,
        confidence=measure,
        exits=findings.exits,
        splits=splits,
        frontier=findings.frontier,
        named=findings.named,
        static_gmacs=cumulative_gmacs(DVT(as_static(bundle.config)))[0],
        claims=DEFAULT_CLAIMS if bundle.config.exits > 1 else None,
    )
    write_profiles(bundle, profiles)
    write_promises(bundle, profiles)
    report_differs = limit is None and splits[1].sha256 != read_record(bundle.path).report.sha256
    unreadable = tuple(each for split in logits.values() for each in split.unreadable)
    return ProfileRun(profiles, findings, unreadable, report_differs)
