"""What `GET /metrics` shows that nobody counts: read off the service at the moment that it is asked."""

from collections.abc import Callable, Sequence
from functools import partial

from models.profiles import OperatingPoint
from service import series
from service.api.deps import Service
from service.backends.base import StageBackend
from service.engine.evidence import ALPHA
from service.metrics import Metrics, Reading


def show_readings(service: Service, backends: Sequence[StageBackend]) -> None:
    """Once, when the service is put together. Of several devices their sum is shown."""
    _show_engine(service, backends)
    _show_kept(service, backends[0].slot_bytes)
    _show_budget(service)
    _show_model(service)
    ask = service.metrics.ask
    ask(series.AUDIT_SHARE, lambda: service.settings.audit_share)
    ask(series.WEALTH_LIMIT, lambda: 1 / ALPHA)
    ask(series.AUDITS_PENDING, lambda: service.audit.pending)
    replicas = service.replicas
    if replicas is not None:
        ask(series.CONNECTED, lambda: replicas.is_connected)


def _show_engine(service: Service, backends: Sequence[StageBackend]) -> None:
    ask, admission = service.metrics.ask, service.admission
    ask(series.READY, lambda: service.is_ready)
    ask(series.DRAINING, lambda: admission.draining)
    ask(series.ENGINE_UP, lambda: service.scheduler.alive)
    ask(series.LANES, lambda: sum(backend.lanes for backend in backends))
    ask(series.IN_FLIGHT, lambda: admission.inside)
    ask(series.IN_FLIGHT_LIMIT, lambda: admission.limits.permits)
    ask(series.STATE_RESERVED, lambda: admission.reserved_bytes)
    ask(series.STATE_LIMIT, lambda: admission.limits.state_bytes)
    ask(series.SLOTS, lambda: sum(backend.slots for backend in backends))
    ask(series.SLOTS_USED, lambda: sum(backend.slots_in_use for backend in backends))
    ask(series.STATE_USED, lambda: sum(backend.slots_in_use * backend.slot_bytes for backend in backends))

    def waiting(stage: int) -> float:
        return service.scheduler.waiting[stage - 1]

    service.metrics.ask_each(series.QUEUED, {str(stage): partial(waiting, stage) for stage in _exits(service)})


def _show_kept(service: Service, slot_bytes: int) -> None:
    kept = service.kept
    service.metrics.ask_each(
        series.KEPT, {"state": lambda: kept.slots * slot_bytes, "answer": lambda: kept.answers_bytes}
    )


def _show_budget(service: Service) -> None:
    metrics, budget = service.metrics, service.budget
    metrics.ask(series.REVISION, lambda: budget.in_force.revision)
    metrics.ask(series.OPERATING_POINT, lambda: budget.in_force.operating_point)
    metrics.ask(series.POINT, lambda: budget.in_force.point.number)
    metrics.ask(series.FALLBACK, lambda: budget.in_force.instead is not None)

    def measured() -> OperatingPoint | None:
        return budget.in_force.point.measured

    metrics.ask(series.GMACS, lambda: None if (point := measured()) is None else point.mean_gmacs)
    metrics.ask(series.TOP1, lambda: None if (point := measured()) is None else point.top1)

    def is_in_force(profile: str) -> Callable[[], bool]:
        return lambda: (budget.in_force.point.profile or series.UNNAMED) == profile

    named = () if service.model.profiles is None else tuple(service.model.profiles.named)
    metrics.ask_each(series.PROFILE, {name: is_in_force(name) for name in (*named, series.UNNAMED)})

    def share_of(exit_number: int) -> Reading:
        def share() -> float | None:
            point = measured()
            return None if point is None or point.exit_shares is None else point.exit_shares[exit_number - 1]

        return share

    metrics.ask_each(series.SHARE, {str(number): share_of(number) for number in _exits(service)})


def _show_model(service: Service) -> None:
    metrics, model = service.metrics, service.model
    _show_all(metrics, series.EXIT_GMACS, [model.gmacs(number) for number in _exits(service)], first=1)
    metrics.ask(series.STATIC_GMACS, lambda: model.static_gmacs)
    frontier = () if model.profiles is None else model.profiles.frontier
    _show_all(metrics, series.FRONTIER_GMACS, [point.mean_gmacs for point in frontier])
    _show_all(metrics, series.FRONTIER_TOP1, [point.top1 for point in frontier])


def _show_all(metrics: Metrics, gauge: series.GaugeOf, values: Sequence[float | None], first: int = 0) -> None:
    """Values that never change, by their number."""

    def constant(value: float | None) -> Reading:
        return lambda: value

    metrics.ask_each(gauge, {str(number): constant(value) for number, value in enumerate(values, start=first)})


def _exits(service: Service) -> range:
    return range(1, service.model.config.exits + 1)
