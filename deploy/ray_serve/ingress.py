"""The HTTP API as a deployment: the whole application with its `Service`, in every replica of it.

Ray owns the port, the process and its end; what is left of `service.server` is to be warm before the first request, to
notice an engine that stands still, and to let audits end.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI
from prometheus_client import start_http_server
from ray import serve

from deploy.ray_serve.autoscaling import BUSY, WORK
from deploy.ray_serve.board_channel import BoardChannel
from deploy.ray_serve.retry import VARIABLE
from dvt import __version__
from service import log
from service.api.app import create_app
from service.api.deps import Service
from service.engine.watch import StallWatch
from service.main import Opened, build_service
from service.settings import Settings, load_settings

OpenService = Callable[[Settings, tuple[Any, ...]], Opened]
"""Of settings, and of the handles of stages where there are any."""

_POLL_S = 0.05
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Granted:
    """What one replica may use: CPUs and GPUs that Ray reserves, and the port for metrics of the first on a node."""

    cpus: float
    gpus: float = 0.0
    metrics_port: int = 0


class Ingress:
    """One replica. `open_` says what computes the bundle."""

    def __init__(self, open_: OpenService, resources: Granted, *stages: Any) -> None:
        loaded = load_settings(os.environ)
        settings = fitted(loaded.settings, resources)
        log.configure(settings.log_format, settings.log_level)
        logger = log.get_logger()
        for warning in loaded.warnings:
            logger.warning(warning)
        if VARIABLE not in os.environ:
            logger.warning(
                "a request whose replica is lost is answered with 500", extra={"way_out": f"export {VARIABLE}"}
            )
        opened = open_(settings, stages)
        place = serve.get_replica_context()
        service = build_service(replace(loaded, settings=settings), opened, logger, BoardChannel(place.app_name))
        if resources.metrics_port:
            _show_metrics(service, resources.metrics_port + place.rank.local_rank)
        self._service = service
        self._lanes = sum(backend.lanes for backend in opened.backends)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Ray serves; its startup ends when the engine is warm."""
        return served(self._service, __version__)

    async def check_health(self) -> None:
        """Ray starts another replica in place of one whose engine is lost."""
        scheduler = self._service.scheduler
        if not scheduler.alive:
            raise RuntimeError(scheduler.failure or "the engine has stopped")

    async def drain(self) -> None:
        """From now on newcomers are refused; returns when everybody inside is answered."""
        await _drained(self._service)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `ByQueueDelay` looks at."""
        service = self._service
        return {
            WORK: service.scheduler.work_s(service.admission.inside),
            BUSY: len(service.scheduler.running) / self._lanes,
        }


def _show_metrics(service: Service, port: int) -> None:
    """`GET /metrics` through Ray's proxy is that of any replica, which makes no series: each has a port of its own."""
    try:
        start_http_server(port, registry=service.metrics.registry)
    except OSError as error:  # A replica that ends may hold it still; serving does not depend on it.
        service.log.warning("metrics have no port", extra={"port": port, "error": error.strerror})
    else:
        service.log.info("metrics", extra={"port": port})


def fitted(settings: Settings, resources: Granted) -> Settings:
    """Batches at once, and threads that decode, as many as Ray grants CPUs, where the operator has not said.

    The cgroup's quota, which says it elsewhere, is that of all replicas on the node.
    """
    cpus = max(1, int(resources.cpus))
    values: dict[str, object] = {"decode_threads": settings.decode_threads or cpus}
    if not (settings.lanes or settings.threads or resources.gpus):
        values["lanes"] = cpus
    return settings.model_copy(update=values)


def served(service: Service, version: str) -> FastAPI:
    """The application, which is started when the engine is warm, and has ended when the last audit has."""
    app = create_app(service, version)
    threads = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(started: FastAPI) -> AsyncIterator[Any]:
        async with threads(started) as state:
            watching = asyncio.create_task(_watch(service))
            try:
                await _warm(service)
                yield state
                await _drained(service)
            finally:
                watching.cancel()

    app.router.lifespan_context = lifespan
    return app


async def _warm(service: Service) -> None:
    """Raises `RuntimeError` where the device cannot compute the model."""
    scheduler = service.scheduler
    while not scheduler.ready:
        if scheduler.failure is not None:
            raise RuntimeError(f"the engine could not warm up: {scheduler.failure}")
        await asyncio.sleep(_POLL_S)
    service.budget.settle()
    service.log.info("serving", extra={"model": service.model.name, "backend": service.model.backend})


async def _watch(service: Service) -> None:
    """A batch that never ends: everybody inside is answered, and the next health check fails."""
    stall = StallWatch(lambda: service.scheduler.running, service.clock)
    while True:
        await asyncio.sleep(min(_LOOK_EVERY_S, service.settings.stall_seconds / 4))
        stalled = stall.look()
        if stalled is not None:
            service.log.error("engine lost, the replica ends", extra={"cause": stalled})
            service.scheduler.give_up(stalled)
            return


async def _drained(service: Service) -> None:
    """Refuse who comes; who is inside, and audits, have until DVT_DRAIN_SECONDS."""
    service.admission.drain()
    end_s = service.clock() + service.settings.drain_seconds
    while service.clock() < end_s and not (service.admission.idle and not service.audit.pending):
        await asyncio.sleep(_POLL_S)
    if not service.admission.idle:
        service.log.warning("drain time is over, requests are left (DVT_DRAIN_SECONDS)")
        service.scheduler.give_up()
