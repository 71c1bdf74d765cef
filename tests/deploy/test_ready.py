"""The image's health check, as Docker runs it: by its exit code, and by what it prints for `docker inspect`."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

READY = Path(__file__).parents[2] / "deploy" / "container" / "ready.py"


def check(port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", READY],
        env=os.environ | {"DVT_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n" + b'{"status":"ready"}', 0, ""),
        (b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"detail":"warming up"}', 1, "503 Service Unavailable"),
        (b"HTTP/1.1 503 \r\n\r\n200", 1, "503"),
        (b"", 1, ""),
    ],
)
def test_only_a_service_that_takes_work_is_healthy(answer: bytes, code: int, says: str) -> None:
    asked: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(1000))
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        checked = check(listener.getsockname()[1])
        server.join()
    assert asked[0].startswith(b"GET /health/ready HTTP/1.1\r\n")
    assert checked.returncode == code
    assert says in checked.stdout


def test_nobody_there_is_unhealthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert check(port).returncode == 1
