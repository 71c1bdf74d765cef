"""Every query of every dashboard, run by a real Prometheus against a real service that is under load."""

import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle
from typing import Any

import pytest

from tests.deploy.prometheus import Prometheus, found, scraping
from tests.deploy.test_dashboards import NAMES, panels, read
from tests.deploy.test_rules import RECORDED
from tests.integration.processes import ROOT, running
from tests.service.cascades import ADMIN_KEY, bearer, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(found() is None, reason="Prometheus is not installed (Debian's package prometheus)"),
]

BUNDLE = ROOT / "checkpoints" / "imagenette-hybrid"
PHOTOS = [path.read_bytes() for path in sorted((ROOT / "samples").glob("*.jpg"))]
# What Grafana puts in; shorter than it would, since the service has run for less than a minute.
GRAFANA = {"__rate_interval": "20s", "__interval": "15s", "__range": "60s"}
# Of a service that nothing is wrong with: they are about what did not happen here.
QUIET = {"DvtDown", "DvtInstanceDown", "DvtEngineDown", "DvtRestarting", "DvtBatchFailures", "DvtBudgetFallback"}


def call(port: int, method: str, path: str, body: bytes | str = b"", **headers: str) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {**bearer(ADMIN_KEY), **headers})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text[:1] == b"{" else {}
    finally:
        connection.close()


@dataclass
class Crowd:
    """Clients that send photos until they are told to stop; what the service said of them, by status."""

    port: int
    stop: threading.Event

    def client(self, seed: int) -> dict[int, int]:
        statuses: dict[int, int] = {}
        # The end of a JPEG is where a decoder stops: what follows makes another file of the same picture.
        for number, photo in enumerate(cycle(PHOTOS)):
            if self.stop.is_set():
                return statuses
            is_new = number % 3
            body = photo + f"{seed} {number}".encode() if is_new else photo
            query = ("", "?profile=full", "?max_exit=1", "?deadline_ms=1", "?min_confidence=0.999")[number % 5]
            status, answer = call(self.port, "POST", f"/classify{query}", body)
            statuses[status] = statuses.get(status, 0) + 1
            if status == 200 and number % 4 == 0:
                self.come_back(answer["results"][0])
        raise AssertionError("a cycle ends never")

    def come_back(self, result: dict[str, Any]) -> None:
        call(self.port, "POST", f"/classify/{result['id']}/refine", '{"to": "next"}')
        label = result["predictions"][0]["label"]
        call(self.port, "POST", "/feedback", json.dumps({"id": result["id"], "label": label}))


def operate(port: int) -> None:
    """What an operator does meanwhile."""
    budgets: list[dict[str, Any]] = [
        {"profile": "fast"},
        {"auto": {"p99_ms": 40, "floor": "fast", "ceiling": "accurate"}},
        {"max_risk": {"disagreement": 0.05}},
        {"profile": "balanced"},
    ]
    for budget in budgets:
        status, _ = call(port, "PUT", "/budget", json.dumps(budget), **{"Content-Type": "application/json"})
        assert status == 200
        time.sleep(4)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Has scraped a service for half a minute, in which it was asked for more than it can do."""
    folder = tmp_path_factory.mktemp("seeing")
    settings = {
        "DVT_ADMIN_KEY": ADMIN_KEY,
        "DVT_AUDIT_SHARE": "0.3",
        "DVT_QUEUE_LIMIT": "8",
        "DVT_REFINE_BYTES": "4000000",
        "DVT_LOG_FORMAT": "json",
        "DVT_ACCESS_LOG": "0",
    }
    with running(["dvt.py", "serve", BUNDLE, "--port", "0"], folder, **settings) as (_, port, _lines):
        with socket.create_server(("127.0.0.1", 0)) as free:
            own_port = free.getsockname()[1]
        with scraping(port, own_port, folder) as prometheus:
            wait_until(lambda: bool(prometheus.ask("query", query="dvt_ready == 1")["result"]), 60)
            crowd = Crowd(port, threading.Event())
            with ThreadPoolExecutor(16) as clients:
                sent = [clients.submit(crowd.client, seed) for seed in range(16)]
                operate(port)
                # More images at once than there are places.
                refused = [call(port, "POST", "/classify", PHOTOS[0] + bytes([number]))[0] for number in range(3)]
                crowd.stop.set()
                statuses = [done.result() for done in sent]
            assert any(503 in seen for seen in statuses) or 503 in refused
            time.sleep(3)  # Two scrapes and an evaluation more.
            yield prometheus


def filled_in(expression: str, **variables: str) -> str:
    """With values for Grafana's variables: all jobs and instances."""
    values = {**GRAFANA, "job": ".+", "instance": ".+", **variables}
    return re.sub(r"\$\{?([a-z_]+)\}?", lambda match: values[match[1]], expression)


def values_of(prometheus: Prometheus, variable: dict[str, Any]) -> list[str]:
    """As Grafana asks for them: `label_values(selector, label)`."""
    asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
    assert asked is not None
    series = prometheus.ask("series", **{"match[]": filled_in(asked[1])})
    return sorted({each[asked[2]] for each in series})


def answers(prometheus: Prometheus, target: dict[str, Any], **variables: str) -> list[float]:
    """All numbers that a query gives for the last half minute, or now."""
    expression = filled_in(target["expr"], **variables)
    if target["instant"]:
        result = prometheus.ask("query", query=expression)["result"]
        points = [each["value"] for each in result]
    else:
        now = time.time()
        result = prometheus.ask("query_range", query=expression, start=str(now - 30), end=str(now), step="2")["result"]
        points = [point for each in result for point in each["values"]]
    return [number for _, text in points if not math.isnan(number := float(text))]


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_has_values(prometheus: Prometheus, name: str) -> None:
    for variable in read(name)["templating"]["list"]:
        if variable["type"] == "query":
            assert values_of(prometheus, variable), variable["name"]


@pytest.mark.parametrize("name", NAMES)
def test_every_query_returns_data(prometheus: Prometheus, name: str) -> None:
    variables = {each["name"]: each for each in read(name)["templating"]["list"]}
    for panel in panels(name):
        repeated = panel.get("repeat")
        values = values_of(prometheus, variables[repeated]) if repeated else [""]
        for value, target in ((value, target) for value in values for target in panel["targets"]):
            found = answers(prometheus, target, **({repeated: value} if repeated else {}))
            assert found, f"{panel['title']} {value}: {target['expr']}"


def test_a_change_of_the_budget_is_marked_on_every_dashboard(prometheus: Prometheus) -> None:
    for name in NAMES:
        (annotation,) = read(name)["annotations"]["list"]
        assert answers(prometheus, {"expr": annotation["target"]["expr"], "instant": False})


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules if rule["type"] == "recording"} == RECORDED
    assert {(rule["health"], rule.get("lastError")) for rule in rules} == {("ok", None)}
    assert {rule["name"] for rule in rules if rule.get("alerts")} & QUIET == set()


@pytest.mark.parametrize("recorded", sorted(RECORDED))
def test_every_recording_rule_records(prometheus: Prometheus, recorded: str) -> None:
    assert prometheus.ask("query", query=recorded)["result"]
