"""The budget: what the operator asks for, what that resolves to, and what is in force; it outlives restarts.

A change is a new revision, written atomically beside the hashes of the bundle that it was made for: thresholds belong
to weights, so the budget of another bundle is not used.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from models.profiles import Certificate
from service.engine.budget_file import HISTORY, BudgetFile, Change, Stored
from service.engine.catalogue import BudgetRequest, Catalogue, Resolved, no_lower
from service.errors import (
    AboveCeilingError,
    BudgetNotMetError,
    InvalidParameterError,
    InvalidThresholdsError,
    NotReadyError,
    RevisionChangedError,
    ServiceError,
    UnknownProfileError,
)
from service.types import Thresholds

# Who is named for a budget that nobody asked for, and for what happens under one.
STARTED, AUDIT = "start", "audit"


@dataclass(frozen=True)
class InForce:
    """The budget of a moment. Revisions count what operators asked for, up from 1, and never go back.

    `resolved` is what the request means; under `auto` it is chosen by load from `points`, the cheapest first, which
    else are none. `instead` stands in for it until the next change. Neither is what anybody asked for, so neither is a
    revision: `operating_point` counts those changes, since the start. `ceiling`: a request may ask for what costs no
    more than it, or than the budget; None where anything goes.
    """

    revision: int
    operating_point: int
    request: BudgetRequest
    resolved: Resolved
    ceiling: Resolved | None
    points: tuple[Resolved, ...] = ()
    instead: Resolved | None = None

    @property
    def point(self) -> Resolved:
        """What images leave by."""
        return self.instead or self.resolved


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Budget:
    """The budget in force, thread-safe; `stored` is what the file has of it, its last changes too. `bundle` is the pair
    of hashes that it belongs to.

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
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.catalogue = catalogue
        self._ceiling = ceiling
        self._bundle = bundle
        self._file = BudgetFile(folder, log)
        self._log = log
        self._now = now
        self._lock = threading.Lock()
        self._changes = 0
        self.stored: Stored
        self.in_force: InForce
        # Without profiles nothing is known of leaving early, so nothing leaves early.
        whole = BudgetRequest(thresholds=(None,) * (catalogue.exits - 1))
        first = whole if catalogue.profiles is None else BudgetRequest(profile=first_profile)
        with self._file.locked():
            self._file.tidy()
            self._start(self._file.read(), first)

    def resolve(self, request: BudgetRequest) -> InForce:
        """What `put` would put in force, under the present revision. Raises as `Catalogue.resolve` does."""
        return self._in_force(self.in_force.revision, request)

    def put(self, request: BudgetRequest, *, by: str, if_revision: int | None = None) -> InForce:
        """Put another budget in force, for good, `by` a key of that name; one that is in force already stays as it is.

        Raises as `after` does, and `OSError`.
        """
        with self._lock, self._file.locked():
            latest = self._file.read()
            changed = self.after(latest, request, by=by, if_revision=if_revision)
            if changed is not None:
                self._take(changed, self.resolve(request))
            elif latest is not None and latest.revision > self.stored.revision:  # Another process was as quick.
                self._take(latest, self._with_fallback(latest, self.resolve(request)))
            return self.in_force

    def after(
        self, latest: Stored | None, request: BudgetRequest, *, by: str, if_revision: int | None = None
    ) -> Stored | None:
        """What putting a request in force makes of the latest budget known, here or elsewhere; None where it is in
        force already. Changes nothing.

        Raises as `Catalogue.resolve` does, and `RevisionChangedError` where another revision than `if_revision` is in
        force.
        """
        resolved = self.catalogue.resolve(request)
        newest = self.stored if latest is None or latest.revision < self.stored.revision else latest
        if if_revision not in (None, newest.revision):
            raise RevisionChangedError(
                f"revision {if_revision} was expected (If-Match), {newest.revision} is in force; GET /budget shows it"
            )
        # Who asks again for what a fallback stands in for does ask for a change.
        if request == newest.request and newest.bundle == self._bundle and self.stored.fallback is None:
            return None
        change = Change(newest.revision + 1, self._now().isoformat(timespec="seconds"), by, request)
        history = (*newest.history, change)[-HISTORY:]
        return Stored(self._bundle, change.revision, request, resolved.thresholds, history)

    def adopt(self, stored: Stored) -> bool:
        """Put in force what another replica did, if that is newer and means something here; says whether it was done.

        A vector of thresholds belongs to its bundle; anything else that is asked is resolved for this one. Raises
        `OSError`.
        """
        with self._lock, self._file.locked():
            if stored.revision <= self.stored.revision:
                return False
            if stored.bundle != self._bundle and stored.request.thresholds is not None:
                self._log.warning("thresholds for another bundle are not followed", extra={"revision": stored.revision})
                return False
            try:
                in_force = self._in_force(stored.revision, stored.request, self.in_force.resolved)
            except ServiceError as error:
                self._log.warning("budget is not followed", extra={"revision": stored.revision, "error": error.detail})
                return False
            thresholds = in_force.resolved.thresholds
            self._take(replace(stored, bundle=self._bundle, thresholds=thresholds, fallback=None), in_force)
            return True

    def withdraw(self, certificate: Certificate, why: str, *, fall_back: bool = False) -> Resolved | None:
        """Nothing is promised by this certificate any more; `why` goes into the history, under the present revision.

        With `fall_back`, where it was the promise of the budget in force, the next safer profile stands in for that
        until the next change; it is given. Done in memory also where the file cannot be written.
        """
        with self._lock:
            self.catalogue = replace(self.catalogue, withdrawn=(*self.catalogue.withdrawn, certificate))
            was = self.in_force
            resolved, instead = (each and self._without(certificate, each) for each in (was.resolved, was.instead))
            assert resolved is not None
            points = tuple(self._without(certificate, each) for each in was.points)
            self.in_force = replace(was, resolved=resolved, points=points, instead=instead)
            safer = None
            if fall_back and was.point.certificate == certificate and not self._still_promised(certificate):
                safer = self.catalogue.next_safer(was.point.thresholds)
            if safer is not None:
                why = f"{why}; fell back to the profile {safer.profile!r}"
                self.in_force = self._operated(replace(self.in_force, instead=safer))
            self._note(why, self.stored.fallback if safer is None else safer.profile)
            return safer

    def operate(self, revision: int, point: Resolved) -> bool:
        """Have images leave by another point from now on; says whether it was done.

        It is not where another revision is in force by now, or is about to be: never waits for a change. That is no
        new revision: what the operator asked for stays the same.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self.in_force.revision != revision:
                return False
            self.in_force = self._operated(replace(self.in_force, resolved=point))
            return True
        finally:
            self._lock.release()

    def settle(self) -> None:
        """Resolve anew what depends on this device's speed, once that is measured."""
        with self._lock:
            before = self.in_force
            if before.request.latency_ms is None:
                return
            try:
                settled = self._in_force(before.revision, before.request)
                self.in_force = replace(settled, instead=before.instead)
            except BudgetNotMetError as error:
                self._log.warning("stored budget is not met on this device", extra={"error": error.detail})

    def check_ceiling(self, asked: Resolved) -> None:
        """A request may ask for what is cheaper than the ceiling or than the budget in force (of `auto` its dearest).

        Between measured points the measured mean cost decides. A vector that was never measured is cheaper for sure
        only where no threshold is higher. Raises `AboveCeilingError`.
        """
        in_force = self.in_force
        ceiling, bounds = in_force.ceiling, (in_force.point, *in_force.points[-1:])
        if ceiling is None or any(_not_dearer(asked, bound) for bound in (ceiling, *bounds)):
            return
        raise AboveCeilingError(
            f"that may cost more than the profile {ceiling.profile!r}, the operator's ceiling (DVT_CEILING, or the "
            f"budget's own); ask for that profile, or for thresholds of at most {list(ceiling.thresholds)}"
        )

    def _in_force(self, revision: int, request: BudgetRequest, meanwhile: Resolved | None = None) -> InForce:
        """`meanwhile` is in force where the device's speed matters and is not measured yet."""
        name = request.ceiling or self._ceiling
        ceiling = self.catalogue.resolve(BudgetRequest(profile=name)) if name else None
        try:
            resolved = self.catalogue.resolve(request)
        except NotReadyError:
            if meanwhile is None:
                raise
            resolved = meanwhile
        points = () if request.auto is None else self.catalogue.range_of(request.auto)
        return InForce(revision, self._changes, request, resolved, ceiling, points)

    def _start(self, stored: Stored | None, first: BudgetRequest) -> None:
        """What was asked before, as this bundle has it; a vector of thresholds belongs to the bundle it was put for."""
        if stored is None:
            self._begin(first, 1, ())
            return
        is_same = stored.bundle == self._bundle
        if not is_same and stored.request.thresholds is not None:
            self._log.warning(
                "stored thresholds were made for another bundle and are dropped",
                extra={"was": asdict(stored.request), "now": asdict(first)},
            )
            self._begin(first, stored.revision + 1, stored.history)
            return
        try:
            before = BudgetRequest(thresholds=stored.thresholds) if is_same and stored.thresholds is not None else first
            asked = stored.request
            if is_same and asked.max_risk is not None and self.catalogue.withdrew(stored.thresholds):
                asked = replace(before, ceiling=asked.ceiling)  # It was asked for while its certificate held.
            started = self._in_force(stored.revision, asked, self.catalogue.resolve(before))
            started = replace(started, request=stored.request)
        except (InvalidParameterError, UnknownProfileError, InvalidThresholdsError, BudgetNotMetError) as error:
            self._log.warning("stored budget does not fit", extra={"error": error.detail, "now": asdict(first)})
            self._begin(first, stored.revision + 1, stored.history)
            return
        if is_same:
            self.stored, self.in_force = stored, self._with_fallback(stored, started)
            return
        self._log.warning("stored budget is resolved anew for this bundle", extra={"budget": asdict(stored.request)})
        thresholds = started.resolved.thresholds
        self._take(replace(stored, bundle=self._bundle, thresholds=thresholds, fallback=None), started)

    def _with_fallback(self, stored: Stored, started: InForce) -> InForce:
        if stored.fallback is None:
            return started
        try:
            instead = self.catalogue.resolve(BudgetRequest(profile=stored.fallback))
        except UnknownProfileError as error:
            self._log.warning("stored fallback does not fit", extra={"error": error.detail})
            return started
        return self._operated(replace(started, instead=instead))

    def _operated(self, changed: InForce) -> InForce:
        """Another point, that nobody asked for."""
        self._changes += 1
        return replace(changed, operating_point=self._changes)

    def _without(self, certificate: Certificate, resolved: Resolved) -> Resolved:
        """What is left of a promise."""
        if resolved.certificate != certificate:
            return resolved
        left = self.catalogue.describe(resolved.thresholds)
        return replace(resolved, certificate=left.certificate, uncertified=left.uncertified)

    def _still_promised(self, withdrawn: Certificate) -> bool:
        """Whether another certificate of the thresholds in force holds what was asked for."""
        risk, left = withdrawn.claim.risk, self.in_force.point.certificate
        asked = (self.in_force.request.max_risk or {}).get(risk, withdrawn.claim.epsilon)
        return left is not None and left.claim.risk == risk and left.claim.epsilon <= asked

    def _note(self, why: str, fallback: str | None) -> None:
        stored = self.stored
        change = Change(stored.revision, self._now().isoformat(timespec="seconds"), AUDIT, stored.request, why)
        self.stored = replace(stored, history=(*stored.history, change)[-HISTORY:], fallback=fallback)
        try:
            with self._file.locked():
                latest = self._file.read()
                # Unless another process has put another budget there meanwhile.
                if latest is None or latest.revision <= stored.revision:
                    self._file.write(self.stored)
        except OSError as error:
            self._log.error("budget cannot be written, a restart will not know", extra={"why": str(error), "what": why})

    def _begin(self, first: BudgetRequest, revision: int, history: tuple[Change, ...]) -> None:
        """With what nobody asked for."""
        started = self._in_force(revision, first)
        change = Change(revision, self._now().isoformat(timespec="seconds"), STARTED, first)
        thresholds = started.resolved.thresholds
        self._take(Stored(self._bundle, revision, first, thresholds, (*history, change)[-HISTORY:]), started)

    def _take(self, stored: Stored, in_force: InForce) -> None:
        """Written first. Raises `OSError`, and then nothing has changed."""
        self._file.write(stored)
        self.stored, self.in_force = stored, replace(in_force, revision=stored.revision)


def confidence_rule(exits: int, least: float) -> Thresholds:
    """Leave at the first exit that is at least so confident."""
    return (least,) * (exits - 1)


def _not_dearer(asked: Resolved, bound: Resolved) -> bool:
    if asked.measured is not None and bound.measured is not None:
        return asked.measured.mean_gmacs <= bound.measured.mean_gmacs
    return no_lower(bound.thresholds, asked.thresholds)
