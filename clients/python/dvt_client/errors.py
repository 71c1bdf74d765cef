"""What a call can raise. `ClientError` is all of it, but for `ValueError` of what was never sent.

ClientError
    UnreachableError    no answer: no connection, or it broke off, or time ran out
    AnswerError         an answer that is not what this client knows
    ProblemError        the server says no, with a problem document
        UnauthorizedError        401  no key, or one that is not known
        ForbiddenError           403  a key that may not do this, or a request above the operator's ceiling
        UnknownResultError       404  a result's id that this key did not ask for
        StateGoneError           410  what `refine` would go on from is not there any more
        RevisionChangedError     412  the budget is another one than `if_match`
        BudgetNotMetError        422  nothing measured meets this budget; `nearest` could be had
        UnavailableError         429, 503  too much to do, or starting, or ending; `retry_after_s`
        DeadlineExceededError    504  `deadline_ms` passed before any exit
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """A problem document (RFC 9457). `code` is stable, `detail` is for people, `more` whatever else stands in it."""

    status: int
    code: str
    title: str
    detail: str
    request_id: str = ""
    type: str = "about:blank"
    more: Mapping[str, Any] = field(default_factory=dict)


class ClientError(Exception):
    """A call that brought no result."""


class UnreachableError(ClientError):
    """There was no answer, or the connection broke off in the middle of one."""


class AnswerError(ClientError):
    """An answer that is none of those that this client knows."""


class ProblemError(ClientError):
    """The server says no. `retry_after_s`: when to come again, if it told."""

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.retry_after_s)

    @property
    def status(self) -> int:
        return self.problem.status

    @property
    def code(self) -> str:
        return self.problem.code

    @property
    def detail(self) -> str:
        return self.problem.detail

    @property
    def request_id(self) -> str:
        return self.problem.request_id


class UnauthorizedError(ProblemError):
    """No key, or one that is not known."""


class ForbiddenError(ProblemError):
    """A known key that may not do this, or a request above the operator's ceiling."""


class UnknownResultError(ProblemError):
    """A result that this key did not ask for, or that is too old."""


class StateGoneError(ProblemError):
    """What `refine` would go on from is not there any more: classify the image again."""


class RevisionChangedError(ProblemError):
    """The budget is another one by now than the change was made for."""


class BudgetNotMetError(ProblemError):
    """A budget that nothing measured meets."""

    @property
    def nearest(self) -> Mapping[str, Any] | None:
        """What could be had, as it can be put."""
        nearest = self.problem.more.get("nearest")
        return nearest if isinstance(nearest, dict) else None


class UnavailableError(ProblemError):
    """The server has too much to do, is starting, or is shutting down."""


class DeadlineExceededError(ProblemError):
    """The deadline passed before any exit was reached."""


_BY_CODE: Mapping[str, type[ProblemError]] = {
    "unknown_result": UnknownResultError,
    "state_gone": StateGoneError,
    "revision_changed": RevisionChangedError,
    "budget_not_met": BudgetNotMetError,
    "deadline_exceeded": DeadlineExceededError,
}
_BY_STATUS: Mapping[int, type[ProblemError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    410: StateGoneError,
    412: RevisionChangedError,
    429: UnavailableError,
    503: UnavailableError,
}


def problem_error(problem: Problem, retry_after_s: float | None = None) -> ProblemError:
    """The error for a problem: by its code, else by its status."""
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(problem.status) or ProblemError
    return kind(problem, retry_after_s)
