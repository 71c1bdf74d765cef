"""From profiles to certificates: how much harm leaving early does, proved on images that nothing was chosen on.

Candidates and their order come from the search split, the proof from the certify split, what is quoted beside it from
the report split. What is proved are whole threshold vectors, as `training.risk` says.

Shapes: K exits, n images, P threshold vectors.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from models.bundle import read_bundle, write_profiles
from models.policy import Measure
from models.profiles import Certificate, Claim, ClaimGrid, Profiles, Risk
from training.data import Unreadable
from training.evaluate import BATCH, Progress
from training.modelcard import write_promises
from training.onnx_cascade import OnnxCascade
from training.operating_points import operating_point
from training.probabilities import ExitProbabilities
from training.risk import Ints, fixed_sequence, p_values, samples_needed, upper_bound
from training.split_logits import MeasuredOn, as_measured, collect_splits, eager, find_images
from training.thresholds import Calibration, Floats, ThresholdRule, evaluate_many, threshold_rule
from training.thresholds.rules import RuleName

CANDIDATES = 60
PRECISION = "float32"

BackendName = Literal["onnx", "eager"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)

_SPLITS: tuple[MeasuredOn, ...] = ("search", "certify", "report")


@dataclass(frozen=True)
class ClaimOutcome:
    """One claim: of `candidates` vectors, from safest to cheapest, the first `certified` hold it.

    The cheapest of those is `thresholds` (K - 1,), inf is "never"; `harmed` of the n images showed its harm. Both are
    of the vector that never leaves early where that alone holds the claim; None and 0 where there are too few images.
    """

    claim: Claim
    candidates: int
    certified: int
    thresholds: Floats | None
    harmed: int


@dataclass(frozen=True)
class Bound:
    """A named profile's own risk, chosen before any of these images was seen: pointwise, not jointly with others."""

    profile: str
    risk: Risk
    harmed: int
    upper: float


@dataclass(frozen=True)
class CertifyRun:
    """What `dvt certify` did: the profiles as written, each claim's test, bounds of the named profiles on their own."""

    profiles: Profiles
    samples: int
    tested: tuple[ClaimOutcome, ...]
    bounds: tuple[Bound, ...]
    unreadable: tuple[Unreadable, ...]


def candidates(search: Calibration, rule: ThresholdRule) -> Floats:
    """Vectors (P, K - 1) to test, from safest to cheapest: never to leave, then the frontier of harm and cost."""
    frontier = rule(search).thinned(CANDIDATES)
    never = np.full((1, search.exits - 1), np.inf)
    return np.concatenate((never, frontier.thresholds[::-1]))


def count_harmed(calibration: Calibration, thresholds: Floats) -> Ints:
    """How many samples each vector (P, K - 1) harms, (P,); `calibration.correct` says which exits do not."""
    unharmed = evaluate_many(calibration, thresholds).top1 * calibration.samples
    return calibration.samples - np.rint(unharmed).astype(np.int64)


def check_claims(
    search: ExitProbabilities,
    certify: ExitProbabilities,
    cumulative_gmacs: Floats,
    measure: Measure,
    claims: ClaimGrid,
    rule: ThresholdRule,
) -> tuple[ClaimOutcome, ...]:
    """Each of `claims`, proved on `certify` with its part of their delta."""
    harm: dict[Risk, tuple[Floats, Ints]] = {}
    for risk in dict.fromkeys(claim.risk for claim in claims.claims):
        vectors = candidates(search.calibration_by_harm(cumulative_gmacs, measure, risk), rule)
        harm[risk] = vectors, count_harmed(certify.calibration_by_harm(cumulative_gmacs, measure, risk), vectors)
    samples = len(certify.targets)
    return tuple(_check(claim, *harm[claim.risk], samples, claims.claim_delta) for claim in claims.claims)


def _check(claim: Claim, vectors: Floats, harmed: Ints, samples: int, delta: float) -> ClaimOutcome:
    certified = fixed_sequence(p_values(harmed, samples, claim.epsilon), delta)
    if certified == 0:
        return ClaimOutcome(claim, len(vectors), 0, None, 0)
    last = certified - 1
    return ClaimOutcome(claim, len(vectors), certified, vectors[last], int(harmed[last]))


def bound_profiles(
    certify: ExitProbabilities, profiles: Profiles, cumulative_gmacs: Floats, delta: float
) -> tuple[Bound, ...]:
    """Clopper and Pearson's bound of each named profile's risks, each by itself with probability 1 - delta."""
    names = list(profiles.named)
    vectors = np.array([[np.inf if t is None else t for t in profiles.named[name].thresholds] for name in names])
    risks = {claim.risk for claim in profiles.claims.claims} if profiles.claims else set()
    bounds = []
    for risk in sorted(risks):
        harmed = count_harmed(certify.calibration_by_harm(cumulative_gmacs, profiles.confidence, risk), vectors)
        for name, count in zip(names, harmed.tolist(), strict=True):
            bounds.append(Bound(name, risk, count, upper_bound(count, len(certify.targets), delta)))
    return tuple(bounds)


def certify_bundle(
    path: Path,
    data: Path,
    *,
    backend: BackendName | None = None,
    rule: RuleName = "exhaustive",
    limit: int | None = None,
    device: torch.device | str = "cpu",
    batch: int = BATCH,
    progress: Progress | None = None,
) -> CertifyRun:
    """Prove what can be proved of the profiles' claims, and write it into profiles.json and the model card.

    Search and certify images must be those that the bundle recorded. `backend` computes them, by default the graphs
    where the bundle has them, as a service does. With `limit`, that many images of each split are used. Raises
    `BundleError`, `DataError`, `ValueError`.
    """
    bundle = read_bundle(path)
    profiles = bundle.profiles
    if profiles is None or profiles.claims is None:
        raise ValueError(f"{path} has no claims to prove: run `dvt profile` on it first (a single exit has none)")
    backend = backend or ("eager" if bundle.onnx is None else "onnx")
    forward = OnnxCascade(bundle) if backend == "onnx" else eager(bundle, device)
    images = find_images(bundle, _SPLITS, data, limit)
    logits = collect_splits(forward, images, bundle.config.input, batch, progress)
    temperatures = [each.temperature for each in profiles.exits]
    search, certify, report = (ExitProbabilities.of(logits[name], temperatures) for name in _SPLITS)
    costs = np.array([each.gmacs for each in profiles.exits])

    tested = check_claims(search, certify, costs, profiles.confidence, profiles.claims, threshold_rule(rule))
    held = [(test, test.thresholds) for test in tested if test.thresholds is not None]
    vectors = np.array([thresholds for _, thresholds in held]).reshape(len(held), bundle.config.exits - 1)
    outcomes = evaluate_many(report.calibration(costs, profiles.confidence), vectors)
    # Those that could not be read prove nothing.
    split = replace(as_measured("certify", images["certify"]), size=len(certify.targets))
    certificates = tuple(
        Certificate(
            test.claim,
            profiles.claims.claim_delta,
            operating_point(vectors, outcomes, row),
            split,
            test.harmed,
            backend,
            PRECISION,
        )
        for row, (test, _) in enumerate(held)
    )
    certified = replace(profiles, certificates=certificates)
    write_promises(write_profiles(bundle, certified), certified)
    return CertifyRun(
        certified,
        split.size,
        tested,
        bound_profiles(certify, profiles, costs, profiles.claims.delta),
        tuple(each for found in logits.values() for each in found.unreadable),
    )


def why_not(test: ClaimOutcome, claims: ClaimGrid, samples: int) -> str:
    """Why a claim could not be proved for anything cheaper than all exits; empty where it could."""
    if test.certified > 1:
        return ""
    needed = samples_needed(test.claim.epsilon, claims.claim_delta)
    if samples < needed:
        return f"{needed:,} images without one harmed would be needed, there are {samples:,}"
    return "the safest candidate harms too many images for so few of them; more certify images may help"
