"""The audit: what the drawn images say of the certificates, and what follows when they break one.

Without labels only disagreement with the last exit can be seen, so certificates of disagreement are tested: each one of
the thresholds that a drawn image left by, whichever was asked for. Of other budgets the draws are counted.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from service.engine.audit_file import AuditRecord, Evidence
from service.engine.budget import Budget
from service.engine.draws import Draw, Lottery
from service.metrics import Metrics
from service.types import Thresholds

# Of so many places for images one is for an audit; at least one, where there are two.
_ONE_OF = 9


def audit_places(images: int) -> int:
    """Audits at once beside so many images."""
    return max(1, images // (_ONE_OF - 1))


def places_within(slots: int) -> int:
    """The same where both share so many slots."""
    return max(1, slots // _ONE_OF) if slots > 1 else 0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Audit:
    """Of one service. `fall_back`: whether a broken certificate has the next safer profile put in force.

    Draws come from any thread; `settle` looks at those that ended, and is for a thread that may wait for the disk.
    """

    def __init__(
        self,
        lottery: Lottery,
        record: AuditRecord,
        budget: Budget,
        *,
        fall_back: bool,
        metrics: Metrics,
        log: logging.Logger,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._lottery = lottery
        self._record = record
        self._budget = budget
        self._fall_back = fall_back
        self._metrics = metrics
        self._log = log
        self._now = now
        self._settling = threading.Lock()
        self._can_write = True
        self._show()

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Against each certificate of disagreement that is for what computes here."""
        return self._record.evidence

    @property
    def pending(self) -> int:
        """Images that are drawn and not at the last exit yet."""
        return self._lottery.pending

    def draw(self, thresholds: Thresholds) -> Draw | None:
        """For an image that is let in and for which nothing but the budget should decide: whether it is audited."""
        return self._lottery.draw(thresholds)

    def settle(self) -> None:
        """Look at all audits that ended since the last time, and do what follows."""
        with self._settling:
            draws = self._lottery.take_ended()
            for draw in draws:
                if draw.found is not None:
                    self._metrics.audited(draw.found)
            try:
                self._record.add(draws, self._now(), self._broke)
            except OSError as error:
                if self._can_write:
                    self._log.warning("evidence of the audit cannot be written", extra={"error": str(error)})
                self._can_write = False
            else:
                self._can_write = True
            self._show()

    def _broke(self, evidence: Evidence) -> None:
        if evidence.certificate in self._budget.catalogue.withdrawn:
            return
        why = f"certificate broken: {evidence}"
        safer = self._budget.withdraw(evidence.certificate, why, fall_back=self._fall_back)
        self._log.warning(why, extra={"wealth": round(evidence.wealth, 1), "fell_back_to": safer and safer.profile})

    def _show(self) -> None:
        for evidence in self.evidence:
            claim = evidence.certificate.claim
            self._metrics.certificate(claim.risk, claim.epsilon, evidence.wealth, is_broken=evidence.is_broken)
