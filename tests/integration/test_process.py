"""`dvt serve` as a process of its own: what it says, what it exits with, and that SIGTERM loses nobody."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.integration.processes import ROOT, classify, environment, running
from tests.service.cascades import picture
from tests.service.tiny_bundles import tiny_config, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", tiny_config(2)).path


def serving(
    bundle: Path, folder: Path, **variables: str
) -> AbstractContextManager[tuple[subprocess.Popen[str], int, list[str]]]:
    return running(("dvt.py", "serve", bundle, "--port", "0", "--log-format", "json"), folder, **variables)


def test_it_answers_and_ends_with_0_on_sigterm(bundle: Path, tmp_path: Path) -> None:
    with serving(bundle, tmp_path, DVT_PROT="1") as (process, port, lines):
        assert classify(port, picture(9)) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    events = [json.loads(line)["event"] for line in lines]
    assert "DVT_PROT is no setting of the service and has no effect; did you mean DVT_PORT?" in events
    assert events[-1] == "stopped"


def test_ctrl_c_ends_with_0_at_once(bundle: Path, tmp_path: Path) -> None:
    with serving(bundle, tmp_path) as (process, _, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_sigterm_under_load_loses_nobody(bundle: Path, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    lost: list[str] = []
    refused = threading.Event()
    body = picture(9, size=(300, 300))

    def client(port: int) -> None:
        """Sends until nobody listens; a request that was sent must be answered."""
        while not refused.is_set():
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.connect()
            except ConnectionRefusedError:
                refused.set()
                return
            try:
                outcomes[str(classify(port, body, connection))] += 1
            except (HTTPException, OSError) as error:
                lost.append(repr(error))

    with serving(bundle, tmp_path) as (process, port, _):
        clients = [threading.Thread(target=client, args=(port,)) for _ in range(6)]
        for thread in clients:
            thread.start()
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for thread in clients:
            thread.join(60)
    assert lost == []
    assert set(outcomes) == {"200", "503"}


def test_a_slow_request_inside_is_answered_after_sigterm(bundle: Path, tmp_path: Path) -> None:
    body = picture(9)
    with serving(bundle, tmp_path) as (process, port, _), socket.create_connection(("127.0.0.1", port)) as slow:
        slow.settimeout(60)
        slow.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
        slow.sendall(body[:10])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        slow.sendall(body[10:])
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        assert process.wait(60) == 0


def test_a_drain_that_takes_too_long_ends_all_the_same(bundle: Path, tmp_path: Path) -> None:
    with (
        serving(bundle, tmp_path, DVT_DRAIN_SECONDS="0.5") as (process, port, lines),
        socket.create_connection(("127.0.0.1", port)) as stuck,
    ):
        head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        stuck.sendall(head)
        assert stuck.recv(100).startswith(b"HTTP/1.1 100")  # It is inside, and its body is waited for.
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert any("drain time is over" in line for line in lines)


def test_a_client_that_leaves_frees_its_place(bundle: Path, tmp_path: Path) -> None:
    body = picture(9)
    with serving(bundle, tmp_path, DVT_QUEUE_LIMIT="1") as (_, port, _):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port)) as leaver:
                head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
                leaver.sendall(head + body)
        deadline = time.monotonic() + 60
        while (status := classify(port, body)) == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert status == 200


def test_a_body_that_does_not_come_is_given_up(bundle: Path, tmp_path: Path) -> None:
    with (
        serving(bundle, tmp_path, DVT_BODY_SECONDS="0.3") as (_, port, _),
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        slow.settimeout(60)
        slow.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n123")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def run(folder: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "dvt.py", "serve", *arguments],
        cwd=ROOT,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_taken_port_is_one_line_with_the_way_out(bundle: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = run(tmp_path, bundle, "--port", str(port))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert f"port {port} on 127.0.0.1 is taken: take another with --port" in line


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (("nowhere",), {}, "there is no bundle at"),
        ((), {"DVT_PORT": "http"}, "DVT_PORT is 'http'"),
        (("--host", "not.an.address.invalid"), {}, "DVT_HOST is 'not.an.address.invalid'"),
        (("--max-batch", "0"), {}, "--max-batch is '0'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], says: str
) -> None:
    ended = run(tmp_path, *arguments, **{"DVT_PORT": "0", **variables})
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("dvt serve: ")
    assert says in line


def test_check_loads_everything_changes_nothing_and_ends(bundle: Path, tmp_path: Path) -> None:
    ended = run(tmp_path, bundle, "--check")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "2 exits, 5 classes, backend onnx" in ended.stderr
    assert not (tmp_path / "state").exists()


def test_check_tells_a_mistake_in_one_line(bundle: Path, tmp_path: Path) -> None:
    ended = run(tmp_path, bundle, "--check", DVT_CEILING="turbo")
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("dvt serve: ") and "turbo" in line


def test_sigterm_while_it_starts_ends_it_with_0(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "SHA256SUMS")
    command = [sys.executable, "dvt.py", "serve", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path), stderr=subprocess.DEVNULL)
    with (tmp_path / "SHA256SUMS").open("wb"):  # Opens once the service reads, and keeps it reading.
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
