"""The process: puts the service together, listens, and on SIGTERM drains before it ends with exit code 0."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import uvicorn
from prometheus_client import disable_created_metrics

from models.bundle import Bundle, read_bundle
from service.api.app import create_app
from service.api.deps import Model, Service
from service.api.keys import open_keys
from service.backends.base import Capacity, StageBackend
from service.backends.choose import open_backend
from service.cpus import available_cpus
from service.decode import ImageLimits
from service.engine.admission import Admission, AdmissionLimits
from service.engine.batching import BatchLimits
from service.engine.budget import Budget, Catalogue
from service.engine.exits import ExitMeasure
from service.engine.scheduler import Scheduler
from service.metrics import Metrics
from service.settings import Loaded, Settings, SettingsError

# After SIGTERM new connections are still accepted, and refused politely, for this long: whoever sends requests needs
# a moment to learn that this replica is leaving. Ctrl-C means a person, who does not want to wait.
LINGER_S = {signal.SIGTERM: 0.5, signal.SIGINT: 0.0}
_POLL_S = 0.02
# Between closing the listener and ending, at most: connections accepted at the last moment get their answer.
_LAST_ANSWERS_S = 1.0


@dataclass(frozen=True)
class Opened:
    """A bundle with what computes it."""

    bundle: Bundle
    backend: StageBackend

    @property
    def measure(self) -> ExitMeasure:
        profiles = self.bundle.profiles
        if profiles is None:
            return ExitMeasure("max_softmax", (1.0,) * self.bundle.config.exits)
        return ExitMeasure(profiles.confidence, tuple(exit_.temperature for exit_ in profiles.exits))


def open_bundle(settings: Settings) -> Opened:
    """Raises `BundleError` or `BackendError`, both `ValueError`, with the way out."""
    bundle = read_bundle(settings.bundle)
    threads = settings.threads or available_cpus()
    capacity = Capacity(settings.queue_limit, settings.state_bytes, settings.max_batch)
    return Opened(bundle, open_backend(bundle, settings.backend, settings.device, threads, capacity))


def build_service(loaded: Loaded, opened: Opened, log: logging.Logger) -> Service:
    """Everything but the threads and the port. Makes the state folder, and in it the admin key and the budget.

    Raises `ValueError` (of which `SettingsError` is one) or a `ServiceError` for settings that do not fit the bundle.
    """
    settings, bundle = loaded.settings, opened.bundle
    make_state_folder(settings)
    # A second series a counter that nobody asked for. (The library leaves this function without types.)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    exits = bundle.config.exits
    metrics = Metrics(bundle.name, bundle.weights_sha256, exits)
    backend = opened.backend
    metrics.state(backend.slots, backend.slot_bytes, lambda: backend.slots_in_use)
    clock = time.monotonic
    return Service(
        settings=settings,
        model=Model(
            bundle.name,
            bundle.config,
            bundle.weights_sha256,
            bundle.config_sha256,
            bundle.profiles,
            backend.name,
            backend.slot_bytes,
        ),
        keys=open_keys(settings, loaded.secret_files, log),
        limits=ImageLimits(settings.max_image_bytes, settings.max_image_px),
        admission=Admission(
            AdmissionLimits(settings.queue_limit, settings.state_bytes, backend.slot_bytes, settings.body_bytes),
            clock,
            metrics.held,
        ),
        budget=Budget(
            Catalogue(exits, bundle.profiles),
            bundle=f"{bundle.weights_sha256}:{bundle.config_sha256}",
            first_profile=settings.profile,
            ceiling=settings.ceiling,
            folder=settings.state_dir,
            log=log,
        ),
        scheduler=Scheduler(
            backend, opened.measure, BatchLimits(settings.max_batch), clock=clock, metrics=metrics, log=log
        ),
        decoders=ThreadPoolExecutor(settings.decode_threads or available_cpus(), "dvt-decode"),
        metrics=metrics,
        clock=clock,
        log=log,
    )


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


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `SettingsError` when the port is taken or the address is not of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise SettingsError(f"DVT_HOST is {host!r}, which is no address of this machine: {error.strerror}") from error
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            other = port + 1 if port < 65535 else 8000
            raise SettingsError(
                f"port {port} on {host} is taken: take another with --port {other}, or stop what holds it "
                f"(`lsof -i :{port}` names it)"
            ) from error
        if error.errno == errno.EACCES:
            raise SettingsError(f"port {port} needs privileges: take one from 1024 up, --port 8000") from error
        raise SettingsError(f"{host}:{port} cannot be listened on: {error.strerror}") from error
    return bound


class Server(uvicorn.Server):
    """uvicorn without its signal handling, which closes listeners first and raises SIGTERM again after it."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def stop_listening(self, listener: socket.socket) -> None:
        """Close the listener. Whoever the kernel has let in by then is accepted first: closing would reset them."""
        accepted: list[socket.socket] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in accepted:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes it for the connections that it accepts itself."""
        make = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._started()


def serve(service: Service, listener: socket.socket, version: str, started: Callable[[], None]) -> int:
    """Serve until SIGTERM or SIGINT; calls `started` when requests are taken. Returns the exit code."""
    config = uvicorn.Config(
        create_app(service, version),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    server = Server(config, started)
    asyncio.run(_serve(server, service, listener))
    return 0 if server.started else 1


async def _serve(server: Server, service: Service, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    drains: list[asyncio.Task[None]] = []

    def on_signal(number: signal.Signals) -> None:
        if drains:  # A second one: whoever sends it does not want to wait.
            server.should_exit = server.force_exit = True
            return
        service.log.info("draining", extra={"signal": number.name, "at_most_s": service.settings.drain_seconds})
        drains.append(loop.create_task(drain(server, service, listener, LINGER_S[number])))

    for number in LINGER_S:
        loop.add_signal_handler(number, on_signal, number)
    await server.serve(sockets=[listener])
    await asyncio.gather(*drains)
    service.log.info("stopped")


async def drain(server: Server, service: Service, listener: socket.socket, linger_s: float) -> None:
    """Refuse what is new, answer what is inside (within DVT_DRAIN_SECONDS), then stop listening and end."""
    service.admission.drain()
    began_s = service.clock()
    end_s = began_s + service.settings.drain_seconds
    while service.clock() < end_s and (not service.admission.idle or service.clock() < began_s + linger_s):
        if server.should_exit:
            return
        await asyncio.sleep(_POLL_S)
    if not service.admission.idle:
        service.log.warning("drain time is over, requests are left (DVT_DRAIN_SECONDS)")
    await server.stop_listening(listener)
    # Every answer says `Connection: close` by now, so what remains are newcomers, and clients that keep one idle.
    last_s = service.clock() + min(_LAST_ANSWERS_S, linger_s * 2)
    while server.server_state.connections and service.clock() < last_s:
        await asyncio.sleep(_POLL_S)
    server.should_exit = True


def announce(service: Service, listener: socket.socket) -> None:
    """Where to go from here: lines to copy for a person, one event for a log that machines read."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{port}"
    service.log.info(
        "serving",
        extra={"url": url, "model": service.model.name, "backend": service.model.backend, "docs": f"{url}/docs"},
    )
    if service.settings.log_format == "plain" or (service.settings.log_format == "auto" and sys.stderr.isatty()):
        key = " -H 'Authorization: Bearer KEY'" if service.keys.needs_key else ""
        sys.stderr.write(
            f"\n  try it     curl{key} -F image=@photo.jpg {url}/classify\n"
            f"  read more  {url}/docs\n"
            f"  stop it    Ctrl-C\n\n"
        )
