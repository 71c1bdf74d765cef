"""A service of two devices as a client sees it: one door, one budget, and state that is found where it is."""

import asyncio
import json
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.api.app import create_app
from service.api.deps import Service
from service.engine.costs import StageCosts
from tests.integration.processes import ROOT, classify, running
from tests.integration.scripted_service import BUG, HELD, STUCK
from tests.integration.test_engine_process import events, get, send, status_of
from tests.service.cascades import (
    ADMIN,
    FakeBackend,
    client_of,
    make_service,
    picture,
    scheduler_of,
    small_profiles,
    sure_at,
    wait_until,
)

EASY, HARD = 4, 14
SCRIPT = sure_at({EASY: 1, HARD: 3})
SLOT_BYTES = FakeBackend(SCRIPT).slot_bytes


def two(folder: Path, **settings: Any) -> tuple[Service, list[FakeBackend]]:
    """Two slots on each device."""
    backends = [FakeBackend(SCRIPT, slots=2) for _ in range(2)]
    values = {"state_bytes": 2 * SLOT_BYTES, "refine_seconds": 60, **settings}
    return make_service(folder, *backends, profiles=small_profiles(), **values), backends


def set_costs(service: Service, *seconds: float) -> None:
    """Of a stage by device: what a script takes by the real clock is chance."""
    for device, each in enumerate(seconds):
        scheduler = scheduler_of(service, device)
        scheduler.costs = StageCosts(3, 2)
        for stage in (1, 2, 3):
            scheduler.costs.seed(stage, {1: each})


def one(client: TestClient, path: str, **options: Any) -> dict[str, Any]:
    response = client.post(path, **options)
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return dict(result)


def metric(client: TestClient, name: str) -> float:
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


def test_one_door_lets_in_as_many_as_all_devices_hold(tmp_path: Path) -> None:
    service, backends = two(tmp_path)
    gate = threading.Event()
    with client_of(service) as client, ThreadPoolExecutor(4) as pool:
        for backend in backends:
            backend.gate = gate
        inside = [pool.submit(client.post, "/classify", content=picture(EASY)) for _ in range(4)]
        wait_until(lambda: metric(client, "dvt_in_flight_images") == 4)
        wait_until(lambda: len(service.scheduler.running) == 2)
        refused = client.post("/classify", content=picture(EASY))
        assert metric(client, "dvt_in_flight_limit_images") == metric(client, "dvt_state_slots") == 4
        assert metric(client, "dvt_state_limit_bytes") == 4 * SLOT_BYTES
        assert metric(client, "dvt_engine_lanes") == 2
        waiting = metric(client, 'dvt_queued_images{stage="1"}')
        assert waiting == sum(scheduler_of(service, device).waiting[0] for device in (0, 1))
        gate.set()
        assert [each.result().status_code for each in inside] == [200] * 4
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert [sum(len(kinds) for _, kinds in backend.batches) for backend in backends] == [2, 2]


def test_many_requests_on_both_get_the_answers_of_one(tmp_path: Path) -> None:
    kinds = [EASY, HARD, EASY, HARD, HARD] * 8
    answers = []
    for service in (make_service(tmp_path, FakeBackend(SCRIPT), profiles=small_profiles()), two(tmp_path)[0]):
        with client_of(service) as client, ThreadPoolExecutor(4) as pool:
            results = pool.map(lambda kind: one(client, "/classify", content=picture(kind)), kinds)
            answers.append([(each["exit"]["number"], each["predictions"][0]["label"]) for each in results])
    assert answers[0] == answers[1]


def test_an_answer_is_refined_on_the_device_that_has_its_state(tmp_path: Path) -> None:
    service, backends = two(tmp_path)
    with client_of(service) as client:
        for device in (0, 1):
            set_costs(service, 1.0 + device, 2.0 - device)
            result_id = one(client, "/classify", content=picture(EASY))["id"]
            assert [[stage for stage, _ in backend.batches] for backend in backends][device] == [1]
            set_costs(service, 2.0 - device, 1.0 + device)
            assert one(client, f"/classify/{result_id}/refine", json={"to": "final"})["exit"]["number"] == 3
            assert [stage for stage, _ in backends[device].batches] == [1, 2, 3]
            assert len(backends[1].batches) == 3 * device


def test_state_whose_place_a_newcomer_has_is_gone_and_not_waited_for(tmp_path: Path) -> None:
    service, backends = two(tmp_path)
    gate = threading.Event()
    with client_of(service) as client, ThreadPoolExecutor(3) as pool:
        set_costs(service, 1.0, 9.0)
        result_id = one(client, "/classify", content=picture(EASY))["id"]
        for backend in backends:
            backend.gate = gate
        # Two fill the quick device, one of them in the place of what rests there; the slow one has a place left.
        inside = [pool.submit(client.post, "/classify", content=picture(HARD)) for _ in range(3)]
        wait_until(lambda: len(service.scheduler.running) == 2)
        gone = client.post(f"/classify/{result_id}/refine", json={"to": "final"})
        assert metric(client, "dvt_in_flight_images") == 3
        gate.set()
        assert [each.result().status_code for each in inside] == [200] * 3
    assert (gone.status_code, gone.json()["code"]) == (410, "state_gone")


def test_the_same_image_again_goes_on_from_where_it_is_kept(tmp_path: Path) -> None:
    service, backends = two(tmp_path, cache="key")
    with client_of(service) as client:
        set_costs(service, 1.0, 2.0)
        one(client, "/classify", content=picture(EASY))
        set_costs(service, 2.0, 1.0)
        for backend in backends:
            backend.batches.clear()
        again = one(client, "/classify", content=picture(EASY))
        deeper = one(client, "/classify?profile=full", content=picture(EASY))
    assert (again["exit"]["number"], deeper["exit"]["number"]) == (1, 3)
    assert [[stage for stage, _ in backend.batches] for backend in backends] == [[2, 3], []]


def test_the_devices_are_named(tmp_path: Path) -> None:
    with client_of(two(tmp_path)[0]) as client:
        assert client.get("/model").json()["devices"] == ["fake:0", "fake:1"]


def test_a_budget_of_time_holds_on_the_slowest(tmp_path: Path) -> None:
    service, _ = two(tmp_path)
    with client_of(service) as client:
        set_costs(service, 0.001, 0.004)
        body = {"latency_ms": 5, "quantile": 0.5}
        assert client.put("/budget?dry_run=true", json=body, headers=ADMIN).status_code == 200
        too_little = client.put("/budget?dry_run=true", json={**body, "latency_ms": 3}, headers=ADMIN)
    assert too_little.status_code == 422


def test_it_is_ready_when_every_device_is(tmp_path: Path) -> None:
    service, backends = two(tmp_path)
    gates = threading.Event(), threading.Event()
    for backend, gate in zip(backends, gates, strict=True):
        backend.warm_gate = gate

    async def ask() -> list[httpx.Response]:
        app = create_app(service, "0")
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            gates[0].set()
            await asyncio.to_thread(wait_until, lambda: scheduler_of(service, 0).ready)
            answers = [await client.get("/health/ready"), await client.get("/health/live")]
            gates[1].set()
            await asyncio.to_thread(wait_until, lambda: service.is_ready)
            return [*answers, await client.get("/health/ready")]

    before, live, after = asyncio.run(ask())
    assert "warming up: stage 1 at batch 1, step 1 of" in before.json()["detail"]
    assert [each.status_code for each in (before, live, after)] == [503, 200, 200]


SCRIPTED = (ROOT / "tests" / "integration" / "scripted_service.py",)


def test_everybody_on_either_device_is_answered_when_sigterm_comes(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    variables = {"DVT_MAX_BATCH": "1", "DVT_DRAIN_SECONDS": "60", "DVT_STALL_SECONDS": "600", "DVT_QUEUE_LIMIT": "8"}
    with running((*SCRIPTED, tmp_path, "two"), tmp_path, **variables) as (process, port, lines):
        (backend,) = [json.loads(line) for line in lines if json.loads(line)["event"] == "serving"]
        assert backend["devices"] == "fake:0, fake:1"
        hold.touch()
        clients = [send(port, picture(HELD)) for _ in range(8)]
        wait_until(lambda: "dvt_in_flight_images 8.0" in get(port, "/metrics")[1], 60)
        assert classify(port, picture(EASY)) == 503
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in events(lines), 60)
        hold.unlink()
        assert [status_of(client) for client in clients] == [200] * 8
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("kind", "status", "cause"),
    [
        (STUCK, 503, r"stage 1 with 1 images on fake:[01] has not ended after"),
        (BUG, 200, r"KeyError: 'bug' on fake:[01]"),
    ],
)
def test_when_one_device_is_lost_the_process_ends_with_1_and_names_it(
    tmp_path: Path, kind: int, status: int, cause: str
) -> None:
    with running((*SCRIPTED, tmp_path, "two"), tmp_path, DVT_STALL_SECONDS="2") as (process, port, lines):
        assert classify(port, picture(kind)) == status
        assert process.wait(60) == 1
    (lost,) = [json.loads(line) for line in lines if "engine lost" in line]
    assert re.match(cause, lost["cause"])
