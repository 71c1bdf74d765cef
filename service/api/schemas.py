"""What goes over the wire: requests are checked by these models, answers made and /docs drawn from them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.profiles import Certificate

Threshold = Annotated[float, Field(ge=0, le=1)] | None


class Strict(BaseModel):
    """Unknown keys are errors: a misspelt parameter must not be ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class CommonQuery(Strict):
    """Parameters of whatever is answered with results."""

    top_k: Annotated[int | None, Field(ge=1, description="How many predictions an image; never more than classes.")] = (
        None
    )
    deadline_ms: Annotated[
        float | None, Field(gt=0, le=3_600_000, description="Answer within this time, with the best exit so far.")
    ] = None
    priority: Annotated[int, Field(ge=1, le=9, description="1 goes first, 9 last.")] = 5


class ClassifyQuery(CommonQuery):
    """Parameters of `POST /classify`; at most one of `profile`, `thresholds` and `min_confidence`."""

    profile: Annotated[str | None, Field(description="Leave by this profile's thresholds.")] = None
    thresholds: Annotated[
        str | None,
        Field(description="Leave by these: one an exit but the last, 0..1 or `null` for never.", examples=["0.9,null"]),
    ] = None
    min_confidence: Annotated[
        float | None, Field(ge=0, le=1, description="Leave at the first exit that is so confident.")
    ] = None
    max_exit: Annotated[int | None, Field(ge=1, description="Leave here at the latest; exits count from 1.")] = None


class Prediction(Strict):
    """One class and its probability."""

    label: str
    index: int
    probability: float


class ExitSeen(Strict):
    """What an exit says. `threshold` is null for the last exit and for "never leave here"."""

    number: int
    of: int
    grid: int
    confidence: float
    threshold: float | None


class ExitInfo(ExitSeen):
    """Where the image left and why."""

    reason: Literal["confident", "final", "deadline", "max_exit", "guard"]


class Compute(Strict):
    """What the image cost. Null where the bundle was never profiled; `saved` is 1 - gmacs / full_gmacs."""

    gmacs: float | None
    full_gmacs: float | None
    static_gmacs: float | None
    saved: float | None


class Timing(Strict):
    """Milliseconds. A stage's is that of the whole batch that the image was in."""

    decode: float
    queue: float
    stages: list[float]
    total: float


class CertificateRef(Strict):
    """With probability 1 - delta over the draw of the certify images, the risk of leaving early is at most epsilon."""

    risk: str
    epsilon: float
    delta: float


def certificate_ref(found: Certificate) -> CertificateRef:
    """As answers quote it."""
    return CertificateRef(risk=found.claim.risk, epsilon=found.claim.epsilon, delta=found.delta)


class ImageResult(Strict):
    """The answer to one image."""

    id: str
    predictions: list[Prediction]
    exit: ExitInfo
    compute: Compute
    timing_ms: Timing
    certificate: CertificateRef | None


class Problem(BaseModel):
    """RFC 9457. `code` is stable, `detail` is for people; docs/errors.md lists all."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class ImageError(Strict):
    """In the place of a result, for an image that could not be answered when others could."""

    error: Problem


class ModelRef(Strict):
    name: str
    sha256: str


class BudgetRef(Strict):
    """What decided: the budget in force, or what the request asked for itself (then the latter two are of that).

    `revision` counts what operators have asked for, `operating_point` what load and audits have changed since the
    start; `point` is a number on the frontier."""

    revision: int
    operating_point: int
    point: int | None
    profile: str | None


class ClassifyResponse(Strict):
    """`results` are in the order of the images sent."""

    request_id: str
    model: ModelRef
    budget: BudgetRef
    results: list[ImageResult | ImageError]


class MaxRisk(Strict):
    """One of the two: the share of answers that may differ from the last exit's, or be wrong where that is right."""

    disagreement: Annotated[float | None, Field(gt=0, lt=1)] = None
    accuracy_drop: Annotated[float | None, Field(gt=0, lt=1)] = None


class Auto(Strict):
    """99 % of images answered within `p99_ms`, by whatever lies between two profiles."""

    p99_ms: Annotated[float, Field(gt=0, description="From a request's arrival to an image's answer.")]
    floor: Annotated[str, Field(description="Nothing cheaper than this profile, however high the load.")]
    ceiling: Annotated[str, Field(description="This profile where the load allows it.")]


class BudgetBody(Strict):
    """What `PUT /budget` takes: one form, and with it the dearest profile that requests may ask for, if that is to be
    another than the service's own ceiling."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"profile": "balanced"},
                {"thresholds": [0.9, None]},
                {"gmacs": 0.2},
                {"latency_ms": 8, "quantile": 0.95},
                {"max_risk": {"disagreement": 0.01}},
                {"auto": {"p99_ms": 50, "floor": "fast", "ceiling": "accurate"}},
            ]
        }
    )

    profile: str | None = None
    thresholds: list[float | None] | None = None
    gmacs: Annotated[float | None, Field(gt=0, description="Mean GMACs an image, at most.")] = None
    latency_ms: Annotated[float | None, Field(gt=0, description="Computation of an image, at most.")] = None
    quantile: Annotated[float | None, Field(gt=0, le=1, description="Of images, for `latency_ms`: 0.95.")] = None
    max_risk: Annotated[MaxRisk | None, Field(description="Certified, for images like those it was proved on.")] = None
    auto: Annotated[Auto | None, Field(description="Chosen by load, so that a p99 holds.")] = None
    ceiling: str | None = None


class Point(Strict):
    """A threshold vector and, where it was measured, what it does: `number` is its place on the frontier.

    `uncertified` tells why there is no certificate."""

    number: int | None
    profile: str | None
    thresholds: list[float | None]
    top1: float | None
    mean_gmacs: float | None
    exit_shares: list[float] | None
    certificate: CertificateRef | None
    uncertified: str | None


class BudgetResponse(Strict):
    """`request` can be PUT back as it is; `resolved` is what it means, `in_force` what images leave by now.

    Under `auto` both are the point that the load allows at present. It changes without a new `revision`, which counts
    what operators ask for: `operating_point` counts those changes, and where a fallback came into force."""

    revision: int
    operating_point: int
    request: dict[str, Any]
    resolved: Point
    in_force: Point
    ceiling: str | None


class ChangeOfBudget(Strict):
    """`at` is UTC; `by` the name of the key, or `start` for a budget that nobody asked for. With a `note` nothing was
    asked for: it tells what happened under that revision, and `by` is what noticed."""

    revision: int
    at: str
    by: str
    request: dict[str, Any]
    note: str | None


class HistoryResponse(Strict):
    changes: list[ChangeOfBudget]


class FrontierResponse(Strict):
    """What can be asked for: named profiles, all points that no other beats in both cost and accuracy, and those of
    which something is certified."""

    profiles: list[Point]
    frontier: list[Point]
    certified: list[Point]


class ModelExit(Strict):
    number: int
    grid: int
    gmacs: float | None
    top1: float | None


class WorstCase(Strict):
    """An image that goes all the way: cumulative cost, and the memory between its stages at most."""

    gmacs: float | None
    state_bytes: int


class ModelResponse(Strict):
    """`input_px` is the side of the square that the network sees, cut from the middle of a photo whose short side is
    `resize_px`. `devices`: those that compute it, `cpu` or `cuda:0` say."""

    name: str
    architecture: str
    sha256: str
    config_sha256: str
    backend: str
    devices: list[str]
    input_px: int
    resize_px: int
    classes: int
    labels: list[str]
    confidence: str
    exits: list[ModelExit]
    profiles: list[str]
    static_gmacs: float | None
    worst_case: WorstCase


class Health(Strict):
    status: Literal["live", "ready"]


PROBLEM_JSON = "application/problem+json"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a path may answer besides its result, for /docs."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": "A problem document (RFC 9457).", "content": {PROBLEM_JSON: {"schema": schema}}}
        for status in statuses
    }


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """A model's fields as parameters of a query, for /docs."""
    schema = model.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": field.get("description", ""),
            "schema": field,
        }
        for name, field in schema["properties"].items()
    ]
