"""audit.json: the evidence against each certificate. It outlives restarts, and is of one bundle."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from models.profiles import Certificate
from service.engine.draws import Draw, Found
from service.engine.evidence import ALPHA, ODDS, bet, first_stakes, wealth
from service.engine.state_file import StateFile

SCHEMA_VERSION = 1
NAME = "audit"
FILE = f"{NAME}.json"
# Certificates come and go with `dvt certify`, weights stay: the evidence against so many is kept.
_MOST = 64


@dataclass(frozen=True)
class Evidence:
    """Against one certificate of disagreement: what was seen so far, and what the bets on it are worth.

    `samples` counts those `left_out` too. They are bet on as if they had agreed: the images for which a deadline or
    the guard decides are those that go deep, and without them the rest would disagree more often than all images do.
    `broken_at`: when the wealth reached 1/alpha (UTC, ISO 8601); from then on nothing is bet. Raises `ValueError` for
    counts and stakes that no course of samples leads to.
    """

    certificate: Certificate
    samples: int = 0
    disagreed: int = 0
    left_out: int = 0
    stakes: tuple[float, ...] = tuple(first_stakes().tolist())
    broken_at: str | None = None

    def __post_init__(self) -> None:
        if min(self.samples, self.disagreed, self.left_out) < 0 or self.disagreed + self.left_out > self.samples:
            raise ValueError(f"{self.disagreed} and {self.left_out} of {self.samples} samples make no sense")
        if len(self.stakes) != len(ODDS) or min(self.stakes) < 0:
            raise ValueError(f"stakes are {list(self.stakes)}, expected {len(ODDS)} that are not below 0")

    @property
    def epsilon(self) -> float:
        return self.certificate.claim.epsilon

    @property
    def seen(self) -> int:
        """Samples of which it is known whether they disagreed."""
        return self.samples - self.left_out

    @property
    def wealth(self) -> float:
        return float(wealth(np.array(self.stakes), self.samples, self.epsilon))

    @property
    def is_broken(self) -> bool:
        return self.broken_at is not None

    def after(self, found: Found, at: datetime) -> "Evidence":
        """With one more sample."""
        if self.is_broken:
            return self
        disagrees = found == "disagreed"
        stakes = bet(np.array(self.stakes), self.samples, np.array(disagrees), self.epsilon)
        seen = replace(
            self,
            samples=self.samples + 1,
            disagreed=self.disagreed + disagrees,
            left_out=self.left_out + (found == "left_out"),
            stakes=tuple(stakes.tolist()),
        )
        return replace(seen, broken_at=at.isoformat(timespec="seconds")) if seen.wealth >= 1 / ALPHA else seen

    def __str__(self) -> str:
        claim = self.certificate.claim
        return f"{claim.risk} of at most {claim.epsilon:g}: {self.disagreed} of {self.seen} audited images disagree"


@dataclass(frozen=True)
class StoredAudit:
    """The file. `bundle` is the pair of hashes that the certificates belong to."""

    bundle: str
    evidence: tuple[Evidence, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def of(self, certificate: Certificate) -> Evidence:
        return next((each for each in self.evidence if each.certificate == certificate), Evidence(certificate))

    def merged(self, other: "StoredAudit") -> "StoredAudit":
        """Of each certificate whichever has seen more."""
        mine = {each.certificate: each for each in self.evidence}
        for each in other.evidence:
            own = mine.pop(each.certificate, each)  # Popped: the end of the file is what changed last.
            mine[each.certificate] = max(own, each, key=lambda seen: (seen.is_broken, seen.samples))
        return replace(self, evidence=tuple(mine.values())[-_MOST:])


class AuditRecord:
    """The evidence against a bundle's `certificates`, in a folder that several processes may share."""

    def __init__(self, folder: Path, bundle: str, certificates: Sequence[Certificate], log: logging.Logger) -> None:
        self._file = StateFile(folder, NAME, StoredAudit, log)
        self._certificates = tuple(each for each in certificates if each.claim.risk == "disagreement")
        self._log = log
        self._is_written = True
        self._stored = StoredAudit(bundle)
        with self._file.locked():
            self._file.tidy()
            self._stored = self._latest()

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Against each certificate of disagreement."""
        return tuple(map(self._stored.of, self._certificates))

    @property
    def broken(self) -> tuple[Certificate, ...]:
        return tuple(each.certificate for each in self.evidence if each.is_broken)

    def add(self, draws: Sequence[Draw], now: datetime, broke: Callable[[Evidence], None]) -> None:
        """Look at these draws, one after the other; `broke` is told of each certificate that is broken by now.

        It is told before the file is written: a crash in between has the certificate broken once more, not half. Raises
        `OSError` where the file cannot be written; memory goes on, and writes it the next time.
        """
        if not draws and self._is_written:
            return
        with self._file.locked():
            latest = self._latest()
            seen = []
            for certificate in self._certificates:
                evidence = latest.of(certificate)
                for draw in draws:
                    if draw.found is not None and draw.thresholds == certificate.point.thresholds:
                        evidence = evidence.after(draw.found, now)
                seen.append(evidence)
                if evidence.is_broken:
                    broke(evidence)
            after = latest.merged(replace(latest, evidence=tuple(each for each in seen if each.samples)))
            if after != latest or not self._is_written:
                self._stored, self._is_written = after, False
                self._file.write(after)
                self._is_written = True

    def _latest(self) -> StoredAudit:
        """What the file has and what memory has, another process's samples too."""
        stored = self._file.read()
        if stored is None:
            return self._stored
        if stored.bundle != self._stored.bundle:
            self._log.warning("evidence against another bundle's certificates is dropped")
            return self._stored
        return self._stored.merged(stored)
