"""When to try again: bounded in number and in time, never before the server asked for, never for what it refused."""

import email.utils
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from dvt_client.errors import ClientError, ProblemError


@dataclass(frozen=True)
class Retry:
    """At most `tries` (1: none again), as long as the next one begins within `total_s` of the first.

    Waits double from `first_s` to `longest_s`, each a random half to a whole of it, so that many clients do not come
    back together; and never less than Retry-After.
    """

    tries: int = 4
    total_s: float = 30.0
    first_s: float = 0.2
    longest_s: float = 5.0

    def __post_init__(self) -> None:
        if self.tries < 1 or min(self.total_s, self.first_s, self.longest_s) < 0:
            raise ValueError(f"{self}: tries must be 1 or more, times 0 or more")


DEFAULT = Retry()
NEVER = Retry(tries=1)


class Attempts:
    """The tries of one call. `within_s`: its own limit in time, beside that of `retry`."""

    def __init__(
        self,
        retry: Retry,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        within_s: float = math.inf,
    ) -> None:
        self._retry = retry
        self._clock = clock
        self._random = random
        self._end_s = clock() + min(retry.total_s, within_s)
        self._failed = 0

    def wait_s(self, error: ClientError, *, is_safe: bool) -> float:
        """How long to wait before the next try; raises `error` where there is none, as when that would be unsafe."""
        self._failed += 1
        if not is_safe or self._failed >= self._retry.tries:
            raise error
        backoff_s = min(self._retry.longest_s, self._retry.first_s * 2.0 ** (self._failed - 1))
        jitter_s = backoff_s * (0.5 + 0.5 * self._random())
        asked_s = error.retry_after_s if isinstance(error, ProblemError) else None
        wait_s = jitter_s if asked_s is None else asked_s + jitter_s / 2
        if self._clock() + wait_s > self._end_s:
            raise error
        return wait_s


def parse_retry_after(text: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, section 10.2.3): a number or a date; None where it makes no sense."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text) if len(text.strip()) < 10 else None
    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - now()).total_seconds())
