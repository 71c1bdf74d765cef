"""docker-compose.yml, really up, under a name and on ports of its own; and clients that keep asking it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0


def why_not() -> str | None:
    """Why nothing can be run here; None where it can."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command, lacks in ((["docker", "compose", "version"], "Compose v2"), (["docker", "info"], "a running engine")):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return f"docker lacks {lacks}: `{' '.join(command)}` fails (DOCKER_HOST names another engine)"
    return None


def wait_until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Raises `AssertionError`."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {patience_s:.0f} s: {what}"
        time.sleep(0.2)


class Project:
    """One profile of docker-compose.yml (or of the files that COMPOSE_FILE names) with volumes of its own."""

    def __init__(self, profile: str, bundles: Path) -> None:
        self.port, self._prometheus_port, grafana_port = _free_ports(3)
        files = os.environ.get("COMPOSE_FILE", "docker-compose.yml")
        self.environment = {
            **os.environ,
            "COMPOSE_FILE": files,
            "COMPOSE_PROFILES": profile,
            "COMPOSE_PROJECT_NAME": f"dvt-e2e-{os.getpid()}-{profile}",
            "PORT": str(self.port),
            "PROMETHEUS_PORT": str(self._prometheus_port),
            "GRAFANA_PORT": str(grafana_port),
            "BUNDLES": str(bundles),
        }

    def compose(self, *arguments: str, **variables: str) -> str:
        return self.run("docker", "compose", *arguments, **variables)

    def run(self, *command: str, **variables: str) -> str:
        """What the command prints. Raises `AssertionError` with all of it where it fails."""
        ended = self.try_to_run(*command, **variables)
        assert ended.returncode == 0, f"{command} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
        return ended.stdout.strip()

    def try_to_run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **variables}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def changed(self, path: Path, change: str) -> dict[str, str]:
        """Variables that put a change, written to `path`, on top of the files."""
        path.write_text(change)
        return {"COMPOSE_FILE": f"{self.environment['COMPOSE_FILE']}{os.pathsep}{path}"}

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--all", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("docker", "inspect", container))[0]
        return found

    def wait_for(self, service: str) -> None:
        """Until each container of it is healthy."""
        wait_until(
            lambda: all(
                self.inspect(each)["State"]["Health"]["Status"] == "healthy" for each in self.containers(service)
            ),
            f"{service} is healthy",
        )

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status, and the JSON of the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def put_budget(self, container: str, profile: str) -> int:
        """As an admin, with the key as the README reads it; the revision."""
        key = self.run("docker", "exec", container, "cat", "/state/admin-key")
        body = json.dumps({"profile": profile}).encode()
        status, answer = self.ask(
            "PUT", "/budget", body, **{"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        )
        assert status == 200, answer
        return int(answer["revision"])

    def query(self, expression: str) -> list[float]:
        """What Prometheus says to it, a value a series."""
        found = self._prometheus(f"query?query={urllib.parse.quote(expression)}")
        return [float(each["value"][1]) for each in found["result"]]

    def alerts(self) -> dict[str, str]:
        """State of every alerting rule: inactive, pending or firing."""
        rules = [rule for group in self._prometheus("rules")["groups"] for rule in group["rules"]]
        return {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}

    def _prometheus(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._prometheus_port}/api/v1/{path}", timeout=30) as response:
            return json.load(response)["data"]


@contextmanager
def up(profile: str, bundles: Path, *services: str) -> Iterator[Project]:
    """The services, built and started; afterwards nothing of them is left but images."""
    missing = why_not()
    if missing is not None:
        pytest.skip(f"no containers here: {missing}")
    project = Project(profile, bundles)
    sys.stderr.write(f"docker compose up: {', '.join(services)} (profile {profile})\n")
    try:
        project.compose("up", "--detach", "--build", *services)
        yield project
    finally:
        sys.stderr.write(project.compose("logs", "--no-color", "--tail", "50") + "\n")
        project.compose("down", "--volumes", "--timeout", "20", "--remove-orphans")


class Load:
    """Clients that send one photo after the other until told to stop, for a few minutes at most.

    With pauses: what starts beside them on a small machine needs the CPU too.
    """

    def __init__(self, port: int, photo: bytes, clients: int = 3, at_most_s: float = PATIENCE_S * 2) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port = port
        self._photo = photo
        self._deadline_s = time.monotonic() + at_most_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def wait_for_answers(self, count: int = 20) -> None:
        """Until so many more have come."""
        before = self.outcomes["200"]
        wait_until(lambda: self.outcomes["200"] >= before + count, f"{count} more answers, of {self.outcomes}")

    def _client(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._stop.is_set() and time.monotonic() < self._deadline_s:
            try:
                connection.request("POST", "/classify", self._photo)
                response = connection.getresponse()
                response.read()
                outcome = str(response.status)
            except (HTTPException, OSError) as error:
                outcome = type(error).__name__
                connection.close()
            with self._lock:
                self.outcomes[outcome] += 1
            self._stop.wait(0.05)
        connection.close()


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(listener.getsockname()[1]) for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()
