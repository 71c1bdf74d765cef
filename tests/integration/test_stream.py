"""`POST /classify` as a stream of events: each exit as it is reached, whatever the client does meanwhile."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api import events as stream
from service.api.deps import Service
from service.engine.feedback import Feedback
from tests.service.cascades import GMACS, FakeBackend, client_of, make_service, picture, small_profiles, sure_at
from tests.service.exchanges import Event, Exchange, application_of, parse

EASY, MEDIUM, HARD, BAD = 4, 9, 14, 66
SCRIPT = sure_at({EASY: 1, MEDIUM: 2, HARD: 3})
EVENTS = {"Accept": "text/event-stream"}


def service_of(folder: Path, *, queue_limit: int = 256, **backend: Any) -> Service:
    return make_service(folder, FakeBackend(SCRIPT, **backend), profiles=small_profiles(), queue_limit=queue_limit)


def stream_of(client: TestClient, kinds: list[int], query: str = "") -> list[Event]:
    files = [("image", picture(kind)) for kind in kinds]
    response = client.post(f"/classify{query}", files=files, headers=EVENTS)
    assert response.status_code == 200
    return parse(response.text)


def of_image(events: list[Event], index: int) -> list[Event]:
    return [event for event in events if event.data.get("index") == index]


def test_each_image_has_its_exits_in_order_then_its_result_and_done_is_last(tmp_path: Path) -> None:
    with client_of(service_of(tmp_path)) as client:
        events = stream_of(client, [HARD, EASY, MEDIUM])
    assert [event.name for event in events].count("done") == 1
    assert events[-1].name == "done"
    for index, exits in enumerate((3, 1, 2)):
        own = of_image(events, index)
        assert [event.name for event in own] == ["exit"] * exits + ["result"]
        told = [event.data for event in own[:-1]]
        assert [each["exit"]["number"] for each in told] == list(range(1, exits + 1))
        assert [each["leaves"] for each in told] == [False] * (exits - 1) + [True]
        assert [each["compute"]["gmacs"] for each in told] == list(GMACS[:exits])
        assert own[-1].data["result"]["exit"]["number"] == exits


def test_a_stream_says_what_the_plain_answer_says(tmp_path: Path) -> None:
    with client_of(service_of(tmp_path)) as client:
        plain = client.post("/classify?top_k=2", content=picture(MEDIUM), headers={"X-Request-ID": "one"})
        streamed = client.post("/classify?top_k=2", content=picture(MEDIUM), headers={**EVENTS, "X-Request-ID": "one"})
    answer = plain.json()
    first, second, result, done = parse(streamed.text)
    assert done.data == {name: answer[name] for name in ("request_id", "model", "budget")}
    expected, found = answer["results"][0], result.data["result"]
    own = ("id", "timing_ms")
    assert {k: v for k, v in found.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}
    assert second.data["predictions"] == expected["predictions"]
    assert second.data["compute"] == expected["compute"]
    assert second.data["exit"] == {name: value for name, value in expected["exit"].items() if name != "reason"}
    assert first.data["elapsed_ms"] <= second.data["elapsed_ms"] <= found["timing_ms"]["total"]
    headers = streamed.headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-store", "no")
    assert headers["X-Request-ID"] == "one"


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream;q=0.9, */*;q=0.1", True),
        ("application/json, text/event-stream", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.0, application/json", False),
        ("text/event-streams", False),
        ("*/*", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_only_who_asks_for_events_by_name_gets_them(tmp_path: Path, accept: str, is_stream: bool) -> None:
    with client_of(service_of(tmp_path)) as client:
        response = client.post("/classify", content=picture(EASY), headers={"Accept": accept})
    assert response.headers["Content-Type"].startswith("text/event-stream") == is_stream


def test_what_fails_before_images_are_let_in_is_an_ordinary_problem(tmp_path: Path) -> None:
    service = service_of(tmp_path, queue_limit=2)
    with client_of(service) as client:
        many = [("image", picture(EASY))] * 3
        refused = [
            client.post("/classify?colour=red", content=picture(EASY), headers=EVENTS),
            client.post("/classify", content=b"", headers=EVENTS),
            client.post("/classify", files=many, headers=EVENTS),
        ]
        service.admission.drain()
        refused.append(client.post("/classify", content=picture(EASY), headers=EVENTS))
    assert [(each.status_code, each.json()["code"]) for each in refused] == [
        (422, "invalid_parameter"),
        (400, "empty_body"),
        (413, "too_many_images"),
        (503, "draining"),
    ]
    assert {each.headers["Content-Type"] for each in refused} == {"application/problem+json"}


def test_an_image_that_fails_has_an_error_in_place_of_its_result(tmp_path: Path) -> None:
    with client_of(service_of(tmp_path, poison=frozenset({BAD}))) as client:
        files = [("image", body) for body in (picture(EASY), b"no image", picture(BAD), b"")]
        response = client.post("/classify", files=files, headers=EVENTS)
    events = parse(response.text)
    assert response.status_code == 200
    assert [event.name for event in of_image(events, 0)] == ["exit", "result"]
    for index, code in ((1, "unsupported_image"), (2, "inference_failed"), (3, "empty_image")):
        (failed,) = of_image(events, index)
        assert (failed.name, failed.data["error"]["code"]) == ("error", code)
    assert events[-1].name == "done"


def test_a_bug_after_the_status_went_out_is_an_error_event_of_the_whole_request(tmp_path: Path) -> None:
    class Broken(Feedback):
        def remember(self, *_: object) -> None:
            raise KeyError("bug")

    service = replace(service_of(tmp_path), feedback=Broken(10, 3))
    with client_of(service) as client:
        exit_event, error, done = stream_of(client, [EASY])
    assert (exit_event.name, done.name) == ("exit", "done")
    assert (error.name, error.data["index"], error.data["error"]["code"]) == ("error", None, "internal")


def test_a_deadline_ends_it_with_the_best_exit_so_far(tmp_path: Path) -> None:
    gate = threading.Event()
    with client_of(service_of(tmp_path, gate=gate, gate_before=2)) as client:
        events = stream_of(client, [HARD], "?deadline_ms=200")
        gate.set()
    assert [event.name for event in events] == ["exit", "result", "done"]
    assert events[0].data["leaves"] is False
    assert events[1].data["result"]["exit"]["reason"] == "deadline"


def test_an_exit_is_told_before_the_next_stage_is_computed_and_silence_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.01)
    gate = threading.Event()
    service = service_of(tmp_path, gate=gate, gate_before=2)

    async def watch() -> str:
        async with application_of(service) as app:
            exchange = Exchange(app, "/classify", picture(HARD), EVENTS.items())
            await exchange.until(lambda: "event: exit" in exchange.text and ": heartbeat\n\n" in exchange.text)
            assert parse(exchange.text)[0].data["exit"]["number"] == 1
            gate.set()
            await exchange.ended
            return exchange.text

    text = asyncio.run(watch())
    assert [event.name for event in parse(text)] == ["exit", "exit", "exit", "result", "done"]


def test_a_client_that_stops_listening_costs_no_further_stage(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(SCRIPT, gate=gate, gate_before=2)
    service = make_service(tmp_path, backend, profiles=small_profiles())

    async def leave() -> None:
        async with application_of(service) as app:
            exchange = Exchange(app, "/classify", picture(HARD), EVENTS.items())
            await exchange.until(lambda: "event: exit" in exchange.text)
            exchange.leave()
            await exchange.ended
            gate.set()
            await exchange.until(lambda: service.admission.idle)

    asyncio.run(leave())
    assert [stage for stage, _ in backend.batches] == [1, 2]
    assert backend.slots_in_use == 0
    assert 'dvt_refusals_total{code="client_closed"} 1.0' in service.metrics.render().decode()


def test_a_client_that_does_not_read_holds_no_place(tmp_path: Path) -> None:
    """It holds neither slots nor permits, nor does the drain wait for it; what it is told waits for it in order."""
    backend = FakeBackend(SCRIPT)
    service = make_service(tmp_path, backend, profiles=small_profiles(), queue_limit=1)

    async def dawdle() -> str:
        async with application_of(service) as app:
            exchange = Exchange(app, "/classify", picture(HARD), EVENTS.items())
            exchange.takes.clear()
            await exchange.until(lambda: len(backend.batches) == 3 and service.admission.idle)
            assert exchange.status == 0
            other = Exchange(app, "/classify", picture(EASY), ())
            await other.ended
            assert other.status == 200
            exchange.takes.set()
            await exchange.ended
            return exchange.text

    text = asyncio.run(dawdle())
    assert [event.name for event in parse(text)] == ["exit", "exit", "exit", "result", "done"]
