"""Every call of the service, without a transport: what goes out, and how what comes back is read. All pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote

from dvt_client import answers
from dvt_client.answers import Classification, Health
from dvt_client.errors import AnswerError, Problem, ProblemError, problem_error
from dvt_client.parsing import load, read, read_problem
from dvt_client.retry import parse_retry_after

T = TypeVar("T")

Thresholds = Sequence[float | None]
To = Literal["next", "final"] | int
"""How far to refine: one exit more, the last one, or the exit of that number."""

EVENT_STREAM = "text/event-stream"
_PROBLEM_BYTES = 200


class Risk(TypedDict, total=False):
    """One of the two: the share of answers that may differ from the last exit's, or be wrong where that is right."""

    disagreement: float
    accuracy_drop: float


class Auto(TypedDict):
    """99 % of images answered within `p99_ms`, by whatever lies between two profiles."""

    p99_ms: float
    floor: str
    ceiling: str


class BudgetForm(TypedDict, total=False):
    """What can be put: one of the first six (`quantile` belongs to `latency_ms`), and with it the dearest profile that
    requests may ask for."""

    profile: str
    thresholds: Thresholds
    gmacs: float
    latency_ms: float
    max_risk: Risk
    auto: Auto
    quantile: float
    ceiling: str


class RefineOptions(TypedDict, total=False):
    """As `Options` has them."""

    top_k: int
    deadline_ms: float
    priority: int


class ClassifyOptions(RefineOptions, total=False):
    """As `Options` has them."""

    profile: str
    thresholds: Thresholds
    min_confidence: float
    max_exit: int


@dataclass(frozen=True)
class Options:
    """What a request asks for; None leaves it to the server. `profile`, `thresholds` and `min_confidence` exclude each
    other. `priority`: 1 goes first, 9 last."""

    top_k: int | None = None
    profile: str | None = None
    thresholds: Thresholds | None = None
    min_confidence: float | None = None
    max_exit: int | None = None
    deadline_ms: float | None = None
    priority: int | None = None

    def parameters(self) -> dict[str, str]:
        given: dict[str, Any] = {name: value for name, value in vars(self).items() if value is not None}
        if self.thresholds is not None:
            given["thresholds"] = ",".join("null" if each is None else repr(float(each)) for each in self.thresholds)
        return {name: str(value) for name, value in given.items()}

    @property
    def within_s(self) -> float:
        """After its deadline a request is not tried again."""
        return float("inf") if self.deadline_ms is None else self.deadline_ms / 1000


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its answer is read. `is_safe`: it may be sent again though it may have arrived.

    `accepts`: statuses from 400 up that are answers too.
    """

    method: str
    path: str
    read: Callable[[Reply], T]
    parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    photos: tuple[bytes, ...] = ()
    is_safe: bool = True
    accepts: tuple[int, ...] = ()
    within_s: float = float("inf")

    @property
    def files(self) -> list[tuple[str, tuple[str, bytes, str]]] | None:
        """Several photos, as fields of a form."""
        if not self.photos:
            return None
        return [("image", (str(number), photo, "application/octet-stream")) for number, photo in enumerate(self.photos)]


def answer(kind: type[T]) -> Callable[[Reply], T]:
    return lambda reply: read(kind, load(reply.body))


def classify(photos: Sequence[bytes], options: Options, *, stream: bool = False) -> Call[Classification]:
    """One photo goes as it is, several as a form. Raises `ValueError` for none."""
    if not photos:
        raise ValueError("classify needs a photo")
    is_single = len(photos) == 1
    return Call(
        "POST",
        "classify",
        answer(Classification),
        options.parameters(),
        _headers(stream, {"Content-Type": "application/octet-stream"} if is_single else {}),
        content=photos[0] if is_single else b"",
        photos=() if is_single else tuple(photos),
        within_s=options.within_s,
    )


def refine(
    result_id: str, to: To | None, min_confidence: float | None, options: Options, *, stream: bool = False
) -> Call[Classification]:
    """One exit more unless it is told how far. Raises `ValueError` for both ways of telling."""
    if to is not None and min_confidence is not None:
        raise ValueError("refine takes `to` or `min_confidence`, not both")
    body: dict[str, object] = {"to": to or "next"} if min_confidence is None else {"min_confidence": min_confidence}
    return Call(
        "POST",
        f"classify/{quote(result_id, safe='')}/refine",
        answer(Classification),
        options.parameters(),
        _headers(stream, _JSON),
        content=_json(body),
        within_s=options.within_s,
    )


def budget() -> Call[answers.Budget]:
    return Call("GET", "budget", answer(answers.Budget))


def put_budget(form: BudgetForm | Mapping[str, object], if_match: int | None, dry_run: bool) -> Call[answers.Budget]:
    """With `if_match` a second try after the first has arrived would be told that the budget has changed."""
    return Call(
        "PUT",
        "budget",
        answer(answers.Budget),
        {"dry_run": "true"} if dry_run else {},
        {**_JSON, **({} if if_match is None else {"If-Match": f'"{if_match}"'})},
        content=_json(form),
        is_safe=if_match is None or dry_run,
    )


def frontier() -> Call[answers.Frontier]:
    return Call("GET", "budget/frontier", answer(answers.Frontier), headers={"Accept": "application/json"})


def history() -> Call[answers.History]:
    return Call("GET", "budget/history", answer(answers.History))


def audit() -> Call[answers.Audit]:
    return Call("GET", "audit", answer(answers.Audit))


def model() -> Call[answers.Model]:
    return Call("GET", "model", answer(answers.Model))


def metrics() -> Call[str]:
    return Call("GET", "metrics", lambda reply: reply.body.decode("utf-8", "replace"))


def health(what: Literal["ready", "live"]) -> Call[Health]:
    """503 is an answer here."""
    return Call("GET", f"health/{what}", _read_health, accepts=(503,))


def feedback() -> Call[answers.Feedback]:
    return Call("GET", "feedback", answer(answers.Feedback))


def send_feedback(result_id: str, label: str) -> Call[answers.FeedbackTaken]:
    """A second one for the same result would be refused."""
    body = {"id": result_id, "label": label}
    read_taken = answer(answers.FeedbackTaken)
    return Call("POST", "feedback", read_taken, headers=_JSON, content=_json(body), is_safe=False)


def error_of(reply: Reply) -> ProblemError:
    """What an answer of 400 or more says. One without a problem document, a proxy's say, has the code `http_STATUS`."""
    retry_after_s = parse_retry_after(reply.headers.get("retry-after"))
    try:
        problem = read_problem(load(reply.body))
    except AnswerError:
        text = " ".join(reply.body[:_PROBLEM_BYTES].decode("utf-8", "replace").split())
        detail = f"the server answered {reply.status}" + (f": {text}" if text else "")
        problem = Problem(reply.status, f"http_{reply.status}", "", detail)
    return problem_error(problem, retry_after_s)


def check_stream(headers: Mapping[str, str]) -> None:
    """Raises `AnswerError` where what was to be a stream of events is none."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != EVENT_STREAM:
        raise AnswerError(f"the server answered {kind or 'something'}, not a stream of events; it may be an older one")


_JSON: Mapping[str, str] = {"Content-Type": "application/json"}


def _json(body: object) -> bytes:
    return json.dumps(body, default=list, allow_nan=False).encode()


def _headers(stream: bool, more: Mapping[str, str]) -> dict[str, str]:
    return {"Accept": EVENT_STREAM if stream else "application/json", **more}


def _read_health(reply: Reply) -> Health:
    if reply.status == 503:
        problem = error_of(reply)
        return Health(problem.code, problem.detail)
    return read(Health, load(reply.body))
