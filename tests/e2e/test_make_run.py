"""`make run` as its user sees it: two printed lines, two photographs, two exits."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.run import SAMPLES

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def running(port: int, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The process of `make run` and the file with what it printed."""
    printed = tmp_path / "printed"
    command = [sys.executable, "scripts/run.py", "--port", str(port)]
    with printed.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"DVT_STATE_DIR": str(tmp_path / "state")}, stdout=out
        )
    try:
        yield process, printed
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for_lines(process: subprocess.Popen[bytes], printed: Path) -> list[str]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if lines := re.findall(r"^  curl .*$", printed.read_text(), flags=re.MULTILINE):
            return lines
        time.sleep(0.05)
    raise AssertionError(f"no curl line within {START_SECONDS:.0f} s; exit code {process.poll()}")


def classify(port: int, sample: str) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/classify", data=(ROOT / sample).read_bytes())
    with urllib.request.urlopen(request, timeout=30) as response:
        result: dict[str, Any] = json.load(response)["results"][0]
    return result


def test_the_suggested_photographs_are_recognised_and_leave_at_different_exits(
    running: tuple[subprocess.Popen[bytes], Path], port: int
) -> None:
    process, printed = running
    lines = wait_for_lines(process, printed)
    assert [sample for sample in SAMPLES for line in lines if f"image=@{sample} " in line] == list(SAMPLES)
    results = [classify(port, sample) for sample in SAMPLES]
    assert [r["predictions"][0]["label"].replace(" ", "_") for r in results] == [Path(s).stem for s in SAMPLES]
    assert results[0]["exit"]["number"] != results[1]["exit"]["number"]
    assert all(result["exit"]["reason"] in ("confident", "final") for result in results)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
