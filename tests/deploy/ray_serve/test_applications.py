"""What the single process does, both ways to deploy on Ray Serve do too: a real Ray, real processes, HTTP.

Slow: each application takes Ray a quarter of a minute to start.
"""

import io
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks.ray_scripted import BROKEN, SECONDS, picture
from tests.deploy.ray_serve.applications import Application, end, needs_ray, served, served_by_us
from tests.integration.processes import ROOT, running
from tests.service.cascades import ADMIN_KEY, wait_until

pytestmark = [pytest.mark.slow, needs_ray]

EASY, MEDIUM, HARD = 1, 2, 3
MICRO = ROOT / "checkpoints" / "cifar10-micro"
# As between any two backends (tests/service/backends): batches of other sizes are computed in another order.
BOUND = 1e-4


@dataclass(frozen=True)
class Topology:
    """One of the two, with two replicas of whatever is killed; `victims` are those deployments."""

    name: str
    options: dict[str, object]
    victims: tuple[str, ...]


REPLICAS = Topology("replicas", {"replicas": "2", "cpus": 0.25}, ("Replica",))
STAGES = Topology(
    "stages", {"stages": "1,2,2", "cpus": 0.1, "ingress_cpus": 0.25, "ingress": "2"}, ("Stage2", "Stage3")
)


@contextmanager
def scripted(folder: Path, topology: Topology, seconds: str, **variables: str) -> Iterator[Application]:
    path = f"benchmarks.ray_scripted:{topology.name}"
    with served(folder, path, topology.options, **{SECONDS: seconds, "DVT_MAX_BATCH": "4", **variables}) as application:
        yield application


def photos() -> list[bytes]:
    """The samples, whole and a piece of each."""
    found = []
    for path in sorted((ROOT / "samples").glob("*.jpg")):
        with Image.open(path) as image:
            width, height = image.size
            piece = io.BytesIO()
            image.crop((width // 4, height // 4, width // 2, height // 2)).save(piece, "PNG")
        found += [path.read_bytes(), piece.getvalue()]
    return found


def essence(answer: Any) -> tuple[list[object], list[float]]:
    """What has to be equal, and what has to be close."""
    (result,) = answer["results"]
    exit_ = result["exit"]
    equal = [exit_["number"], exit_["reason"], exit_["threshold"], result["compute"], answer["budget"]["profile"]]
    by_index = sorted((each["index"], each["label"], each["probability"]) for each in result["predictions"])
    return [*equal, [each[:2] for each in by_index]], [exit_["confidence"], *(each[2] for each in by_index)]


@pytest.mark.parametrize("topology", [REPLICAS, STAGES], ids=lambda each: each.name)
def test_answers_are_those_of_the_single_process(tmp_path: Path, topology: Topology) -> None:
    queries = ("?top_k=10", "?top_k=10&profile=full", "?top_k=10&profile=fast", "?top_k=10&max_exit=1")
    asked = [(photo, query) for photo in photos() for query in queries]
    command: list[str | Path] = [ROOT / "dvt.py", "serve", MICRO, "--port", "0"]
    with running(command, tmp_path / "single", DVT_LOG_FORMAT="json", DVT_AUDIT_SHARE="0", DVT_CACHE="off") as (
        _,
        port,
        _,
    ):
        single = Application(port, None, tmp_path)  # type: ignore[arg-type] # Its process is not asked for.
        expected = [single.classify(photo, query).body for photo, query in asked]
        model = single.ask("GET", "/model").body
    path = f"deploy.ray_serve.{topology.name}:app"
    with served(tmp_path, path, topology.options, DVT_BUNDLE=str(MICRO)) as application:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda each: application.classify(*each), asked))
        assert application.ask("GET", "/model").body == model
        refused = application.classify(b"no image")
        stream = application.ask("POST", "/classify?profile=full", asked[0][0], Accept="text/event-stream")
    assert Counter(answer.status for answer in answers) == {200: len(asked)}
    assert {essence(each)[0][0] for each in expected} >= {1, 2}, "the photos do not leave at different exits"
    for answer, reference in zip(answers, expected, strict=True):
        (ours, close), (theirs, to) = essence(answer.body), essence(reference)
        assert ours == theirs
        np.testing.assert_allclose(close, to, rtol=0, atol=BOUND)
    assert [line for line in stream.body.splitlines() if line.startswith("event:")] == [
        *["event: exit"] * 3,
        "event: result",
        "event: done",
    ]
    assert (refused.status, refused.body["code"]) == (415, "unsupported_image")
    assert refused.headers["x-content-type-options"] == "nosniff"


def free_ports(count: int) -> list[int]:
    """One after the other."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            first: int = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return list(range(first, first + count))


def metrics_at(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text: bytes = response.read()
    return text.decode()


@pytest.mark.parametrize("topology", [REPLICAS, STAGES], ids=lambda each: each.name)
def test_a_budget_switch_reaches_every_replica_and_who_comes_later(tmp_path: Path, topology: Topology) -> None:
    front = "Replica" if topology is REPLICAS else "Ingress"
    ports = free_ports(2)
    options = {**topology.options, "metrics_port": ports[0]}
    with scripted(tmp_path, replace(topology, options=options), "0,0,0") as application:
        wait_until(lambda: len(application.replicas(front)) == 2, 60)
        assert application.classify(picture(HARD)).body["results"][0]["exit"]["number"] == 3
        put = application.put_budget({"profile": "fast"}, **{"If-Match": '"1"'})
        assert (put.status, put.body["revision"]) == (200, 2)

        def budgets() -> set[tuple[int, int]]:
            """(revision, exit of a hard image), over enough requests to meet every replica."""
            answers = [application.classify(picture(HARD)) for _ in range(20)]
            assert {answer.status for answer in answers} == {200}
            return {
                (answer.body["budget"]["revision"], answer.body["results"][0]["exit"]["number"]) for answer in answers
            }

        wait_until(lambda: budgets() == {(2, 1)}, 30)
        assert ["dvt_budget_revision 2.0" in metrics_at(port) for port in ports] == [True, True]
        late = application.put_budget({"profile": "full"}, **{"If-Match": '"1"'})
        assert (late.status, late.body["code"]) == (412, "revision_changed")
        before = {each.pid for each in application.replicas(front)}
        application.replicas(front)[0].kill()
        wait_until(lambda: len({each.pid for each in application.replicas(front)} - before) == 1, 60)
        time.sleep(5)  # The new one warms up, and is told.
        assert budgets() == {(2, 1)}


@pytest.mark.parametrize("topology", [REPLICAS, STAGES], ids=lambda each: each.name)
def test_a_killed_replica_loses_no_request(tmp_path: Path, topology: Topology) -> None:
    """A crowd is inside while replicas are killed, one of each kind after the other."""
    with scripted(tmp_path, topology, "0.01,0.02,0.03") as application:
        statuses: Counter[int] = Counter()
        exits: Counter[int] = Counter()
        stop = threading.Event()

        def ask(kind: int) -> None:
            while not stop.is_set():
                answer = application.classify(picture(kind), "?profile=balanced")
                statuses[answer.status] += 1
                if answer.status == 200:
                    exits[answer.body["results"][0]["exit"]["number"] - kind] += 1

        with ThreadPoolExecutor(12) as pool:
            asking = [pool.submit(ask, kind) for kind in (EASY, MEDIUM, HARD, HARD) * 3]
            try:
                time.sleep(3)
                for victim in topology.victims:
                    processes = application.replicas(victim)
                    assert processes, f"no replica of {victim}"
                    processes[0].kill()
                    psutil.wait_procs(processes[:1], timeout=5)
                    time.sleep(6)
            finally:
                stop.set()
            for each in asking:
                each.result()
    assert set(statuses) == {200}, statuses
    assert statuses[200] > 100
    assert set(exits) == {0}, "an image was answered as another one would be"


@pytest.mark.parametrize("topology", [REPLICAS, STAGES], ids=lambda each: each.name)
def test_a_crowd_inside_is_answered_before_it_ends_by_sigterm(tmp_path: Path, topology: Topology) -> None:
    path, variables = (
        f"benchmarks.ray_scripted:{topology.name}",
        {SECONDS: "0.2,0.2,0.2", "DVT_MAX_BATCH": "4", "DVT_DRAIN_SECONDS": "60"},
    )
    with served_by_us(tmp_path, path, topology.options, **variables) as application, ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(application.classify, picture(HARD)) for _ in range(16)]
        time.sleep(1.0)
        assert not all(each.done() for each in asked)
        assert end(application.process, signal.SIGTERM, 60) == 0
        statuses = [each.result().status for each in asked]
    assert statuses == [200] * 16


def test_another_bundle_is_rolled_out_and_back_without_a_lost_request(tmp_path: Path) -> None:
    """Of replicas of the whole service: stages would be of two bundles meanwhile, and refuse each other's ingress."""
    topology = REPLICAS
    path, photo = f"deploy.ray_serve.{topology.name}:app", photos()[0]
    other = ROOT / "checkpoints" / "imagenette-hybrid"
    with served(tmp_path, path, topology.options, DVT_BUNDLE=str(MICRO)) as application:
        seen: Counter[tuple[int, str]] = Counter()
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answer = application.classify(photo)
                seen[answer.status, answer.body["model"]["name"] if answer.status == 200 else "none"] += 1

        def only(bundle: Path) -> bool:
            names = {application.ask("GET", "/model").body["name"] for _ in range(12)}
            return names == {bundle.name}

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            try:
                for bundle in (other, MICRO):
                    application.deploy(path, topology.options, DVT_BUNDLE=str(bundle))
                    wait_until(lambda bundle=bundle: only(bundle), 90)  # type: ignore[misc] # A lambda's default has no type.
            finally:
                stop.set()
            for each in asking:
                each.result()
    assert set(seen) == {(200, MICRO.name), (200, other.name)}, seen


def test_replicas_are_added_when_what_waits_takes_too_long(tmp_path: Path) -> None:
    growing = Topology("replicas", {"replicas": "1-2", "cpus": 0.1, "queue_delay_s": 0.5}, ())
    with scripted(tmp_path, growing, "0.02,0.02,0.02") as application:
        assert len(application.replicas("Replica")) == 1
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                assert application.classify(picture(HARD)).status == 200

        with ThreadPoolExecutor(24) as pool:
            asking = [pool.submit(ask) for _ in range(24)]
            try:
                wait_until(lambda: len(application.replicas("Replica")) == 2, 120)
            finally:
                stop.set()
            for each in asking:
                each.result()


def test_who_breaks_a_stage_fails_alone(tmp_path: Path) -> None:
    """Batches of several callers are merged at a stage, and what one of them does to it is not the others' fault."""
    with scripted(tmp_path, STAGES, "0.02,0.02,0.02") as application:
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda kind: application.classify(picture(kind)), [HARD, BROKEN, EASY] * 4))
        assert [answer.status for answer in answers] == [200, 500, 200] * 4
        assert answers[1].body["code"] == "inference_failed"


def test_an_operator_needs_the_key_and_a_stranger_is_told_so(tmp_path: Path) -> None:
    with scripted(tmp_path, REPLICAS, "0,0,0", DVT_API_KEYS="reader") as application:
        assert application.classify(picture(EASY)).status == 401
        assert application.ask("POST", "/classify", picture(EASY), Authorization="Bearer reader").status == 200
        assert application.ask("PUT", "/budget", b"{}", Authorization="Bearer reader").status == 403
        assert application.ask("GET", "/budget", Authorization=f"Bearer {ADMIN_KEY}").status == 200
