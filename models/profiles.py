"""profiles.json: where to leave, what that costs and achieves, and for which weights it was measured. No torch.

GMACs are multiply-accumulates of one image in units of 1e9, cumulative (leaving at exit k has run stages 1..k).
"""

from dataclasses import dataclass
from typing import Literal, get_args

from models import strict_json
from models.policy import Measure

SCHEMA_VERSION = 1
VERSION = strict_json.Version(SCHEMA_VERSION, "run `dvt profile` of this version on the bundle")

# Shares are quotients and means in floating point.
ROUNDING = 1e-6

PROFILE_NAMES = ("fast", "balanced", "accurate", "full")

Risk = Literal["disagreement", "accuracy_drop"]
"""What leaving early may cost: another label than the last exit's; a wrong label where the last exit's is right."""

RISKS: tuple[Risk, ...] = get_args(Risk)


@dataclass(frozen=True)
class ExitProfile:
    """One exit measured alone: cumulative cost, report-split top-1 (0..1), temperature of its softmax."""

    grid: int
    gmacs: float
    top1: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check_share("top1", self.top1)
        if self.gmacs < 0 or self.temperature <= 0:
            raise ValueError(f"gmacs {self.gmacs} must not be below 0, temperature {self.temperature} must be above 0")


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold vector (one entry an exit but the last; None is "never leave here") and what it does.

    `exit_shares` has one entry an exit, or is None where only accuracy and cost are known (a published curve).
    """

    thresholds: tuple[float | None, ...]
    top1: float
    mean_gmacs: float
    exit_shares: tuple[float, ...] | None

    def __post_init__(self) -> None:
        for name, share in (("top1", self.top1), *(("an exit share", share) for share in self.exit_shares or ())):
            _check_share(name, share)
        if self.mean_gmacs < 0:
            raise ValueError(f"mean_gmacs is {self.mean_gmacs}, it must not be below 0")


@dataclass(frozen=True)
class Split:
    """A set of images that numbers were measured on; `sha256` is over the sorted file hashes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Claim:
    """That the risk is at most `epsilon` (0..1, neither of them)."""

    risk: Risk
    epsilon: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon is {self.epsilon}, it must lie between 0 and 1")


@dataclass(frozen=True)
class ClaimGrid:
    """What is to be certified, fixed before the certify split is looked at.

    Whatever of it is certified holds together, but for a chance of `delta`: each claim has an equal part of it.
    """

    delta: float
    claims: tuple[Claim, ...]

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1 or not self.claims:
            raise ValueError(
                f"delta is {self.delta} for {len(self.claims)} claims: it must lie in 0..1, claims be some"
            )

    @property
    def claim_delta(self) -> float:
        """The chance that one certified claim is wrong."""
        return self.delta / len(self.claims)


DEFAULT_CLAIMS = ClaimGrid(0.1, tuple(Claim(risk, epsilon) for risk in RISKS for epsilon in (0.005, 0.01, 0.02, 0.05)))


@dataclass(frozen=True)
class Certificate:
    """With probability 1 - `delta` over the draw of `split`, leaving by `point` has the risk that is claimed.

    `harmed` of the split's images showed the harm. It holds for images drawn as those were, computed by `backend` in
    `precision`.
    """

    claim: Claim
    delta: float
    point: OperatingPoint
    split: Split
    harmed: int
    backend: str
    precision: str


@dataclass(frozen=True)
class Profiles:
    """All that is known about leaving early with one set of weights.

    `static_gmacs` is the cost of the static twin, the last stage alone without reuse, where it is known. `claims` are
    what `dvt certify` tries to prove, `certificates` what it could.
    Raises `ValueError` where vectors do not have one entry an exit (but the last, for thresholds), a named profile
    is missing, or a number lies outside its range.
    """

    weights_sha256: str
    config_sha256: str
    confidence: Measure
    exits: tuple[ExitProfile, ...]
    splits: tuple[Split, ...]
    frontier: tuple[OperatingPoint, ...]
    named: dict[str, OperatingPoint]
    schema_version: int = SCHEMA_VERSION
    static_gmacs: float | None = None
    claims: ClaimGrid | None = None
    certificates: tuple[Certificate, ...] = ()

    def __post_init__(self) -> None:
        VERSION.check(self.schema_version)
        missing = [name for name in PROFILE_NAMES if name not in self.named]
        if missing:
            raise ValueError(f"named lacks {', '.join(missing)}")
        certified = (certificate.point for certificate in self.certificates)
        for point in (*self.frontier, *self.named.values(), *certified):
            check_thresholds(point.thresholds, len(self.exits))
            if point.exit_shares is not None and len(point.exit_shares) != len(self.exits):
                raise ValueError(f"exit_shares has {len(point.exit_shares)} entries for {len(self.exits)} exits")

    def to_json(self) -> str:
        return strict_json.dumps(self)

    @staticmethod
    def from_json(text: str, where: str = "profiles.json") -> "Profiles":
        """Raises `strict_json.SchemaError` (a `ValueError`) that names the place."""
        return strict_json.loads(Profiles, text, where, version=VERSION)


def check_thresholds(thresholds: tuple[float | None, ...], exits: int) -> None:
    """Raise `ValueError` unless there is one entry an exit but the last, each in 0..1 or None."""
    if len(thresholds) != exits - 1:
        raise ValueError(
            f"thresholds has {len(thresholds)} entries, this cascade of {exits} exits needs {exits - 1} "
            "(one an exit but the last)"
        )
    for number, threshold in enumerate(thresholds, start=1):
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise ValueError(
                f"the threshold of exit {number} is {threshold}, it must lie in 0..1, or be null for never"
            )


def _check_share(name: str, share: float) -> None:
    if not -ROUNDING <= share <= 1 + ROUNDING:
        raise ValueError(f"{name} is {share}, it must lie in 0..1")
