"""`auto` over HTTP: asked for, refused with the way out, and steered while requests come."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.service.cascades import (
    ADMIN,
    FakeBackend,
    client_of,
    make_service,
    picture,
    small_profiles,
    sure_at,
    wait_until,
)

AUTO = {"auto": {"p99_ms": 60_000.0, "floor": "fast", "ceiling": "accurate"}}
# Sure by 0.85 at the first exit: enough for `fast` and `balanced`, not for `accurate`.
FAIR = 7


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    backend = FakeBackend(lambda kind, stage: 0.85 if kind == FAIR and stage == 1 else sure_at({})(kind, stage))
    with client_of(make_service(tmp_path, backend, profiles=small_profiles())) as client:
        yield client


def test_it_can_be_asked_for_tried_and_put_back(client: TestClient) -> None:
    tried = client.put("/budget?dry_run=true", json=AUTO, headers=ADMIN).json()
    assert (tried["revision"], tried["resolved"]["profile"], tried["in_force"]["profile"]) == (
        1,
        "accurate",
        "balanced",
    )
    put = client.put("/budget", json=AUTO, headers=ADMIN)
    assert (put.status_code, put.json()["revision"], put.json()["request"]) == (200, 2, AUTO)
    again = client.put("/budget", json=client.get("/budget").json()["request"], headers=ADMIN)
    assert (again.json()["revision"], again.headers["ETag"]) == (2, '"2"')
    history = client.get("/budget/history", headers=ADMIN).json()["changes"]
    assert history[0]["request"] == AUTO


def test_it_goes_with_a_ceiling_for_requests(client: TestClient) -> None:
    put = client.put("/budget", json={**AUTO, "ceiling": "full"}, headers=ADMIN).json()
    assert (put["ceiling"], put["request"]) == ("full", {**AUTO, "ceiling": "full"})


@pytest.mark.parametrize(
    ("auto", "code", "says"),
    [
        ({"p99_ms": 0, "floor": "fast", "ceiling": "full"}, "invalid_parameter", "p99_ms"),
        ({"p99_ms": -1, "floor": "fast", "ceiling": "full"}, "invalid_parameter", "p99_ms"),
        ({"p99_ms": "50", "floor": "fast", "ceiling": "full"}, "invalid_parameter", "p99_ms"),
        ({"p99_ms": 50, "floor": "fast"}, "invalid_parameter", "ceiling"),
        ({"p99_ms": 50, "floor": "fast", "ceiling": "full", "p95_ms": 9}, "invalid_parameter", "p95_ms"),
        ({"p99_ms": 60_000, "floor": "full", "ceiling": "fast"}, "invalid_parameter", "swap them"),
        ({"p99_ms": 60_000, "floor": "turbo", "ceiling": "full"}, "unknown_profile", "this bundle has fast"),
        ({"p99_ms": 1e-9, "floor": "fast", "ceiling": "full"}, "budget_not_met", "cannot be held"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_with_the_way_out(
    client: TestClient, auto: dict[str, object], code: str, says: str
) -> None:
    refused = client.put("/budget", json={"auto": auto}, headers=ADMIN)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert says in refused.json()["detail"]
    assert client.get("/budget").json()["revision"] == 1


def test_an_infinite_objective_is_none(client: TestClient) -> None:
    body = json.dumps({"auto": {"p99_ms": float("inf"), "floor": "fast", "ceiling": "full"}})
    assert client.put("/budget", content=body, headers=ADMIN).status_code in (400, 422)


def test_two_forms_at_once_are_refused(client: TestClient) -> None:
    refused = client.put("/budget", json={**AUTO, "profile": "fast"}, headers=ADMIN)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
    assert "`auto`" in refused.json()["detail"]


def test_the_controller_moves_the_point_without_a_new_revision_and_answers_name_it(tmp_path: Path) -> None:
    backend = FakeBackend(lambda kind, stage: 0.85 if kind == FAIR and stage == 1 else sure_at({})(kind, stage))
    service = make_service(tmp_path, backend, profiles=small_profiles())
    with client_of(service) as client:
        assert client.put("/budget", json=AUTO, headers=ADMIN).json()["revision"] == 2
        easy = client.post("/classify", content=picture(FAIR)).json()
        assert easy["budget"] == {"revision": 2, "operating_point": 0, "point": 2, "profile": "accurate"}
        assert easy["results"][0]["exit"]["number"] == 2
        service.steering._work_s = lambda images: 1000.0  # A backlog that no point could work off in time.
        wait_until(lambda: client.get("/budget").json()["in_force"]["profile"] == "fast")
        degraded = client.post("/classify", content=picture(FAIR)).json()
        assert degraded["budget"] == {"revision": 2, "operating_point": 1, "point": 0, "profile": "fast"}
        assert degraded["results"][0]["exit"]["number"] == 1
        budget = client.get("/budget")
        assert (budget.headers["ETag"], budget.json()["request"]) == ('"2"', AUTO)
        assert budget.json()["resolved"] == budget.json()["in_force"]
        metrics = client.get("/metrics").text
        assert 'dvt_auto_switches_total{direction="down"} 1.0' in metrics
        assert "dvt_budget_gmacs 0.15" in metrics
        assert "dvt_budget_revision 2.0" in metrics
        other = client.put("/budget", json={"profile": "full"}, headers={**ADMIN, "If-Match": '"2"'})
        assert (other.status_code, other.json()["revision"]) == (200, 3)


def test_every_answer_is_told_to_the_controller_with_the_time_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(tmp_path, profiles=small_profiles())
    told: list[float] = []
    monkeypatch.setattr(service.steering, "answered", told.append)
    with client_of(service) as client:
        answers = [client.post("/classify", content=picture(1)).json() for _ in range(3)]
    totals = [answer["results"][0]["timing_ms"]["total"] for answer in answers]
    assert [1000 * seconds for seconds in told] == pytest.approx(totals, abs=0.001)


def test_who_is_inside_keeps_what_it_was_let_in_under(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(
        lambda kind, stage: 0.85 if kind == FAIR and stage == 1 else sure_at({})(kind, stage), gate=gate
    )
    service = make_service(tmp_path, backend, profiles=small_profiles())
    with client_of(service) as client, ThreadPoolExecutor(1) as pool:
        client.put("/budget", json=AUTO, headers=ADMIN)
        inside = pool.submit(client.post, "/classify", content=picture(FAIR))
        wait_until(lambda: service.scheduler.running != ())
        in_force = service.budget.in_force
        assert service.budget.operate(in_force.revision, in_force.points[0])
        gate.set()
        answer = inside.result().json()
    assert answer["budget"]["profile"] == "accurate"
    assert answer["results"][0]["exit"] | {"confidence": 0} == {
        "number": 2,
        "of": 3,
        "grid": 3,
        "confidence": 0,
        "threshold": 0.9,
        "reason": "confident",
    }


def test_a_bug_in_it_is_told_and_costs_nobody_an_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = make_service(tmp_path, profiles=small_profiles())

    def broken(images: int) -> float:
        raise KeyError("bug")

    service.steering._work_s = broken
    with client_of(service) as client:
        client.put("/budget", json=AUTO, headers=ADMIN)
        wait_until(lambda: "not changed by load any more" in caplog.text)
        assert client.post("/classify", content=picture(1)).status_code == 200
