"""`make run` and `make test` on machines where something is in the way."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def make_venv(folder: Path, pins: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "venv.sh", folder, pins],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "pins.txt"
    path.write_text("fastapi==0.0.0\n")
    return path


def test_an_old_python_is_named_with_the_way_to_a_newer_one(tmp_path: Path, pins: Path) -> None:
    real = f'exec {sys.executable} -c "import sys; sys.version_info = (3, 9, 2); $2"'
    old = program(tmp_path / "python", f"[ $1 = --version ] && {{ echo Python 3.9.2; exit 0; }}; {real}")
    result = make_venv(tmp_path / "venv", pins, PYTHON=old)
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
    assert "3.9.2" in result.stderr
    assert "make PYTHON=" in result.stderr


def test_a_missing_venv_module_is_named_with_the_package_that_has_it(tmp_path: Path, pins: Path) -> None:
    bare = program(tmp_path / "python", f'case "$*" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"')
    result = make_venv(tmp_path / "venv", pins, PYTHON=bare)
    assert result.returncode != 0
    assert f"apt-get install python3.{sys.version_info.minor}-venv" in result.stderr
    assert not (tmp_path / "venv").exists()


def environment(folder: Path, log: Path, installed: str) -> None:
    """A made virtual environment whose Python writes down what it is asked."""
    (folder / "bin").mkdir(parents=True)
    program(folder / "bin" / "python", f'echo "$@" >> {log}')
    (folder / "installed").write_text(installed)


def test_an_environment_made_from_the_same_pins_is_left_alone(tmp_path: Path, pins: Path) -> None:
    environment(tmp_path / "venv", tmp_path / "log", pins.read_text())
    result = make_venv(tmp_path / "venv", pins)
    assert (result.returncode, result.stderr) == (0, "")
    assert "pip" not in (tmp_path / "log").read_text()


def test_other_pins_are_installed_into_the_same_environment(tmp_path: Path, pins: Path) -> None:
    environment(tmp_path / "venv", tmp_path / "log", "fastapi==0.0.1\n")
    result = make_venv(tmp_path / "venv", pins)
    assert result.returncode == 0, result.stderr
    assert f"-r {pins}" in (tmp_path / "log").read_text()
    assert (tmp_path / "venv" / "installed").read_text() == pins.read_text()


def test_a_failed_installation_is_tried_again(tmp_path: Path, pins: Path) -> None:
    environment(tmp_path / "venv", tmp_path / "log", "")
    program(tmp_path / "venv" / "bin" / "python", 'case "$*" in *install*) exit 1;; esac')
    for _ in range(2):
        assert make_venv(tmp_path / "venv", pins).returncode != 0
        assert (tmp_path / "venv" / "installed").read_text() == ""


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "scripts/run.py", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 2
    assert f"Port {port} of 127.0.0.1 is taken" in result.stderr
    assert f"make run PORT={port + 1}" in result.stderr
