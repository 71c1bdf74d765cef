"""A server as a process of its own: started, awaited, its and its children's CPU and memory read, ended for sure."""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from benchmarks.measure import Usage
from benchmarks.photos import ROOT

HOST = "127.0.0.1"
_LAST_WORDS = 2000
_RAW = {"Content-Type": "application/octet-stream"}


class ServerError(RuntimeError):
    """A server did not start, or ended by itself. The message holds its last words."""


@dataclass(frozen=True)
class ServerCommand:
    """How to start a server on a port of our choice, and how to know that it takes work.

    It does when it answers `GET ready_path` with 200 or, given a photo as `probe`, when it classifies that.
    """

    arguments: tuple[str, ...]
    port: int
    environment: Mapping[str, str]
    ready_path: str = "/classify"
    probe: bytes | None = None
    start_s: float = 240.0


@dataclass(frozen=True)
class Running:
    """A server that takes work."""

    port: int
    pid: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: ServerCommand) -> Iterator[Running]:
    """The server, ready; ended with all its children on the way out. Raises `ServerError`."""
    with tempfile.TemporaryFile() as output:
        process = None
        try:
            with _uninterrupted():
                process = subprocess.Popen(
                    command.arguments,
                    cwd=ROOT,
                    env={**os.environ, **command.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            _await_ready(process, command)
            yield Running(command.port, process.pid)
            if process.poll() is not None:
                raise ServerError(f"the server ended by itself with exit code {process.returncode}")
        except ServerError as error:
            output.seek(0, os.SEEK_END)
            output.seek(max(0, output.tell() - _LAST_WORDS))
            words = output.read().decode(errors="replace").strip()
            raise ServerError(f"{error}: {' '.join(command.arguments)}\n{words}") from None
        finally:
            if process is not None:
                end(process)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals that end us wait until this is over: between a process's start and our hold on it, it would live on."""
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: arrived.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for interruption in arrived:
            signal.raise_signal(interruption)


def _await_ready(process: "subprocess.Popen[bytes]", command: ServerCommand) -> None:
    deadline = time.monotonic() + command.start_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"the server ended before it was ready, with exit code {process.returncode}")
        connection = http.client.HTTPConnection(HOST, command.port, timeout=10)
        try:
            connection.request("GET" if command.probe is None else "POST", command.ready_path, command.probe, _RAW)
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass  # Not yet.
        finally:
            connection.close()
        time.sleep(0.1)
    raise ServerError(f"the server was not ready after {command.start_s:g} s")


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL for whoever of the family is left after ten seconds."""
    family = children(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    _, alive = psutil.wait_procs(family, timeout=3)
    for survivor in alive:
        with suppress(psutil.NoSuchProcess):
            survivor.kill()
    psutil.wait_procs(alive, timeout=1)
    process.kill()
    process.wait(10)


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def family_cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of a process and its living descendants."""
    return sum(_read(member, lambda each: sum(each.cpu_times()[:2])) for member in _family(pid))


def family_rss_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants; what they share is counted once a process."""
    return int(sum(_read(member, lambda each: each.memory_info().rss) for member in _family(pid)))


def thread_cpu_s(pid: int) -> dict[int, float]:
    """Thread id -> CPU seconds; the one whose id is `pid` is the main thread."""
    return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process(pid).threads()}


def _family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *children(pid)]


def _read(member: psutil.Process, value: Callable[[psutil.Process], float]) -> float:
    try:
        return float(value(member))
    except psutil.NoSuchProcess:
        return 0.0


class Meter:
    """Reads CPU at both edges of the measured part: call it twice. Without a `pid` only the generator's own."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._own: list[float] = []
        self._server: list[float] = []
        self._rss_bytes: int | None = None

    def __call__(self) -> None:
        self._own.append(time.process_time())
        if self._pid is not None:
            self._server.append(family_cpu_s(self._pid))
            self._rss_bytes = family_rss_bytes(self._pid)

    def usage(self) -> Usage:
        first, last = self._own
        return Usage(last - first, self._server[-1] - self._server[0] if self._server else None, self._rss_bytes)
