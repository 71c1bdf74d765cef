"""Servers as processes: awaited, accounted for, and gone in the end with all their children."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.processes import (
    Meter,
    ServerCommand,
    ServerError,
    children,
    family_cpu_s,
    family_rss_bytes,
    free_port,
    running,
    thread_cpu_s,
)
from tests.service.tiny_bundles import tiny_config, write_tiny_bundle

ROOT = Path(__file__).parent.parent.parent

SERVER = """
import http.server, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
child = "import time; end = time.time() + 60\\nwhile time.time() < end: sum(range(10000))"
subprocess.Popen([sys.executable, "-c", child])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def command(program: str, ready_path: str = "/ready", start_s: float = 20.0) -> ServerCommand:
    port = free_port()
    return ServerCommand((sys.executable, "-c", program, str(port)), port, {}, ready_path, start_s=start_s)


def test_a_server_is_accounted_for_with_its_children_and_leaves_none_behind() -> None:
    with running(command(SERVER)) as server:
        meter = Meter(server.pid)
        (child,) = children(server.pid)
        meter()
        started_s = time.monotonic()
        while child.cpu_times().user < 0.3 and time.monotonic() < started_s + 30:
            time.sleep(0.05)
        meter()
        usage = meter.usage()
        assert usage.server_cpu_s is not None
        assert usage.server_rss_bytes is not None
        assert usage.server_cpu_s > usage.generator_cpu_s
        assert family_cpu_s(server.pid) >= child.cpu_times().user
        assert family_rss_bytes(server.pid) > psutil.Process(server.pid).memory_info().rss
        assert server.pid in thread_cpu_s(server.pid)
    assert not psutil.pid_exists(server.pid)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_ends_before_it_is_ready_says_why() -> None:
    with (
        pytest.raises(ServerError, match=r"(?s)exit code 3.*out of order"),
        running(command("import sys; print('out of order'); sys.exit(3)")),
    ):
        pass


def test_a_server_that_never_gets_ready_is_given_up_and_ended() -> None:
    with pytest.raises(ServerError, match="not ready after 1 s"), running(command(SERVER, "/never", 1.0)):
        pass


def test_a_server_that_ends_while_it_is_measured_is_an_error() -> None:
    with pytest.raises(ServerError, match="ended by itself"), running(command(SERVER)) as server:
        psutil.Process(server.pid).kill()
        psutil.Process(server.pid).wait(10)


def test_a_server_is_ended_also_when_the_signal_comes_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]  # passed on as they came
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    command = ServerCommand((sys.executable, "-c", "import time; time.sleep(300)"), free_port(), {})
    # Whoever runs the tests in a shell's background has them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), running(command):
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.poll() is None for process in started] == [False]


def test_no_server_outlives_a_measurement_that_is_ended(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", tiny_config(2))
    command = [sys.executable, "dvt.py", "bench", "load", str(bundle.path), "--seconds", "300"]
    measurement = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        end_s = time.monotonic() + 120
        while not (servers := children(measurement.pid)) and time.monotonic() < end_s:
            time.sleep(0.05)
        assert servers
        measurement.terminate()
        assert measurement.wait(60) == 128 + signal.SIGTERM
        _, alive = psutil.wait_procs(servers, timeout=5)
        assert [server for server in alive if server.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        measurement.kill()
        measurement.wait(10)
