"""What the server answers, as it stands in the JSON: field for field, lists as tuples. Frozen.

Exits are numbered from 1, probabilities and confidences are 0..1, GMACs are multiply-accumulates of an image in 1e9 and
None where the bundle was never profiled.
"""

from dataclasses import dataclass
from typing import Any

from dvt_client.errors import Problem, problem_error


@dataclass(frozen=True)
class Prediction:
    """One class and its probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class ExitInfo:
    """Where an image left, and its `reason`: confident, final, deadline, max_exit or guard. `threshold` is None for the
    last exit and for "never leave here"."""

    number: int
    of: int
    grid: int
    confidence: float
    threshold: float | None
    reason: str


@dataclass(frozen=True)
class Compute:
    """What an image cost; `saved` is 1 - gmacs / full_gmacs."""

    gmacs: float | None
    full_gmacs: float | None
    static_gmacs: float | None
    saved: float | None


@dataclass(frozen=True)
class Timing:
    """Milliseconds. A stage's is that of the whole batch that the image was in."""

    decode: float
    queue: float
    stages: tuple[float, ...]
    total: float


@dataclass(frozen=True)
class Certificate:
    """With probability 1 - delta over its data, the risk of leaving early is at most epsilon."""

    risk: str
    epsilon: float
    delta: float


@dataclass(frozen=True)
class ImageResult:
    """The answer to one image. `id` is what `refine` and `send_feedback` take."""

    id: str
    predictions: tuple[Prediction, ...]
    exit: ExitInfo
    compute: Compute
    timing_ms: Timing
    certificate: Certificate | None

    @property
    def label(self) -> str:
        """The likeliest."""
        return self.predictions[0].label

    @property
    def probability(self) -> float:
        """Of that label."""
        return self.predictions[0].probability


@dataclass(frozen=True)
class ImageFailure:
    """In the place of a result, for an image that could not be answered when others could."""

    error: Problem


@dataclass(frozen=True)
class ModelRef:
    name: str
    sha256: str


@dataclass(frozen=True)
class BudgetRef:
    """What decided: the budget in force, or what the request asked for itself (then the latter two are of that).

    `revision` counts what operators have asked for, `operating_point` what load and audits have changed since the
    start; `point` is a number on the frontier."""

    revision: int
    operating_point: int
    point: int | None
    profile: str | None


@dataclass(frozen=True)
class Classification:
    """`results` are in the order of the images sent."""

    request_id: str
    model: ModelRef
    budget: BudgetRef
    results: tuple[ImageResult | ImageFailure, ...]

    @property
    def result(self) -> ImageResult:
        """Of the only image. Raises the error that stands in its place, and `ValueError` where there are several."""
        if len(self.results) != 1:
            raise ValueError(f"there are {len(self.results)} results; take them from `results`")
        (only,) = self.results
        if isinstance(only, ImageFailure):
            raise problem_error(only.error)
        return only


@dataclass(frozen=True)
class Point:
    """A threshold vector and, where it was measured, what it does: `number` is its place on the frontier.

    `uncertified` tells why there is no certificate."""

    number: int | None
    profile: str | None
    thresholds: tuple[float | None, ...]
    top1: float | None
    mean_gmacs: float | None
    exit_shares: tuple[float, ...] | None
    certificate: Certificate | None = None
    uncertified: str | None = None


@dataclass(frozen=True)
class Budget:
    """`request` can be put back as it is; `resolved` is what it means, `in_force` what images leave by now.

    `operating_point` counts what changes without a new `revision`: by load under `auto`, or a fallback."""

    revision: int
    operating_point: int
    request: dict[str, Any]
    resolved: Point
    in_force: Point
    ceiling: str | None


@dataclass(frozen=True)
class Frontier:
    """What can be asked for: named profiles, and all points that no other beats in both cost and accuracy."""

    profiles: tuple[Point, ...]
    frontier: tuple[Point, ...]


@dataclass(frozen=True)
class Change:
    """`at` is UTC, `by` the name of the key or of what noticed something, which `note` then tells."""

    revision: int
    at: str
    by: str
    request: dict[str, Any]
    note: str | None = None


@dataclass(frozen=True)
class History:
    """The last changes of the budget, the newest first."""

    changes: tuple[Change, ...]


@dataclass(frozen=True)
class ModelExit:
    number: int
    grid: int
    gmacs: float | None
    top1: float | None


@dataclass(frozen=True)
class WorstCase:
    """An image that goes all the way: cumulative cost, and the memory between its stages at most."""

    gmacs: float | None
    state_bytes: int


@dataclass(frozen=True)
class Model:
    """What is served."""

    name: str
    architecture: str
    sha256: str
    config_sha256: str
    backend: str
    input_px: int
    classes: int
    labels: tuple[str, ...]
    confidence: str
    exits: tuple[ModelExit, ...]
    profiles: tuple[str, ...]
    static_gmacs: float | None
    worst_case: WorstCase


@dataclass(frozen=True)
class Health:
    """`status`: ready or live, else the code of what is in the way, which `detail` tells."""

    status: str
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.status in ("ready", "live")


@dataclass(frozen=True)
class FeedbackTaken:
    """The label that was sent for a result, and what had been predicted."""

    id: str
    label: str
    predicted: str
    correct: bool


@dataclass(frozen=True)
class ExitFeedback:
    """Answers of one exit that a label came for. Of `audited` ones the last exit's word is known: `lost` were wrong
    where that is right, `gained` right where it is wrong."""

    number: int
    labelled: int
    correct: int
    accuracy: float | None
    audited: int
    lost: int
    gained: int


@dataclass(frozen=True)
class Feedback:
    """`remembered` results can be given a label, at most `limit`."""

    remembered: int
    limit: int
    exits: tuple[ExitFeedback, ...]


@dataclass(frozen=True)
class AuditedCertificate:
    """`audited` images left by its thresholds, `disagreed` of them with the last exit; of those `left_out` that is not
    known. `broken_at` is UTC, None while it holds."""

    certificate: Certificate
    thresholds: tuple[float | None, ...]
    audited: int
    disagreed: int
    left_out: int
    wealth: float
    broken_at: str | None


@dataclass(frozen=True)
class Audit:
    """`share` of images that is drawn, how many of those are on their way, and the evidence against certificates."""

    share: float
    pending: int
    broken_at_wealth: float
    certificates: tuple[AuditedCertificate, ...]
