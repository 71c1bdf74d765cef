"""What a client sees of the schedule: failing neighbours, mixed wishes in one batch, the ceiling, overload, leaving."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.api.app import create_app
from service.engine.costs import StageCosts
from tests.integration.infer_requests import INFER, files
from tests.service.cascades import (
    FakeBackend,
    client_of,
    make_service,
    picture,
    scheduler_of,
    small_profiles,
    sure_at,
    wait_until,
)

EASY, MEDIUM, HARD, BAD, NANS = 4, 9, 14, 66, 67


def script(kind: int, stage: int) -> float:
    return float("nan") if kind == NANS else sure_at({EASY: 1, MEDIUM: 2, HARD: 3})(kind, stage)


def test_an_image_that_cannot_be_computed_fails_alone(tmp_path: Path) -> None:
    service = make_service(tmp_path, FakeBackend(script, poison=frozenset({BAD})), profiles=small_profiles())
    with client_of(service) as client:
        files = [("image", picture(kind)) for kind in (EASY, BAD, HARD, NANS)]
        response = client.post("/classify", files=files)
        alone = client.post("/classify", content=picture(BAD))
    easy, bad, hard, nans = response.json()["results"]
    assert response.status_code == 200
    assert (easy["exit"]["number"], hard["exit"]["number"]) == (1, 3)
    assert [(failed["error"]["status"], failed["error"]["code"]) for failed in (bad, nans)] == [
        (500, "inference_failed")
    ] * 2
    assert (alone.status_code, alone.json()["code"]) == (500, "inference_failed")


def test_wishes_of_many_kinds_share_batches(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate)
    wishes = {
        "": 3,
        "profile=fast": 3,
        "min_confidence=0.25": 1,
        "thresholds=null,0.2": 2,
        "max_exit=2": 2,
        "deadline_ms=60000": 3,
        "priority=9": 3,
        "priority=1&max_exit=1&deadline_ms=50000": 1,
    }
    service = make_service(tmp_path, backend, profiles=small_profiles())
    with client_of(service) as client, ThreadPoolExecutor(9) as pool:
        # What a script takes by the real clock is chance; without measured costs the largest batch is the best.
        scheduler_of(service).costs = StageCosts(3, service.settings.max_batch)
        first = pool.submit(client.post, "/classify", content=picture(EASY))
        wait_until(lambda: service.scheduler.running != ())
        asked = [pool.submit(client.post, f"/classify?{query}", content=picture(HARD)) for query in wishes]
        wait_until(lambda: len(scheduler_of(service)._inbox) == len(wishes))
        gate.set()
        first.result()
        exits = [one.result().json()["results"][0]["exit"]["number"] for one in asked]
    assert exits == list(wishes.values())
    assert [(stage, len(kinds)) for stage, kinds in backend.batches] == [(1, 1), (1, 8), (2, 6), (3, 4)]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200),
        ("profile=fast", 200),
        ("profile=accurate", 403),
        ("min_confidence=0.3", 200),
        ("min_confidence=0.7", 403),
        ("thresholds=0.8,0.6", 200),
        ("thresholds=null,0.1", 403),
        ("max_exit=3", 200),
        ("priority=1", 200),
        ("priority=1&profile=full&max_exit=1", 403),
        ("deadline_ms=1000&thresholds=0.9,0.9", 403),
    ],
)
def test_no_wish_is_dearer_than_the_ceiling(tmp_path: Path, query: str, status: int) -> None:
    service = make_service(tmp_path, FakeBackend(script), profiles=small_profiles(), ceiling="balanced", profile="fast")
    with client_of(service) as client:
        response = client.post(f"/classify?{query}", content=picture(EASY))
    assert response.status_code == status
    if status == 403:
        assert response.json()["code"] == "above_ceiling"


def test_retry_after_is_computed_from_the_queue_and_the_measured_costs(tmp_path: Path) -> None:
    gate = threading.Event()
    service = make_service(tmp_path, FakeBackend(script, gate=gate), queue_limit=8, profiles=small_profiles())
    with client_of(service) as client, ThreadPoolExecutor(8) as pool:
        for stage in (1, 2, 3):
            scheduler_of(service).costs.seed(stage, {8: 8.0})  # A second for each image and stage.
        inside = [pool.submit(client.post, "/classify", content=picture(EASY)) for _ in range(8)]
        wait_until(lambda: "dvt_in_flight_images 8.0" in client.get("/metrics").text)
        refused = client.post("/classify", content=picture(EASY))
        gate.set()
        assert [one.result().status_code for one in inside] == [200] * 8
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "12")  # Half of 8 images times 3 stages.


def test_while_it_warms_up_it_says_what_and_refuses_work(tmp_path: Path) -> None:
    gate = threading.Event()
    service = make_service(tmp_path, FakeBackend(script, warm_gate=gate, gate_before=3))

    async def ask() -> list[httpx.Response]:
        app = create_app(service, "0")
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            await asyncio.to_thread(wait_until, lambda: str(service.scheduler.warming).startswith("stage 3"))
            before = [await client.get("/health/ready"), await client.post("/classify", content=picture(EASY))]
            live = await client.get("/health/live")
            gate.set()
            await asyncio.to_thread(wait_until, lambda: service.scheduler.ready)
            return [*before, live, await client.get("/health/ready")]

    ready, classify, live, later = asyncio.run(ask())
    for refused in (ready, classify):
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert "warming up: stage 3 at batch 1, step 3 of 12" in refused.json()["detail"]
        assert int(refused.headers["Retry-After"]) >= 1
    assert (live.status_code, later.status_code) == (200, 200)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/classify", picture(HARD)), (INFER, json.dumps(files(HARD)).encode())],
    ids=["classify", "infer"],
)
def test_a_client_that_leaves_costs_no_further_stage(tmp_path: Path, path: str, body: bytes) -> None:
    """The client goes while its image is in stage 1; its place is free as soon as that batch ends."""
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate)
    service = make_service(tmp_path, backend, queue_limit=1, profiles=small_profiles())

    async def leave() -> None:
        app = create_app(service, "0")
        gone = asyncio.Event()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, object]:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            pass

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "scheme": "http",
            "server": ("localhost", 80),
            "client": ("localhost", 1),
            "root_path": "",
        }
        async with app.router.lifespan_context(app):
            await asyncio.to_thread(wait_until, lambda: service.scheduler.ready)
            request = asyncio.ensure_future(app(scope, receive, send))
            await asyncio.to_thread(wait_until, lambda: service.scheduler.running != ())
            gone.set()
            await request
            gate.set()
            await asyncio.to_thread(wait_until, lambda: service.admission.idle)

    asyncio.run(leave())
    assert backend.batches == [(1, (HARD,))]
    assert backend.slots_in_use == 0
