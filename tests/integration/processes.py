"""Services in processes of their own, and the simplest of clients."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
READY, LISTENING = "serving", "listening, the engine warms up"


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return {
        **os.environ,
        "DVT_STATE_DIR": str(folder / "state"),
        "DVT_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "clients" / "python"))),
        **variables,
    }


@contextmanager
def running(
    command: Sequence[str | Path], folder: Path, until: str = READY, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """A service whose log says `until`: the process, its port, and the lines of its log so far (JSON)."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=environment(folder, **variables),
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    port, reader = 0, None
    assert process.stderr is not None
    try:
        for line in process.stderr:
            lines.append(line)
            event = json.loads(line)
            if event["event"] == until:
                port = int(event["url"].rpartition(":")[2])
                break
        assert port, lines
        reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        reader.start()
        yield process, port, lines
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        if reader is not None:
            reader.join(10)
        process.stderr.close()


def classify(port: int, body: bytes, connection: HTTPConnection | None = None) -> int:
    connection = connection or HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/classify", body)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()
