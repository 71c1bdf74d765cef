"""Which requests the log tells of: all that failed or were slow, and a share of the others."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.api.web import is_page

Why = Literal["failed", "slow", "sampled"]

# Asked for by machines, every few seconds.
QUIET = ("/health", "/v2/health", "/metrics")


@dataclass(frozen=True)
class Access:
    """A request that was answered; `status` 0 where nobody was there any more."""

    request_id: str
    method: str
    route: str
    status: int
    seconds: float
    code: str | None


class AccessLog:
    """`share` (0..1) of requests is logged, and each that took longer than `slow_s`. `chance` draws from 0..1."""

    def __init__(
        self, log: logging.Logger, share: float, slow_s: float, chance: Callable[[], float] = random.random
    ) -> None:
        self._log = log
        self._share = share
        self._slow_s = slow_s
        self._chance = chance

    def tell(self, access: Access) -> None:
        """One line, or none."""
        is_quiet = access.route.startswith(QUIET) or is_page(access.route)
        why = self._why(access)
        level = logging.DEBUG if is_quiet or why is None else logging.INFO
        if not self._log.isEnabledFor(level):
            return
        extra: dict[str, object] = {
            "request_id": access.request_id,
            "method": access.method,
            "route": access.route,
            "status": access.status,
            "ms": round(access.seconds * 1000, 1),
        }
        if why is not None:
            extra["why"] = why
        if access.code is not None:
            extra["code"] = access.code
        self._log.log(level, "request", extra=extra)

    def _why(self, access: Access) -> Why | None:
        if access.status >= 500:
            return "failed"
        if access.seconds > self._slow_s:
            return "slow"
        # Drawn, not told by the request's id: a client chooses that.
        return "sampled" if self._chance() < self._share else None
