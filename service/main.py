"""Puts a service together: a bundle, a backend that computes it, and everything that a request meets on its way."""

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from prometheus_client import disable_created_metrics

from models.bundle import Bundle, read_bundle
from service.api.deps import Model, Service
from service.api.keys import open_keys
from service.api.readings import show_readings
from service.backends.base import Capacity, StageBackend
from service.backends.choose import Wanted, open_backend
from service.cpus import available_cpus
from service.decode import ImageLimits
from service.engine.admission import Admission, AdmissionLimits
from service.engine.audit import Audit, audit_places, places_within
from service.engine.audit_file import AuditRecord
from service.engine.batching import BatchLimits
from service.engine.budget import Budget
from service.engine.catalogue import Catalogue
from service.engine.content import ContentKeys
from service.engine.draws import Lottery
from service.engine.engine import Engine
from service.engine.feedback import Feedback
from service.engine.fleet import Fleet
from service.engine.guard import DeepGuard
from service.engine.kept import KeptLimits, KeptWork
from service.engine.scheduler import Scheduler
from service.engine.steering import Steering
from service.metrics import Metrics
from service.randomness import Randomness
from service.replicas import BudgetChannel, Replicas
from service.settings import Loaded, Settings, SettingsError
from service.traces import open_traces
from service.types import Clock


@dataclass(frozen=True)
class Opened:
    """A bundle with what computes it, and why that does. `others`: the same backend on the devices after the first, in
    the order of `devices`, which are names."""

    bundle: Bundle
    backend: StageBackend
    why: str
    devices: tuple[str, ...] = ("cpu",)
    others: tuple[StageBackend, ...] = ()

    @property
    def backends(self) -> tuple[StageBackend, ...]:
        """One a device."""
        return (self.backend, *self.others)


def open_bundle(settings: Settings, *, alone: bool = False) -> Opened:
    """On all devices of the settings, or `alone` on the first.

    Raises `BundleError`, `BackendError` or `SettingsError`, all `ValueError`, with the way out.
    """
    try:
        bundle = read_bundle(settings.bundle)
    except OSError as error:
        raise SettingsError(
            f"DVT_BUNDLE is {settings.bundle}: {error.filename} cannot be read: {error.strerror}; "
            "make it readable for the user that the service runs as"
        ) from error
    wanted = Wanted(
        settings.backend,
        settings.device,
        available_cpus(),
        capacity_of(settings),
        settings.precision,
        settings.threads,
        settings.lanes,
        alone,
    )
    chosen = open_backend(bundle, wanted)
    return Opened(bundle, chosen.backend, chosen.why, tuple(map(str, chosen.devices)), chosen.others)


def capacity_of(settings: Settings) -> Capacity:
    """What the backend of each device has to have room for: all, where the others are slower."""
    return Capacity(settings.queue_limit + _audit_places(settings), settings.state_bytes, settings.max_batch)


def build_service(loaded: Loaded, opened: Opened, log: logging.Logger, channel: BudgetChannel | None = None) -> Service:
    """Everything but the threads and the port. Makes the state folder, and in it the admin key and the budget.

    `channel`: where replicas meet that name no Redis.

    Raises `ValueError` (of which `SettingsError` is one) or a `ServiceError` for settings that do not fit the bundle.
    """
    settings, bundle = loaded.settings, opened.bundle
    make_state_folder(settings)
    # A second series a counter that nobody asked for. (The library leaves this function without types.)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    exits = bundle.config.exits
    metrics = Metrics(bundle.name, bundle.weights_sha256, exits)
    backend = opened.backend
    log.info(
        "backend",
        extra={
            "backend": backend.name,
            "devices": ", ".join(opened.devices),
            "lanes": sum(each.lanes for each in opened.backends),
            "why": opened.why,
        },
    )
    clock, randomness = time.monotonic, Randomness()
    kept = KeptWork(
        _kept_limits(settings, backend),
        exits=exits,
        clock=clock,
        metrics=metrics,
        devices=len(opened.devices),
    )
    engine = _make_engine(settings, opened, kept, clock, metrics, log)
    catalogue = Catalogue(
        exits, bundle.profiles, backend.name, settings.precision, lambda: _seconds_alone(engine, exits)
    )
    hashes = f"{bundle.weights_sha256}:{bundle.config_sha256}"
    record = AuditRecord(settings.state_dir, hashes, catalogue.made_here, log)
    budget = Budget(
        replace(catalogue, withdrawn=record.broken),
        bundle=hashes,
        first_profile=settings.profile,
        ceiling=settings.ceiling,
        folder=settings.state_dir,
        log=log,
    )
    places = min(_audit_places(settings), places_within(engine.slots))
    if settings.audit_share and not places:
        log.warning("there is memory for one image, so none is audited (DVT_STATE_BYTES, DVT_AUDIT_SHARE)")
    lottery = Lottery(settings.audit_share, places, lambda: metrics.audited("skipped"), randomness.chance)
    admission = Admission(
        AdmissionLimits(
            min(settings.queue_limit, engine.slots - places),
            settings.state_bytes * len(opened.devices),
            backend.slot_bytes,
            settings.body_bytes,
        ),
        engine.work_s,
    )
    service = Service(
        settings=settings,
        model=Model(
            bundle.name,
            bundle.config,
            bundle.weights_sha256,
            bundle.config_sha256,
            bundle.profiles,
            backend.name,
            opened.devices,
            backend.slot_bytes,
        ),
        keys=open_keys(settings, loaded.secret_files, log),
        limits=ImageLimits(settings.max_image_bytes, settings.max_image_px),
        admission=admission,
        budget=budget,
        replicas=_open_replicas(loaded, channel, budget, log),
        steering=Steering(
            budget,
            admission,
            engine.work_s,
            engine.lanes,
            clock=clock,
            metrics=metrics,
            log=log,
        ),
        scheduler=engine,
        audit=Audit(lottery, record, budget, fall_back=settings.audit_fallback, metrics=metrics, log=log),
        feedback=Feedback(settings.feedback_results, exits),
        kept=kept,
        contents=None
        if settings.cache == "off"
        else ContentKeys(bundle.weights_sha256, bundle.config_sha256, is_shared=settings.cache == "shared"),
        decoders=ThreadPoolExecutor(settings.decode_threads or available_cpus(), "dvt-decode"),
        metrics=metrics,
        traces=open_traces(settings.otlp_endpoint, clock),
        randomness=randomness,
        clock=clock,
        log=log,
    )
    show_readings(service, opened.backends)
    return service


def _make_engine(
    settings: Settings, opened: Opened, kept: KeptWork, clock: Clock, metrics: Metrics, log: logging.Logger
) -> Engine:
    """A scheduler a device. One alone is the engine itself, and knows of no others."""
    guard = DeepGuard(settings.guard_share, clock)
    is_alone = len(opened.devices) == 1
    schedulers = [
        Scheduler(
            backend,
            opened.bundle.measure,
            BatchLimits(settings.max_batch, settings.batch_delay_ms / 1000),
            clock=clock,
            metrics=metrics,
            log=log,
            warm_px=opened.bundle.config.input.size_px,
            stall_s=settings.stall_seconds,
            guard=guard,
            kept=kept,
            device=number,
            device_name="" if is_alone else name,
        )
        for number, (name, backend) in enumerate(zip(opened.devices, opened.backends, strict=True))
    ]
    return schedulers[0] if is_alone else Fleet(schedulers, kept)


def _seconds_alone(engine: Engine, exits: int) -> list[float]:
    """Of one image at each stage, on whichever device takes longest: an image may come to any. Empty until all are
    warm."""
    if engine.warming is not None:
        return []
    return [max(lanes.costs.seconds(stage, 1) for lanes in engine.lanes) for stage in range(1, exits + 1)]


def _kept_limits(settings: Settings, backend: StageBackend) -> KeptLimits:
    """States rest in slots that the backend has anyway, for images that may come in: kept ones make room for them."""
    state_bytes = settings.refine_bytes or settings.state_bytes // 2
    return KeptLimits(
        keep_s=settings.refine_seconds,
        slots=min(backend.slots, state_bytes // backend.slot_bytes),
        answers_bytes=settings.cache_bytes,
        finds_content=settings.cache != "off",
    )


def _audit_places(settings: Settings) -> int:
    return audit_places(settings.queue_limit) if settings.audit_share else 0


def _open_replicas(
    loaded: Loaded, channel: BudgetChannel | None, budget: Budget, log: logging.Logger
) -> Replicas | None:
    """None where there is nowhere to meet. Raises `SettingsError` for a DVT_REDIS_URL that makes no sense."""
    file = loaded.secret_files.get("redis_url")
    url = file.read_text().strip() if file is not None else loaded.settings.redis_url.get_secret_value()
    if url:
        from service.redis_channel import RedisChannel

        try:
            channel = RedisChannel(url)
        except ValueError as error:
            raise SettingsError(f"DVT_REDIS_URL makes no sense: {error}") from error
    return None if channel is None else Replicas(channel, budget, log)


def make_state_folder(settings: Settings) -> None:
    """Raises `SettingsError` where it cannot be written."""
    folder = settings.state_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise SettingsError(
            f"DVT_STATE_DIR is {folder}: {error.strerror}; name a folder that can be written"
        ) from error
    if not writable:
        raise SettingsError(f"DVT_STATE_DIR is {folder}, which cannot be written; name another folder")
