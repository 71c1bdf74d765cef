from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvt_client import ClientError, Problem, Retry, UnavailableError, UnreachableError
from dvt_client.retry import Attempts, parse_retry_after

NOW = datetime(2026, 11, 26, 6, 0, 0, tzinfo=UTC)


def busy(retry_after_s: float | None) -> UnavailableError:
    return UnavailableError(Problem(503, "overloaded", "", "no room"), retry_after_s)


def waits(retry: Retry, error: ClientError, *, chance: float = 0.5, within_s: float = 1e9) -> list[float]:
    """How long it waits before each try of a call that always fails, on a clock of its own."""
    now_s, waited = 0.0, []
    attempts = Attempts(retry, clock=lambda: now_s, random=lambda: chance, within_s=within_s)
    try:
        while True:
            waited.append(attempts.wait_s(error, is_safe=True))
            now_s += waited[-1]
    except ClientError as raised:
        assert raised is error
        return waited


def test_waits_double_up_to_the_longest() -> None:
    retry = Retry(tries=5, total_s=100, first_s=1, longest_s=3)
    assert waits(retry, UnreachableError(""), chance=1.0) == [1, 2, 3, 3]


@given(chance=st.floats(0, 1, exclude_max=True), asked_s=st.none() | st.floats(0, 100), tries=st.integers(1, 8))
def test_it_never_comes_before_it_was_asked_to_nor_begins_after_its_time(
    chance: float, asked_s: float | None, tries: int
) -> None:
    retry = Retry(tries=tries, total_s=20)
    waited = waits(retry, busy(asked_s), chance=chance)
    assert len(waited) <= tries - 1
    assert sum(waited) <= 20
    assert all(wait >= (asked_s or 0) for wait in waited)


def test_who_is_asked_to_wait_longer_than_there_is_time_gives_up_at_once() -> None:
    assert waits(Retry(total_s=5), busy(30)) == []
    assert waits(Retry(total_s=100), busy(30), within_s=1.0) == []


def test_what_is_not_safe_is_not_tried_again() -> None:
    attempts = Attempts(Retry(), clock=lambda: 0.0, random=lambda: 0.0)
    error = UnreachableError("")
    with pytest.raises(UnreachableError):
        attempts.wait_s(error, is_safe=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("Thu, 26 Nov 2026 06:00:30 GMT", 30.0),
        ("Thu, 26 Nov 2026 05:00:00 GMT", 0.0),
        ("-1", None),
        ("soon", None),
        ("1e3", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, lambda: NOW) == seconds


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"total_s": -1.0}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="tries must be"):
        Retry(**wrong)  # type: ignore[arg-type]  # one of each
