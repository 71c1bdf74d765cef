"""From a bundle to its profiles.json: temperatures and thresholds on the search split, quoted on the report split.

Shapes: K exits, n images, C classes. Costs are GMACs (1e9 multiply-accumulates) of one image.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.architectures import as_static
from models.bundle import read_bundle, write_profiles
from models.dvt import DVT, load_bundle
from models.flops import cumulative_gmacs
from models.policy import Measure, confidence, softmax
from models.profiles import PROFILE_NAMES, ExitProfile, OperatingPoint, Profiles, Split
from training.compare import Comparison, ExitProbabilities, compare_measures
from training.data import ImageFolder, ImageList, StreamedImages, Unreadable
from training.devices import placed
from training.evaluate import BATCH, ExitLogits, Progress, collect_logits, evenly_limited, with_model_targets
from training.operating_points import choose_named
from training.splits import find_again, hash_files, hash_of_set, read_record
from training.temperature import TemperatureFit, expected_calibration_error, fit_temperature
from training.thresholds import Calibration, Floats, Outcomes, evaluate_many, threshold_rule
from training.thresholds.frontier import non_dominated
from training.thresholds.rules import RuleName

FRONTIER_POINTS = 60


@dataclass(frozen=True)
class ExitCalibration:
    """An exit's temperature as fitted on the search split, and its calibration error on the report split (0..1)."""

    fit: TemperatureFit
    report_ece_before: float
    report_ece_after: float


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
    """Temperatures and thresholds from `search`; what they cost and achieve, from `report`.

    Thresholds, and which of them are named, are never chosen on `report`. It only drops points from the
    frontier that it shows to be dominated by others there: an operator who asks for a budget wants neither of two.
    """
    costs = np.asarray(gmacs)
    fits = [fit_temperature(logits, search.targets) for logits in search.logits]
    temperatures = [fit.temperature for fit in fits]
    seen, unseen = _tempered(search, temperatures), _tempered(report, temperatures)
    calibration = _calibration(seen, costs, measure)
    find = threshold_rule(rule)
    frontier = find(calibration).thinned(FRONTIER_POINTS)
    choice = choose_named(calibration, find, frontier)

    never = np.full((1, calibration.exits - 1), np.inf)
    vectors = np.concatenate((frontier.thresholds, never))
    outcomes = evaluate_many(_calibration(unseen, costs, measure), vectors)
    rows = choice.rows | {"full": len(frontier)}
    kept = non_dominated(outcomes.mean_gmacs, outcomes.top1)
    untempered = _tempered(report, [1.0] * calibration.exits)
    return Findings(
        exits=tuple(
            ExitProfile(grid, float(cost), top1, temperature)
            for grid, cost, top1, temperature in zip(grids, costs, report.exit_top1, temperatures, strict=True)
        ),
        calibration=tuple(
            ExitCalibration(
                fit,
                expected_calibration_error(untempered.probabilities[k], report.targets),
                expected_calibration_error(unseen.probabilities[k], report.targets),
            )
            for k, fit in enumerate(fits)
        ),
        frontier=tuple(_operating_point(vectors, outcomes, int(row)) for row in kept),
        named={name: _operating_point(vectors, outcomes, rows[name]) for name in PROFILE_NAMES},
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
    record = read_record(bundle.path)
    folder = ImageFolder.scan(data)
    model = placed(load_bundle(path), device)
    sets = [
        evenly_limited(with_model_targets(images, folder, bundle.config.labels), limit)
        for images in (find_again(record, "search", data), folder.report)
    ]
    splits = tuple(
        Split(name, len(images), hash_of_set(hash_files(images.root, images.paths)))
        for name, images in zip(("search", "report"), sets, strict=True)
    )
    total = sum(map(len, sets))
    search = _logits_of(model, sets[0], batch, progress and (lambda done, _: progress(done, total)))
    report = _logits_of(model, sets[1], batch, progress and (lambda done, _: progress(len(sets[0]) + done, total)))
    findings = find_operating_points(
        search, report, [stage.grid for stage in bundle.config.stages], cumulative_gmacs(model), measure, rule
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
    )
    write_profiles(bundle, profiles)
    report_differs = limit is None and splits[1].sha256 != record.report.sha256
    return ProfileRun(profiles, findings, search.unreadable + report.unreadable, report_differs)


def _logits_of(model: DVT, images: ImageList, batch: int, progress: Progress | None) -> ExitLogits:
    with closing(StreamedImages(images, model.config.input)) as source:
        return collect_logits(model, source, batch=batch, progress=progress)


def _tempered(split: ExitLogits, temperatures: Sequence[float]) -> ExitProbabilities:
    probabilities = [softmax(logits, t) for logits, t in zip(split.logits, temperatures, strict=True)]
    return ExitProbabilities(np.stack(probabilities), split.targets)


def _calibration(split: ExitProbabilities, costs: Floats, measure: Measure) -> Calibration:
    correct = split.probabilities.argmax(axis=-1) == split.targets
    return Calibration(confidence(split.probabilities, measure), correct, costs)


def _operating_point(vectors: Floats, outcomes: Outcomes, row: int) -> OperatingPoint:
    """As profiles.json has it: never is None, and rounding that left 0..1 by a hair is undone."""
    thresholds = tuple(None if np.isinf(value) else float(np.clip(value, 0.0, 1.0)) for value in vectors[row])
    outcome = outcomes[row]
    return OperatingPoint(thresholds, outcome.top1, outcome.mean_gmacs, outcome.exit_shares)
