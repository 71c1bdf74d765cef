"""`POST /classify/{id}/refine` as a client sees it: deeper exits of an image that was answered, no stage run twice."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.deps import Service
from service.engine.kept import KeptWork, Work
from tests.service.cascades import (
    ADMIN,
    GMACS,
    FakeBackend,
    bearer,
    certified_profiles,
    client_of,
    make_service,
    picture,
    scheduler_of,
    small_profiles,
    sure_at,
    wait_until,
)
from tests.service.exchanges import Exchange, application_of, parse

EASY, MEDIUM, HARD = 4, 9, 14
EVENTS = {"Accept": "text/event-stream"}


def script(kind: int, stage: int) -> float:
    """Ever more confident, the easy ones from the start."""
    return {EASY: (0.85, 0.9, 0.95), MEDIUM: (0.5, 0.7, 0.8), HARD: (0.3, 0.4, 0.6)}.get(kind, (0.97,) * 3)[stage - 1]


def refinable(folder: Path, backend: FakeBackend | None = None, **settings: Any) -> Service:
    values = {"refine_seconds": 60, **settings}
    profiles = values.pop("profiles", small_profiles())
    return make_service(folder, backend or FakeBackend(script), profiles=profiles, **values)


def first(client: TestClient, kind: int = EASY, query: str = "", **options: Any) -> dict[str, Any]:
    (result,) = client.post(f"/classify{query}", content=picture(kind), **options).json()["results"]
    return dict(result)


def refine(client: TestClient, result_id: str, wish: object, query: str = "", **options: Any) -> Any:
    return client.post(f"/classify/{result_id}/refine{query}", json=wish, **options)


def refined(client: TestClient, result_id: str, wish: object, query: str = "", **options: Any) -> dict[str, Any]:
    response = refine(client, result_id, wish, query, **options)
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    assert result["id"] == result_id
    return dict(result)


def metric(client: TestClient, name: str) -> float:
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize(
    ("wish", "number", "reason", "stages"),
    [
        ({"to": "next"}, 2, "max_exit", [2]),
        ({"to": 2}, 2, "max_exit", [2]),
        ({"to": "final"}, 3, "final", [2, 3]),
        ({"to": 3}, 3, "final", [2, 3]),
        ({"to": 1}, 1, "max_exit", []),
        ({"min_confidence": 0.89}, 2, "confident", [2]),
        ({"min_confidence": 0.99}, 3, "final", [2, 3]),
        ({"min_confidence": 0.8}, 1, "confident", []),
    ],
)
def test_an_answer_is_refined_to_an_exit_or_until_it_is_confident(
    tmp_path: Path, wish: object, number: int, reason: str, stages: list[int]
) -> None:
    backend = FakeBackend(script)
    with client_of(refinable(tmp_path, backend)) as client:
        result_id = first(client)["id"]
        answer = refined(client, result_id, wish, "?top_k=2")
    assert (answer["exit"]["number"], answer["exit"]["reason"]) == (number, reason)
    assert len(answer["predictions"]) == 2
    assert answer["predictions"][0]["probability"] == pytest.approx(script(EASY, number))
    assert answer["compute"]["gmacs"] == GMACS[number - 1]
    assert len(answer["timing_ms"]["stages"]) == len(stages)
    assert answer["certificate"] is None
    assert [stage for stage, _ in backend.batches] == [1, *stages]


def test_step_by_step_each_stage_runs_once_and_what_was_reached_is_given_as_it_is(tmp_path: Path) -> None:
    backend = FakeBackend(script)
    with client_of(refinable(tmp_path, backend)) as client:
        whole = first(client, query="?profile=full")
        backend.batches.clear()
        result_id = first(client)["id"]
        steps = [refined(client, result_id, {"to": "next"}) for _ in range(3)]
        back = refined(client, result_id, {"to": 2})
        again = refined(client, result_id, {"to": "final"})
    assert [(each["exit"]["number"], each["exit"]["reason"]) for each in steps] == [
        (2, "max_exit"),
        (3, "final"),
        (3, "final"),
    ]
    assert [len(each["timing_ms"]["stages"]) for each in (*steps, back, again)] == [1, 1, 0, 0, 0]
    assert back["predictions"] == steps[0]["predictions"]
    assert again["predictions"] == whole["predictions"]
    assert again["exit"] == whole["exit"]
    assert [stage for stage, _ in backend.batches] == [1, 2, 3]


def test_the_answer_has_the_form_of_classify(tmp_path: Path) -> None:
    with client_of(refinable(tmp_path)) as client:
        result_id = first(client)["id"]
        answer = refine(client, result_id, {"to": "final"}, headers={"X-Request-ID": "mine"}).json()
        plain = client.post("/classify?profile=full", content=picture(EASY)).json()
    assert set(answer) == set(plain)
    assert set(answer["results"][0]) == set(plain["results"][0])
    assert answer["request_id"] == "mine"
    assert answer["budget"] == {"revision": 1, "operating_point": 0, "point": 3, "profile": None}


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        (b'{"to": 4}', 422, "invalid_parameter", "exits 1 to 3"),
        (b'{"to": 0}', 422, "invalid_parameter", "to"),
        (b'{"to": true}', 422, "invalid_parameter", "to"),
        (b'{"to": 2.0}', 422, "invalid_parameter", "to"),
        (b'{"to": "deeper"}', 422, "invalid_parameter", "to"),
        (b'{"to": null}', 422, "invalid_parameter", "one only"),
        (b"{}", 422, "invalid_parameter", "one only"),
        (b'{"to": "next", "min_confidence": 0.5}', 422, "invalid_parameter", "one only"),
        (b'{"min_confidence": 1.5}', 422, "invalid_parameter", "min_confidence"),
        (b'{"min_confidence": NaN}', 422, "invalid_parameter", "min_confidence"),
        (b'{"too": "next"}', 422, "invalid_parameter", "too"),
        (b'["next"]', 422, "invalid_parameter", ""),
        (b"next", 400, "bad_json", "not JSON"),
        (b"", 400, "empty_body", "0 bytes"),
        (b" " * 5000, 413, "body_too_large", "4096"),
    ],
)
def test_what_makes_no_sense_is_told_so(tmp_path: Path, body: bytes, status: int, code: str, says: str) -> None:
    with client_of(refinable(tmp_path)) as client:
        result_id = first(client)["id"]
        response = client.post(f"/classify/{result_id}/refine", content=body)
        unknown = client.post(f"/classify/{'0' * 32}/refine", content=body)
    for each in (response, unknown):
        assert (each.status_code, each.json()["code"]) == (status, code)
        assert says in each.json()["detail"]


@pytest.mark.parametrize("query", ["?max_exit=2", "?profile=fast", "?top_k=0", "?deadline_ms=-1", "?priority=10"])
def test_only_parameters_that_apply_are_taken(tmp_path: Path, query: str) -> None:
    with client_of(refinable(tmp_path)) as client:
        response = refine(client, first(client)["id"], {"to": "next"}, query)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")


def test_unknown_others_and_old_ids_look_the_same(tmp_path: Path) -> None:
    service = refinable(tmp_path, api_keys="alice-key,bob-key")
    alice, bob = bearer("alice-key"), bearer("bob-key")
    with client_of(service) as client:
        result_id = first(client, headers=alice)["id"]
        wish, same = {"to": "next"}, {"X-Request-ID": "same"}
        gone = [
            refine(client, result_id, wish, headers={**bob, **same}),
            refine(client, result_id, wish, headers={**ADMIN, **same}),
            refine(client, "0" * 32, wish, headers={**alice, **same}),
            refine(client, "x" * 500, wish, headers={**alice, **same}),
        ]
        assert refine(client, result_id, wish).status_code == 401
        assert refine(client, result_id, wish, headers=alice).status_code == 200
        for slot in service.kept.take_all():
            scheduler_of(service)._backend.release(slot)
        gone.append(refine(client, result_id, {"to": "final"}, headers={**alice, **same}))
    assert {each.status_code for each in gone} == {410}
    assert len({each.text for each in gone}) == 1
    assert gone[0].json()["code"] == "state_gone"


def test_time_ends_it(tmp_path: Path) -> None:
    with client_of(refinable(tmp_path, refine_seconds=0.05)) as client:
        result_id = first(client)["id"]
        wait_until(lambda: metric(client, 'dvt_kept_bytes{what="state"}') == 0)
        assert refine(client, result_id, {"to": 1}).status_code == 410


def test_it_can_be_off(tmp_path: Path) -> None:
    with client_of(refinable(tmp_path, refine_seconds=0)) as client:
        assert refine(client, first(client)["id"], {"to": "next"}).json()["code"] == "state_gone"


def test_newcomers_have_the_slots(tmp_path: Path) -> None:
    """Two slots for two images: what is kept of earlier ones never keeps anybody out."""
    backend = FakeBackend(script, slots=2)
    with client_of(refinable(tmp_path, backend)) as client:
        ids = [first(client)["id"] for _ in range(4)]
        found = [refine(client, result_id, {"to": "next"}).status_code for result_id in ids]
        assert metric(client, 'dvt_kept_evictions_total{what="state",why="needed"}') == 2
    assert found == [410, 410, 200, 200]


def test_memory_for_state_is_capped(tmp_path: Path) -> None:
    with client_of(refinable(tmp_path, refine_bytes=12_000)) as client:  # Two slots of 5,000 bytes.
        ids = [first(client)["id"] for _ in range(3)]
        assert metric(client, 'dvt_kept_bytes{what="state"}') == 10_000
        found = [refine(client, result_id, {"to": "next"}).status_code for result_id in ids]
    assert found == [410, 200, 200]


def test_two_who_refine_one_image_at_once_run_each_stage_once(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate, gate_before=2)
    wishes = [{"to": "next"}, {"to": 2}, {"to": "final"}, {"min_confidence": 0.93}, {"to": 1}]
    with client_of(refinable(tmp_path, backend)) as client, ThreadPoolExecutor(len(wishes)) as pool:
        service = client.app.state.service  # type: ignore[attr-defined]  # an application of Starlette's
        result_id = first(client)["id"]
        asked = [pool.submit(refined, client, result_id, wishes[0])]
        wait_until(lambda: [running.stage for running in service.scheduler.running] == [2])
        asked += [pool.submit(refined, client, result_id, wish) for wish in wishes[1:]]
        wait_until(lambda: service.admission._requests == len(wishes) - 1)
        gate.set()
        answers = [each.result() for each in asked]
    assert [each["exit"]["number"] for each in answers] == [2, 2, 3, 3, 1]
    assert [stage for stage, _ in backend.batches] == [1, 2, 3]


def test_when_the_one_that_others_wait_for_fails_they_are_told_that_the_state_is_gone(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate, gate_before=2)
    with client_of(refinable(tmp_path, backend)) as client, ThreadPoolExecutor(2) as pool:
        service = client.app.state.service  # type: ignore[attr-defined]  # an application of Starlette's
        result_id = first(client)["id"]
        backend.poison = frozenset({EASY})
        one = pool.submit(refine, client, result_id, {"to": "next"})
        wait_until(lambda: [running.stage for running in service.scheduler.running] == [2])
        two = pool.submit(refine, client, result_id, {"to": "next"})
        wait_until(lambda: service.admission._requests == 2)
        gate.set()
    assert (one.result().status_code, one.result().json()["code"]) == (500, "inference_failed")
    assert (two.result().status_code, two.result().json()["code"]) == (410, "state_gone")


def test_when_the_engine_is_lost_whoever_waits_for_another_is_told_so(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate, gate_before=2)
    with client_of(refinable(tmp_path, backend)) as client, ThreadPoolExecutor(2) as pool:
        service = client.app.state.service  # type: ignore[attr-defined]  # an application of Starlette's
        result_id = first(client)["id"]
        one = pool.submit(refine, client, result_id, {"to": "next"})
        wait_until(lambda: [running.stage for running in service.scheduler.running] == [2])
        two = pool.submit(refine, client, result_id, {"to": "next"})
        wait_until(lambda: service.admission._requests == 2)
        service.scheduler.give_up("lost")
        assert [each.result().json()["code"] for each in (one, two)] == ["not_ready"] * 2
        gate.set()


def test_a_deadline_gives_the_best_exit_so_far_to_who_computes_and_who_waits(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate, gate_before=2)
    with client_of(refinable(tmp_path, backend)) as client:
        result_id = first(client)["id"]
        answers = [refined(client, result_id, {"to": "final"}, "?deadline_ms=100") for _ in range(2)]
        gate.set()
        last = refined(client, result_id, {"to": "final"})
    assert [(each["exit"]["number"], each["exit"]["reason"]) for each in answers] == [(1, "deadline")] * 2
    assert last["exit"]["number"] == 3
    assert [stage for stage, _ in backend.batches] == [1, 2, 3]


def test_an_answer_at_its_deadline_is_what_refining_is_for(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate, gate_before=2)
    with client_of(refinable(tmp_path, backend)) as client:
        early = first(client, HARD, "?deadline_ms=200")
        assert early["exit"]["reason"] == "deadline"
        gate.set()
        assert refined(client, early["id"], {"to": "final"})["exit"]["number"] == 3
    assert [stage for stage, _ in backend.batches] == [1, 2, 3]


@pytest.mark.parametrize(
    ("wish", "status"),
    [({"to": "next"}, 403), ({"to": "final"}, 403), ({"min_confidence": 0.9}, 403), ({"to": 1}, 200)],
)
def test_what_would_be_computed_is_no_dearer_than_the_ceiling(tmp_path: Path, wish: object, status: int) -> None:
    backend = FakeBackend(script)
    with client_of(refinable(tmp_path, backend, ceiling="balanced")) as client:
        response = refine(client, first(client)["id"], wish)
        if status == 403:
            assert response.json()["code"] == "above_ceiling"
    assert response.status_code == status
    assert [stage for stage, _ in backend.batches] == [1]


def test_up_to_the_ceiling_confidence_can_be_asked_for(tmp_path: Path) -> None:
    with client_of(refinable(tmp_path, profile="fast", ceiling="balanced")) as client:
        medium = first(client, MEDIUM)
        assert medium["exit"]["number"] == 1
        assert refined(client, medium["id"], {"min_confidence": 0.6})["exit"]["number"] == 2
        assert refine(client, medium["id"], {"min_confidence": 0.75}).json()["code"] == "above_ceiling"


def test_it_takes_a_place_like_any_other_and_is_refused_where_there_is_none(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate, gate_before=2)
    with client_of(refinable(tmp_path, backend, queue_limit=1)) as client, ThreadPoolExecutor(1) as pool:
        result_id = first(client)["id"]
        inside = pool.submit(first, client, HARD)
        wait_until(lambda: metric(client, "dvt_in_flight_images") == 1)
        refused = refine(client, result_id, {"to": "next"})
        gate.set()
        inside.result()
        assert refined(client, result_id, {"to": "next"})["exit"]["number"] == 2
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1


def test_state_that_goes_just_before_it_is_taken_gives_the_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_by_a_newcomer(self: KeptWork, work: Work) -> None:
        self.take_all()

    service = refinable(tmp_path)
    with client_of(service) as client:
        result_id = first(client)["id"]
        monkeypatch.setattr(KeptWork, "claim", taken_by_a_newcomer)
        assert refine(client, result_id, {"to": "next"}).status_code == 410
        assert (service.admission.inside, service.admission.offered) == (0, 1)


def test_feedback_is_for_the_answer_that_was_given_last(tmp_path: Path) -> None:
    with client_of(refinable(tmp_path)) as client:
        result_id = first(client)["id"]
        label = refined(client, result_id, {"to": "final"})["predictions"][0]["label"]
        taken = client.post("/feedback", json={"id": result_id, "label": label}).json()
        exits = client.get("/feedback", headers=ADMIN).json()["exits"]
        assert refined(client, result_id, {"to": "next"})["exit"]["number"] == 3
    assert taken["correct"]
    assert [each["correct"] for each in exits] == [0, 0, 1]


def test_metrics_tell_what_was_really_computed(tmp_path: Path) -> None:
    with client_of(refinable(tmp_path)) as client:
        result_id = first(client)["id"]
        refined(client, result_id, {"to": "next"})
        refined(client, result_id, {"to": 2})
        refine(client, "0" * 32, {"to": "next"})
        assert metric(client, "dvt_gmacs_spent_total") == pytest.approx(GMACS[1])
        assert metric(client, "dvt_gmacs_saved_total") == pytest.approx(GMACS[2] - GMACS[0])
        assert metric(client, "dvt_gmacs_reused_total") == 0
        for found in ("resumed", "stored", "missed"):
            assert metric(client, f'dvt_reuse_total{{call="refine",found="{found}"}}') == 1


def test_a_certified_budget_promises_nothing_of_a_refined_answer(tmp_path: Path) -> None:
    with client_of(refinable(tmp_path, profiles=certified_profiles())) as client:
        client.put("/budget", json={"max_risk": {"disagreement": 0.05}}, headers=ADMIN)
        result = first(client)
        assert result["certificate"] is not None
        assert refined(client, result["id"], {"to": "final"})["certificate"] is None


def test_an_audited_answer_is_refined_from_what_its_audit_has_computed(tmp_path: Path) -> None:
    backend = FakeBackend(script)
    with client_of(refinable(tmp_path, backend, audit_share=1.0)) as client:
        result_id = first(client)["id"]
        assert refined(client, result_id, {"to": "final"})["exit"]["number"] == 3
    assert [stage for stage, _ in backend.batches] == [1, 2, 3]


def test_it_streams_the_exits_beyond_the_one_answered_with(tmp_path: Path) -> None:
    with client_of(refinable(tmp_path)) as client:
        result_id = first(client)["id"]
        texts = [
            refine(client, result_id, wish, headers=EVENTS).text
            for wish in ({"to": "final"}, {"to": 2}, {"to": "final"})
        ]
        gone = refine(client, "0" * 32, {"to": "final"}, headers=EVENTS)
    told = [[(each.name, each.data.get("exit", {}).get("number")) for each in parse(text)] for text in texts]
    assert told[0] == [("exit", 2), ("exit", 3), ("result", None), ("done", None)]
    assert told[1] == [("exit", 2), ("result", None), ("done", None)]
    assert told[2] == [("exit", 3), ("result", None), ("done", None)]
    assert [each.data["leaves"] for each in parse(texts[0])[:2]] == [False, True]
    assert {each.data["result"]["id"] for text in texts for each in parse(text) if each.name == "result"} == {result_id}
    assert (gone.status_code, gone.json()["code"]) == (410, "state_gone")


def test_who_waits_for_another_is_told_of_the_exits_on_the_way(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate, gate_before=3)
    service = refinable(tmp_path, backend)

    async def watch() -> tuple[str, str]:
        async with application_of(service) as app:
            classified = Exchange(app, "/classify", picture(EASY), ())
            await classified.ended
            path = f"/classify/{classified.json()['results'][0]['id']}/refine"
            one = Exchange(app, path, b'{"to": "final"}', EVENTS.items())
            await one.until(lambda: "event: exit" in one.text)
            two = Exchange(app, path, b'{"to": "final"}', EVENTS.items())
            await two.until(lambda: "event: exit" in two.text)
            gate.set()
            await asyncio.gather(one.ended, two.ended)
            return one.text, two.text

    for text in asyncio.run(watch()):
        assert [(each.name, each.data.get("exit", {}).get("number")) for each in parse(text)] == [
            ("exit", 2),
            ("exit", 3),
            ("result", None),
            ("done", None),
        ]
    assert [stage for stage, _ in backend.batches] == [1, 2, 3]


def test_a_client_that_stops_listening_leaves_the_state_for_the_next(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(script, gate=gate, gate_before=2)
    service = refinable(tmp_path, backend)

    async def leave() -> None:
        async with application_of(service) as app:
            classified = Exchange(app, "/classify", picture(EASY), ())
            await classified.ended
            path = f"/classify/{classified.json()['results'][0]['id']}/refine"
            gone = Exchange(app, path, b'{"to": "final"}', EVENTS.items())
            await gone.until(lambda: [running.stage for running in service.scheduler.running] == [2])
            gone.leave()
            await gone.ended
            gate.set()
            await gone.until(lambda: service.admission.idle and service.kept.slots == 1)
            assert [stage for stage, _ in backend.batches] == [1, 2]
            last = Exchange(app, path, b'{"to": "final"}', ())
            await last.ended
            assert last.json()["results"][0]["exit"]["number"] == 3

    asyncio.run(leave())
    assert [stage for stage, _ in backend.batches] == [1, 2, 3]


def test_kept_state_does_not_delay_a_drain(tmp_path: Path) -> None:
    backend = FakeBackend(sure_at({}))
    service = refinable(tmp_path, backend)
    with client_of(service) as client:
        first(client)
        service.admission.drain()
        wait_until(lambda: service.admission.idle)
    assert backend.slots_in_use == 0
