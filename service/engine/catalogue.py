"""What an operator can ask of a bundle, and the thresholds that each of it means.

Of everything that was measured the cheapest or the most accurate point that meets what is asked; where none does, the
error names the nearest that could be had.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate

from models.profiles import RISKS, Certificate, OperatingPoint, Profiles, check_thresholds
from service.errors import (
    BudgetNotMetError,
    InvalidParameterError,
    InvalidThresholdsError,
    NotReadyError,
    UnknownProfileError,
)
from service.types import Thresholds

DEFAULT_QUANTILE = 0.95
AUTO_QUANTILE = 0.99
FORMS = ("profile", "thresholds", "gmacs", "latency_ms", "max_risk", "auto")


@dataclass(frozen=True)
class AutoGoal:
    """That 99 % of images are answered within `p99_ms`, by whatever lies between two profiles: `ceiling` where the load
    allows it, nothing cheaper than `floor`."""

    p99_ms: float
    floor: str
    ceiling: str


@dataclass(frozen=True)
class BudgetRequest:
    """What is asked for: exactly one of `FORMS`; `quantile` goes with `latency_ms`, `ceiling` with any.

    `gmacs`: a mean an image; `latency_ms`: computation of the `quantile` (0..1) of images; `max_risk`: one risk and
    what it may be at most; `auto`: a range to choose from by load; `ceiling`: the dearest profile that requests may ask
    for.
    """

    profile: str | None = None
    thresholds: Thresholds | None = None
    gmacs: float | None = None
    latency_ms: float | None = None
    quantile: float | None = None
    max_risk: dict[str, float] | None = None
    auto: AutoGoal | None = None
    ceiling: str | None = None


@dataclass(frozen=True)
class Resolved:
    """Thresholds to leave by, and what is known about them: a profile's name, the number of a point of the frontier,
    what the report split measured there (None for a vector that was never measured), and what is certified of them.

    `uncertified`: why nothing is.
    """

    thresholds: Thresholds
    profile: str | None
    number: int | None
    measured: OperatingPoint | None
    certificate: Certificate | None = None
    uncertified: str | None = None


StageSeconds = Callable[[], Sequence[float]]
"""What one image takes in each stage, as measured on this device; empty while nothing is."""


@dataclass(frozen=True)
class Catalogue:
    """What can be asked of one bundle. `profiles` is None for a bundle that was never profiled.

    A certificate counts only for the `backend` and `precision` that it was made with, and unless it is `withdrawn`.
    """

    exits: int
    profiles: Profiles | None
    backend: str = "onnx"
    precision: str = "float32"
    stage_seconds: StageSeconds = field(default=lambda: (), compare=False)
    withdrawn: tuple[Certificate, ...] = ()

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Those that hold for what computes here."""
        return tuple(each for each in self.made_here if each not in self.withdrawn)

    @property
    def made_here(self) -> tuple[Certificate, ...]:
        """Those made with what computes here, whether they still hold or not."""
        made = self.profiles.certificates if self.profiles is not None else ()
        return tuple(each for each in made if (each.backend, each.precision) == (self.backend, self.precision))

    def resolve(self, request: BudgetRequest) -> Resolved:
        """Raises `InvalidParameterError`, `UnknownProfileError`, `InvalidThresholdsError`, `BudgetNotMetError`, or
        `NotReadyError` where the device was not measured yet."""
        given = [name for name in FORMS if getattr(request, name) is not None]
        if len(given) != 1 or (request.quantile is not None and given != ["latency_ms"]):
            raise InvalidParameterError(
                f"give one of {', '.join(f'`{name}`' for name in FORMS)}, and one only; "
                "`quantile` goes with `latency_ms`"
            )
        if request.profile is not None:
            return self._by_profile(request.profile)
        if request.thresholds is not None:
            return self._by_thresholds(request.thresholds)
        if request.gmacs is not None:
            return self._by_gmacs(request.gmacs)
        if request.latency_ms is not None:
            return self._by_latency(request.latency_ms, request.quantile or DEFAULT_QUANTILE)
        if request.max_risk is not None:
            return self._by_risk(request.max_risk)
        assert request.auto is not None
        return self.range_of(request.auto)[-1]

    def describe(self, thresholds: Thresholds) -> Resolved:
        """All that is known of a vector."""
        number = self._number(thresholds)
        known = [each for each in self.made_here if each.point.thresholds == thresholds]
        certificate = min(
            (each for each in known if each not in self.withdrawn),
            key=lambda each: (RISKS.index(each.claim.risk), each.claim.epsilon),
            default=None,
        )
        measured = None
        if known:
            measured = known[0].point
        elif number is not None and self.profiles is not None:
            measured = self.profiles.frontier[number]
        return Resolved(
            thresholds, None, number, measured, certificate, None if certificate else self._why_uncertified(thresholds)
        )

    def withdrew(self, thresholds: Thresholds | None) -> bool:
        """Whether something was certified of these thresholds that does not hold."""
        return any(each.point.thresholds == thresholds for each in self.withdrawn)

    def next_safer(self, thresholds: Thresholds) -> Resolved | None:
        """The cheapest profile by which no image leaves earlier, and of which nothing was withdrawn; None where all
        images go to the last exit already."""
        named = self.profiles.named if self.profiles is not None else {}
        safer = [
            name
            for name, point in named.items()
            if point.thresholds != thresholds
            and no_lower(point.thresholds, thresholds)
            and not self.withdrew(point.thresholds)
        ]
        cheapest = min(safer, key=lambda name: named[name].mean_gmacs, default=None)
        return None if cheapest is None else self._by_profile(cheapest)

    def range_of(self, goal: AutoGoal) -> tuple[Resolved, ...]:
        """The points to choose from, floor first, ceiling last; each is dearer and more accurate than the one before.

        Raises as `resolve` does: `BudgetNotMetError` too where the floor takes longer even with no load at all.
        """
        if not (math.isfinite(goal.p99_ms) and goal.p99_ms > 0):
            raise InvalidParameterError(f"`auto.p99_ms` is {goal.p99_ms}, it must be a number of milliseconds above 0")
        floor, ceiling = self._end_of_range(goal.floor), self._end_of_range(goal.ceiling)
        low, high = floor.measured, ceiling.measured
        assert low is not None and high is not None, "profiles are measured"
        if low.mean_gmacs > high.mean_gmacs:
            raise InvalidParameterError(
                f"`auto.floor` {goal.floor!r} costs {low.mean_gmacs:.4g} GMACs an image, more than `auto.ceiling` "
                f"{goal.ceiling!r} with {high.mean_gmacs:.4g}; swap them"
            )
        self._check_floor(goal, low)
        if low.thresholds == high.thresholds:
            return (ceiling,)
        between = [
            self._with_name(point)
            for point in self._frontier("auto")
            if low.mean_gmacs < point.mean_gmacs < high.mean_gmacs
            and low.top1 < point.top1 < high.top1
            and point.exit_shares is not None
        ]
        return (floor, *sorted(between, key=_cost), ceiling)

    def _end_of_range(self, name: str) -> Resolved:
        end = self._by_profile(name)
        if end.measured is None or end.measured.exit_shares is None:
            raise BudgetNotMetError(
                f"`auto` needs to know at which exits images leave under {name!r}: run `dvt profile` on this bundle"
            )
        return end

    def _check_floor(self, goal: AutoGoal, floor: OperatingPoint) -> None:
        """Of no effect before this device is measured."""
        seconds = self.stage_seconds()
        if not seconds:
            return
        reached_ms = [1000 * total for total in accumulate(seconds)]
        needed_ms = _at_quantile(floor.exit_shares or (), reached_ms, AUTO_QUANTILE)
        if needed_ms > goal.p99_ms:
            nearest = replace(goal, p99_ms=float(math.ceil(2 * needed_ms)))
            raise BudgetNotMetError(
                f"a p99 of {goal.p99_ms:g} ms cannot be held: with no load at all `auto.floor` {goal.floor!r} computes "
                f"{AUTO_QUANTILE:.0%} of images within {needed_ms:.3g} ms on this device; name a cheaper floor, or "
                "allow more (twice as much leaves time to wait)",
                more={"nearest": {"auto": asdict(nearest)}},
            )

    def _with_name(self, point: OperatingPoint) -> Resolved:
        """A point of the frontier, by the name of the profile that it is, if any."""
        named = self.profiles.named if self.profiles is not None else {}
        name = next((name for name, each in named.items() if each.thresholds == point.thresholds), None)
        return replace(self.describe(point.thresholds), profile=name, measured=point)

    def _by_profile(self, name: str) -> Resolved:
        if self.profiles is None:
            raise UnknownProfileError(
                f"there is no profile {name[:64]!r}: this bundle has none (run `dvt profile` on it); use `thresholds`"
            )
        if name not in self.profiles.named:
            known = ", ".join(self.profiles.named)
            raise UnknownProfileError(f"there is no profile {name[:64]!r}, this bundle has {known}")
        point = self.profiles.named[name]
        known_of_it = self.describe(point.thresholds)
        return Resolved(
            point.thresholds,
            name,
            known_of_it.number,
            point,
            known_of_it.certificate,
            known_of_it.uncertified,
        )

    def _by_thresholds(self, thresholds: Thresholds) -> Resolved:
        try:
            check_thresholds(thresholds, self.exits)
        except ValueError as error:
            raise InvalidThresholdsError(
                f"{error}; GET /budget/frontier shows vectors that are known to be good"
            ) from error
        return self.describe(thresholds)

    def _by_gmacs(self, gmacs: float) -> Resolved:
        points = self._frontier("gmacs")
        within = [point for point in points if point.mean_gmacs <= gmacs]
        if not within:
            nearest = min(points, key=lambda point: point.mean_gmacs)
            raise BudgetNotMetError(
                f"no point of this bundle's frontier costs {gmacs:g} GMACs or less; the cheapest costs "
                f"{nearest.mean_gmacs:.4g}",
                more={"nearest": {"gmacs": nearest.mean_gmacs}},
            )
        return self.describe(max(within, key=lambda point: point.top1).thresholds)

    def _by_latency(self, latency_ms: float, quantile: float) -> Resolved:
        seconds = self.stage_seconds()
        if not seconds:
            raise NotReadyError("what a stage takes is not measured yet; try again in a moment", retry_after_s=2)
        reached_ms = [1000 * total for total in accumulate(seconds)]
        points = [point for point in self._frontier("latency_ms") if point.exit_shares is not None]
        timed = [(_at_quantile(point.exit_shares or (), reached_ms, quantile), point) for point in points]
        within = [point for needed_ms, point in timed if needed_ms <= latency_ms]
        if not within:
            nearest_ms = min((needed_ms for needed_ms, _ in timed), default=reached_ms[0])
            raise BudgetNotMetError(
                f"no point computes {quantile:.0%} of images within {latency_ms:g} ms on this device; "
                f"the quickest needs {nearest_ms:.3g} ms",
                more={"nearest": {"latency_ms": nearest_ms, "quantile": quantile}},
            )
        return self.describe(max(within, key=lambda point: point.top1).thresholds)

    def _by_risk(self, max_risk: Mapping[str, float]) -> Resolved:
        if len(max_risk) != 1 or not set(max_risk) <= set(RISKS):
            raise InvalidParameterError(f"`max_risk` takes one of {', '.join(RISKS)}, and one only")
        ((risk, epsilon),) = max_risk.items()
        certified = [each for each in self.certificates if each.claim.risk == risk]
        within = [each for each in certified if each.claim.epsilon <= epsilon]
        if not within:
            least = min((each.claim.epsilon for each in certified), default=None)
            raise BudgetNotMetError(
                f"a {risk} of at most {epsilon:g} is not certified for this bundle; "
                + (f"{least:g} is" if least is not None else self._why_uncertified()),
                more=None if least is None else {"nearest": {"max_risk": {risk: least}}},
            )
        chosen = min(within, key=lambda each: each.point.mean_gmacs)
        number = self._number(chosen.point.thresholds)
        return Resolved(chosen.point.thresholds, None, number, chosen.point, chosen)

    def _why_uncertified(self, thresholds: Thresholds | None = None) -> str:
        """Of these thresholds, or of anything that could be asked for."""
        made = self.profiles.certificates if self.profiles is not None else ()
        if not made:
            return "the bundle has no certificates: run `dvt certify` on it"
        broken = [each for each in self.withdrawn if thresholds in (None, each.point.thresholds)]
        if broken:
            claims = ", ".join(f"{each.claim.risk} of at most {each.claim.epsilon:g}" for each in broken)
            return f"the audit found more harm than was certified ({claims}): GET /audit, docs/guarantees.md"
        if not self.made_here:
            others = sorted({f"{each.backend} in {each.precision}" for each in made})
            return (
                f"its certificates are for {', '.join(others)}, this service computes by {self.backend} in "
                f"{self.precision}"
            )
        return "nothing was certified of these thresholds"

    def _frontier(self, what: str) -> tuple[OperatingPoint, ...]:
        if self.profiles is None or not self.profiles.frontier:
            raise BudgetNotMetError(f"`{what}` needs a frontier, and this bundle has none: run `dvt profile` on it")
        return self.profiles.frontier

    def _number(self, thresholds: Thresholds) -> int | None:
        frontier = self.profiles.frontier if self.profiles is not None else ()
        return next((number for number, point in enumerate(frontier) if point.thresholds == thresholds), None)


def no_lower(thresholds: Thresholds, than: Thresholds) -> bool:
    """Whether nobody leaves earlier by these than by those: None, never, is the highest."""
    return all(
        threshold is None or (bound is not None and threshold >= bound)
        for threshold, bound in zip(thresholds, than, strict=True)
    )


def _cost(resolved: Resolved) -> float:
    assert resolved.measured is not None
    return resolved.measured.mean_gmacs


def _at_quantile(shares: Iterable[float], reached_ms: Sequence[float], quantile: float) -> float:
    """Computation time that the given share of images does not exceed, each leaving at an exit with its share."""
    for share, needed_ms in zip(accumulate(shares), reached_ms, strict=True):
        if share >= quantile - 1e-9:
            return needed_ms
    return reached_ms[-1]
