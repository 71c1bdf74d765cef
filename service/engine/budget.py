"""The budget: what the operator asks for, what that resolves to, and what is in force; it outlives restarts.

A change is a new revision, written atomically beside the hashes of the bundle that it was made for: thresholds belong
to weights, so the budget of another bundle is not used.
"""

import fcntl
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from models import strict_json
from models.bundle import write_file_atomically
from models.profiles import OperatingPoint, Profiles, check_thresholds
from service.errors import AboveCeilingError, InvalidParameterError, InvalidThresholdsError, UnknownProfileError
from service.types import Thresholds

SCHEMA_VERSION = 1
FILE, LOCK = "budget.json", "budget.lock"


@dataclass(frozen=True)
class BudgetRequest:
    """What is asked for: exactly one of these."""

    profile: str | None = None
    thresholds: Thresholds | None = None


@dataclass(frozen=True)
class Resolved:
    """Thresholds to leave by, and what is known about them: a profile's name, the number of a point of the frontier,
    and what the report split measured there (None for a vector that was never measured)."""

    thresholds: Thresholds
    profile: str | None
    operating_point: int | None
    measured: OperatingPoint | None


@dataclass(frozen=True)
class InForce:
    """The budget of a moment. Revisions count up from 1 and never go back."""

    revision: int
    request: BudgetRequest
    resolved: Resolved


@dataclass(frozen=True)
class Stored:
    """budget.json."""

    bundle: str
    revision: int
    request: BudgetRequest
    schema_version: int = SCHEMA_VERSION


class Catalogue:
    """What can be asked of one bundle. `profiles` is None for a bundle that was never profiled."""

    def __init__(self, exits: int, profiles: Profiles | None) -> None:
        self.exits = exits
        self.profiles = profiles

    def resolve(self, request: BudgetRequest) -> Resolved:
        """Raises `InvalidParameterError`, `UnknownProfileError` or `InvalidThresholdsError`."""
        if (request.profile is None) == (request.thresholds is None):
            raise InvalidParameterError("give one of `profile` and `thresholds`, and one only")
        if request.profile is not None:
            return self._resolve_profile(request.profile)
        assert request.thresholds is not None
        try:
            check_thresholds(request.thresholds, self.exits)
        except ValueError as error:
            raise InvalidThresholdsError(
                f"{error}; GET /budget/frontier shows vectors that are known to be good"
            ) from error
        return self._describe(request.thresholds)

    def _resolve_profile(self, name: str) -> Resolved:
        if self.profiles is None:
            raise UnknownProfileError(
                f"there is no profile {name[:64]!r}: this bundle has none (run `dvt profile` on it); use `thresholds`"
            )
        if name not in self.profiles.named:
            known = ", ".join(self.profiles.named)
            raise UnknownProfileError(f"there is no profile {name[:64]!r}, this bundle has {known}")
        point = self.profiles.named[name]
        return Resolved(point.thresholds, name, self._number(point.thresholds), point)

    def _describe(self, thresholds: Thresholds) -> Resolved:
        number = self._number(thresholds)
        measured = None
        if self.profiles is not None and number is not None:
            measured = self.profiles.frontier[number]
        return Resolved(thresholds, None, number, measured)

    def _number(self, thresholds: Thresholds) -> int | None:
        frontier = self.profiles.frontier if self.profiles is not None else ()
        return next((number for number, point in enumerate(frontier) if point.thresholds == thresholds), None)


class Budget:
    """The budget in force, thread-safe. `bundle` is the pair of hashes that it belongs to.

    Raises `UnknownProfileError` for a `ceiling` or a first profile that the bundle does not have.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        bundle: str,
        first_profile: str,
        ceiling: str,
        folder: Path,
        log: logging.Logger,
    ) -> None:
        self.catalogue = catalogue
        self.ceiling = catalogue.resolve(BudgetRequest(profile=ceiling)) if ceiling else None
        self._bundle = bundle
        self._folder = folder
        self._log = log
        self._lock = threading.Lock()
        # Without profiles nothing is known of leaving early, so nothing leaves early.
        whole = BudgetRequest(thresholds=(None,) * (catalogue.exits - 1))
        first = whole if catalogue.profiles is None else BudgetRequest(profile=first_profile)
        with self._locked():
            self.in_force = self._start(self._read(), first)

    def put(self, request: BudgetRequest) -> InForce:
        """Put another budget in force, for good. Raises as `Catalogue.resolve` does, and `OSError`."""
        resolved = self.catalogue.resolve(request)
        with self._lock, self._locked():
            stored = self._read()
            revision = max(self.in_force.revision, stored.revision if stored else 0) + 1
            self._write(Stored(self._bundle, revision, request))
            self.in_force = InForce(revision, request, resolved)
            return self.in_force

    def check_ceiling(self, asked: Resolved) -> None:
        """A request may ask for what is cheaper than the ceiling or than the budget in force.

        Between measured points the measured mean cost decides. A vector that was never measured is cheaper for sure
        only where no threshold is higher. Raises `AboveCeilingError`.
        """
        if self.ceiling is None:
            return
        if any(_not_dearer(asked, bound) for bound in (self.ceiling, self.in_force.resolved)):
            return
        raise AboveCeilingError(
            f"that may cost more than the profile {self.ceiling.profile!r}, the operator's ceiling (DVT_CEILING); "
            f"ask for that profile, or for thresholds of at most {list(self.ceiling.thresholds)}"
        )

    def _start(self, stored: Stored | None, first: BudgetRequest) -> InForce:
        revision = stored.revision if stored else 0
        if stored is not None and stored.bundle == self._bundle:
            try:
                return InForce(revision, stored.request, self.catalogue.resolve(stored.request))
            except (InvalidParameterError, UnknownProfileError, InvalidThresholdsError) as error:
                self._log.warning("stored budget does not fit", extra={"error": error.detail})
        elif stored is not None:
            self._log.warning(
                "stored budget was made for another bundle and is not used",
                extra={"was": asdict(stored.request), "now": asdict(first)},
            )
        started = InForce(revision + 1, first, self.catalogue.resolve(first))
        self._write(Stored(self._bundle, started.revision, first))
        return started

    def _read(self) -> Stored | None:
        path = self._folder / FILE
        try:
            return strict_json.loads(Stored, path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            return None
        except (strict_json.SchemaError, UnicodeDecodeError) as error:
            self._log.warning("stored budget cannot be read and is replaced", extra={"error": str(error)})
            return None

    def _write(self, stored: Stored) -> None:
        write_file_atomically(self._folder / FILE, strict_json.dumps(stored).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among processes that share the folder."""
        with (self._folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def confidence_rule(exits: int, least: float) -> Thresholds:
    """Leave at the first exit that is at least so confident."""
    return (least,) * (exits - 1)


def _not_dearer(asked: Resolved, bound: Resolved) -> bool:
    if asked.measured is not None and bound.measured is not None:
        return asked.measured.mean_gmacs <= bound.measured.mean_gmacs
    return all(
        limit is None or (threshold is not None and threshold <= limit)
        for threshold, limit in zip(asked.thresholds, bound.thresholds, strict=True)
    )
