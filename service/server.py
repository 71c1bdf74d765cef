"""The process: listens, watches its engine, and on SIGTERM drains before it ends with exit code 0."""

import asyncio
import contextlib
import ctypes
import errno
import gc
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import cast

import uvicorn

from service.api.app import create_app
from service.api.deps import Service
from service.engine.watch import StallWatch
from service.settings import SettingsError

# After SIGTERM new connections are still accepted, and refused politely, for this long: whoever sends requests needs
# a moment to learn that this replica is leaving. Ctrl-C means a person, who does not want to wait.
LINGER_S = {signal.SIGTERM: 0.5, signal.SIGINT: 0.0}
_POLL_S = 0.02
# Between closing the listener and ending, at most: connections accepted at the last moment get their answer.
_LAST_ANSWERS_S = 1.0
# With the engine lost: time for those inside to get their answer (503), and for a probe to see that it is not live.
_FAREWELL_S = 0.5
EXIT_ENGINE_LOST = 1
# <asm-generic/socket.h>; Python has no name for it.
_SO_ATTACH_FILTER = 26


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

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def stop_listening(self, listener: socket.socket) -> None:
        """Close the listener. Whoever the kernel has let in by then is accepted first: closing would reset them."""
        _let_nobody_in(listener)
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


def _let_nobody_in(listener: socket.socket) -> None:
    """Have Linux drop handshakes that begin now: those clients try again and are refused, instead of being let in
    between the last `accept` and closing, and then reset. Of no effect elsewhere."""
    take_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 of every packet
    program = struct.pack("HP", 1, ctypes.addressof(take_nothing))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def serve(service: Service, listener: socket.socket, version: str, ready: Callable[[], None]) -> int:
    """Serve until SIGTERM or SIGINT, or until the engine is lost; calls `ready` when requests are taken.

    Returns the exit code: 0 after a drain, 1 when the engine is lost or the server could not start.
    """
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
    server = Server(config)
    asyncio.run(_serve(server, service, listener, ready))
    return 0 if server.started and service.scheduler.failure is None else EXIT_ENGINE_LOST


async def _serve(server: Server, service: Service, listener: socket.socket, ready: Callable[[], None]) -> None:
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
    watch = loop.create_task(watch_engine(server, service, listener, ready))
    await server.serve(sockets=[listener])
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch
    await asyncio.gather(*drains)
    service.log.info("stopped")


async def watch_engine(server: Server, service: Service, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Call `ready` once the engine is warm; when it dies, or stands still within a batch, end the service."""
    scheduler, is_announced = service.scheduler, False
    while not server.started:
        await asyncio.sleep(_POLL_S)
    service.log.info("listening, the engine warms up", extra={"url": url_of(listener)})
    stall = StallWatch(lambda: scheduler.running, service.clock)
    look_every_s = min(0.5, service.settings.stall_seconds / 4)
    while True:
        stalled = stall.look()
        if stalled is not None:
            scheduler.give_up(stalled)
        if scheduler.failure is not None:
            service.log.error("engine lost, the service ends", extra={"cause": scheduler.failure})
            service.admission.drain()
            await asyncio.sleep(_FAREWELL_S)
            server.should_exit = True
            return
        if not is_announced and service.is_ready:
            is_announced = True
            service.budget.settle()
            # What is there by now stays to the end: a collection that went through all of it would halt every thread
            # for tens of milliseconds.
            gc.collect()
            gc.freeze()
            ready()
        await asyncio.sleep(look_every_s if is_announced else _POLL_S)


async def drain(server: Server, service: Service, listener: socket.socket, linger_s: float) -> None:
    """Refuse what is new, answer what is inside (within DVT_DRAIN_SECONDS), then stop listening and end."""
    service.admission.drain()
    began_s = service.clock()
    end_s = began_s + service.settings.drain_seconds
    while service.clock() < end_s and (
        not service.admission.idle or service.audit.pending or service.clock() < began_s + linger_s
    ):
        if server.should_exit:
            return
        await asyncio.sleep(_POLL_S)
    if not service.admission.idle:
        service.log.warning("drain time is over, requests are left (DVT_DRAIN_SECONDS)")
        service.scheduler.give_up()
    await server.stop_listening(listener)
    # Every answer says `Connection: close` by now, so what remains are newcomers, and clients that keep one idle.
    last_s = service.clock() + min(_LAST_ANSWERS_S, linger_s * 2)
    await asyncio.sleep(_POLL_S)  # Who was accepted at the very last is among the connections by then.
    while server.server_state.connections and service.clock() < last_s:
        await asyncio.sleep(_POLL_S)
    server.should_exit = True


def url_of(listener: socket.socket) -> str:
    """An address that works on this machine."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def announce(service: Service, listener: socket.socket) -> None:
    """Where to go from here: lines to copy for a person, one event for a log that machines read."""
    url = url_of(listener)
    service.log.info(
        "serving",
        extra={
            "url": url,
            "model": service.model.name,
            "backend": service.model.backend,
            "devices": ", ".join(service.model.devices),
            "docs": f"{url}/docs",
        },
    )
    if service.settings.log_format == "plain" or (service.settings.log_format == "auto" and sys.stderr.isatty()):
        key = " -H 'Authorization: Bearer KEY'" if service.keys.needs_key else ""
        sys.stderr.write(
            f"\n  try it     curl{key} -F image=@photo.jpg {url}/classify\n"
            f"  read more  {url}/docs\n"
            f"  stop it    Ctrl-C\n\n"
        )
