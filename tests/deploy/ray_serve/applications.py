"""A real Ray on this machine with one application of Ray Serve, in an environment of its own; ended for sure."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.ray_serve import retry
from tests.service.cascades import ADMIN_KEY, wait_until

ROOT = Path(__file__).parent.parent.parent.parent
VENV = ROOT / ".venv-ray-serve"
_START_S = 180.0

needs_ray = pytest.mark.skipif(
    not (VENV / "bin" / "serve").exists(), reason="needs Ray in .venv-ray-serve: `make verify` makes it"
)


@dataclass(frozen=True)
class Answered:
    """Status, headers (their names in small letters) and the JSON of an answer."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Application:
    """What is served on `port`; `process` is the command that does."""

    port: int
    process: "subprocess.Popen[bytes]"
    output: Path

    def ask(self, method: str, path: str, body: bytes | None = None, **sent: str) -> Answered:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            text = response.read()
            is_json = "json" in response.headers.get("Content-Type", "")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answered(response.status, headers, json.loads(text) if is_json else text.decode())
        finally:
            connection.close()

    def classify(self, photo: bytes, query: str = "") -> Answered:
        return self.ask("POST", f"/classify{query}", photo)

    def put_budget(self, request: object, **headers: str) -> Answered:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json", **headers}
        return self.ask("PUT", "/budget", json.dumps(request).encode(), **headers)

    def deploy(self, import_path: str, options: Mapping[str, object], **variables: str) -> None:
        """Replace the application, by `serve deploy`; returns before that is done."""
        file = self.output.with_name("next.yaml")
        file.write_text(configuration(self.port, import_path, options, variables))
        subprocess.run([VENV / "bin" / "serve", "deploy", file], cwd=ROOT, check=True, capture_output=True)

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The processes of a deployment's replicas, those that are just starting too."""
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if f"ServeReplica:dvt:{deployment}" in _title(child)
        ]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def served(folder: Path, import_path: str, options: Mapping[str, object], **variables: str) -> Iterator[Application]:
    """An application under `serve run`, once it answers; `variables` are of its environment."""
    port = free_port()
    file = folder / "application.yaml"
    file.write_text(configuration(port, import_path, options, {}))
    command: list[str | Path] = [VENV / "bin" / "serve", "run", file]
    with _running(command, folder, port, variables) as application:
        yield application


@contextmanager
def served_by_us(
    folder: Path, import_path: str, options: Mapping[str, object], **variables: str
) -> Iterator[Application]:
    """The same under `python -m deploy.ray_serve`."""
    port = free_port()
    words = [f"{name}={value}" for name, value in options.items()]
    command: list[str | Path] = [
        VENV / "bin" / "python",
        "-m",
        "deploy.ray_serve",
        import_path,
        *words,
        "--port",
        str(port),
    ]
    with _running(command, folder, port, variables) as application:
        yield application


def configuration(port: int, import_path: str, options: Mapping[str, object], variables: Mapping[str, str]) -> str:
    """A configuration file of Ray Serve, whose replicas have `variables` in their environment."""
    application = {
        "name": "dvt",
        "route_prefix": "/",
        "import_path": import_path,
        "args": options,
        "runtime_env": {"env_vars": variables},
    }
    http_options = {"host": "127.0.0.1", "port": port}
    return json.dumps({"http_options": http_options, "applications": [application]})  # JSON is YAML.


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def _running(
    command: Sequence[str | Path], folder: Path, port: int, variables: Mapping[str, str]
) -> Iterator[Application]:
    output = folder / "output"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "DVT_STATE_DIR": str(folder / "state"),
        "DVT_ADMIN_KEY": ADMIN_KEY,
        "DVT_AUDIT_SHARE": "0",
        "DVT_CACHE": "off",
        retry.VARIABLE: retry.IMPORT_PATH,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "100",
        **variables,
    }
    with output.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    application = Application(port, process, output)
    try:
        wait_until(lambda: _is_ready(application), _START_S)
        yield application
    except BaseException as error:
        error.add_note(output.read_bytes()[-8000:].decode(errors="replace"))
        raise
    finally:
        end(process)


def _is_ready(application: Application) -> bool:
    assert application.process.poll() is None, "the command has ended"
    time.sleep(0.2)
    try:
        return application.ask("GET", "/health/ready").status == 200
    except OSError:
        return False


def end(process: "subprocess.Popen[bytes]", by: signal.Signals = signal.SIGINT, patience_s: float = 30.0) -> int:
    """As Ctrl-C does; whoever of the family is left after `patience_s` is killed. Gives the exit code."""
    family = _family(process)
    if process.poll() is None:
        process.send_signal(by)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    _, alive = psutil.wait_procs(family, timeout=5)
    for survivor in alive:
        try:
            survivor.kill()
        except psutil.NoSuchProcess:
            continue
    return process.wait(10)


def _family(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
