"""A process whose engine warms up, gets stuck, breaks, or is full when SIGTERM comes."""

import json
import signal
import socket
import subprocess
from contextlib import AbstractContextManager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.integration.processes import LISTENING, READY, ROOT, classify, running
from tests.integration.scripted_service import BUG, HELD, STUCK
from tests.service.cascades import picture, wait_until

EASY = 1


def scripted(
    folder: Path, until: str = READY, **variables: str
) -> AbstractContextManager[tuple[subprocess.Popen[str], int, list[str]]]:
    script = ROOT / "tests" / "integration" / "scripted_service.py"
    return running((script, folder), folder, until, **variables)


def get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def send(port: int, body: bytes) -> socket.socket:
    """A request whose answer is read later."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return client


def status_of(client: socket.socket) -> int:
    with client:
        return int(client.recv(65536).split()[1])


def events(lines: list[str]) -> list[str]:
    return [json.loads(line)["event"] for line in lines]


def test_it_listens_at_once_and_readiness_names_what_is_still_warming(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with scripted(tmp_path, until=LISTENING) as (process, port, lines):
        wait_until(lambda: "stage 2 at batch 1, step 2 of 6" in get(port, "/health/ready")[1], 60)
        assert get(port, "/health/ready")[0] == 503
        assert get(port, "/health/live")[0] == 200
        assert classify(port, picture(EASY)) == 503
        assert "dvt_ready 0.0" in get(port, "/metrics")[1]
        assert READY not in events(lines)
        hold.unlink()
        wait_until(lambda: READY in events(lines), 60)
        assert get(port, "/health/ready")[0] == 200
        assert classify(port, picture(EASY)) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_warm_up_can_be_ended(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with scripted(tmp_path, until=LISTENING) as (process, port, lines):
        wait_until(lambda: "stage 2" in get(port, "/health/ready")[1], 60)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in events(lines), 60)
        hold.unlink()
        assert process.wait(60) == 0
    assert READY not in events(lines)


@pytest.mark.parametrize(
    ("kind", "status", "cause"), [(STUCK, 503, "has not ended after"), (BUG, 200, "KeyError: 'bug'")]
)
def test_a_lost_engine_answers_everybody_and_ends_the_process_with_1(
    tmp_path: Path, kind: int, status: int, cause: str
) -> None:
    with scripted(tmp_path, DVT_STALL_SECONDS="2") as (process, port, lines):
        assert classify(port, picture(EASY)) == 200
        assert classify(port, picture(kind)) == status
        assert process.wait(60) == 1
    (lost,) = [json.loads(line) for line in lines if "engine lost" in line]
    assert cause in lost["cause"]


def test_everybody_inside_when_sigterm_comes_is_answered(tmp_path: Path) -> None:
    """Every place is taken, one image is in work, and the others wait in a queue with three stages before them."""
    images, hold = 40, tmp_path / "hold"
    variables = {"DVT_MAX_BATCH": "2", "DVT_DRAIN_SECONDS": "60", "DVT_STALL_SECONDS": "600"}
    with scripted(tmp_path, DVT_QUEUE_LIMIT=str(images), **variables) as (process, port, lines):
        hold.touch()
        clients = [send(port, picture(HELD)) for _ in range(images)]
        wait_until(lambda: f"dvt_in_flight_images {images}.0" in get(port, "/metrics")[1], 60)
        assert classify(port, picture(EASY)) == 503  # Full: refused at once.
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "shutting down" in get(port, "/health/ready")[1], 60)
        hold.unlink()
        assert [status_of(client) for client in clients] == [200] * images
        assert process.wait(60) == 0
    assert "drain time is over" not in " ".join(lines)


def test_a_stream_that_is_open_when_sigterm_comes_is_told_to_its_end(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    with scripted(tmp_path, DVT_DRAIN_SECONDS="60", DVT_STALL_SECONDS="600") as (process, port, _):
        hold.touch()
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/classify", picture(HELD), {"Accept": "text/event-stream"})
        response = connection.getresponse()
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "shutting down" in get(port, "/health/ready")[1], 60)
        hold.unlink()
        text = response.read().decode()
        connection.close()
        assert process.wait(60) == 0
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert names == ["exit", "exit", "exit", "result", "done"]


def test_whoever_is_left_when_the_drain_time_is_over_is_told_so(tmp_path: Path) -> None:
    with scripted(tmp_path, DVT_DRAIN_SECONDS="0.2", DVT_MAX_BATCH="1") as (process, port, _):
        clients = [send(port, picture(STUCK)) for _ in range(3)]
        wait_until(lambda: "dvt_in_flight_images 3.0" in get(port, "/metrics")[1], 60)
        process.send_signal(signal.SIGTERM)
        assert [status_of(client) for client in clients] == [503] * 3
        assert process.wait(60) == 0
