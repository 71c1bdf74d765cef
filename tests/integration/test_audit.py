"""The audit over HTTP: who is drawn, what an operator sees of it, and what a broken certificate changes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.deps import Service
from service.settings import Settings
from tests.service.cascades import (
    ADMIN,
    FakeBackend,
    certified_profiles,
    client_of,
    make_service,
    picture,
    scheduler_of,
    sure_at,
    wait_until,
)

AGREES, FICKLE, DEEP = 4, 6, 15
AT_5 = {"max_risk": {"disagreement": 0.05}}


def label_of(kind: int, stage: int) -> int:
    """At the last exit FICKLE is something else."""
    return (kind + (kind == FICKLE and stage == 3)) % 4


def audited_service(folder: Path, backend: FakeBackend | None = None, **settings: Any) -> Service:
    backend = backend or FakeBackend(sure_at({DEEP: 3}), label_of)
    settings = {"audit_share": 1.0, "audit_fallback": True, **settings}
    return make_service(folder, backend, profiles=certified_profiles(), **settings)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return audited_service(tmp_path)


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(service) as client:
        assert client.put("/budget", json=AT_5, headers=ADMIN).json()["revision"] == 2
        yield client


def settled(client: TestClient, service: Service) -> dict[str, object]:
    """What the audit says of the certificate in force, nothing being on its way."""
    wait_until(lambda: service.audit.pending == 0)
    service.audit.settle()
    found: dict[str, object] = client.get("/audit").json()["certificates"][1]
    return found


def break_it(client: TestClient, service: Service) -> None:
    for _ in range(10):
        assert client.post("/classify", content=picture(FICKLE)).status_code == 200
    assert settled(client, service)["broken_at"] is not None


def test_one_image_in_a_hundred_is_drawn_unless_an_operator_says_otherwise() -> None:
    assert Settings().audit_share == 0.01
    assert not Settings().audit_fallback


def test_what_left_early_and_what_reached_the_last_exit_are_both_seen(client: TestClient, service: Service) -> None:
    for kind in (AGREES, FICKLE, DEEP):
        (result,) = client.post("/classify", content=picture(kind)).json()["results"]
        assert result["certificate"] == {"risk": "disagreement", "epsilon": 0.05, "delta": 0.0125}
    found = settled(client, service)
    assert (found["audited"], found["disagreed"], found["left_out"]) == (3, 1, 0)
    text = client.get("/metrics").text
    assert 'dvt_audits_total{found="agreed"} 2.0' in text
    assert "dvt_audits_pending_images 0.0" in text
    assert 'dvt_exits_total{exit="3",reason="final"} 1.0' in text, "an audit is no answer"


@pytest.mark.parametrize("own", ["profile=fast", "thresholds=0.6,0.5", "min_confidence=0.5", "max_exit=2"])
def test_who_leaves_by_parameters_of_his_own_is_not_drawn(client: TestClient, service: Service, own: str) -> None:
    assert client.post(f"/classify?{own}", content=picture(FICKLE)).status_code == 200
    assert settled(client, service)["audited"] == 0
    assert 'dvt_audits_total{found="disagreed"} 0.0' in client.get("/metrics").text


def test_what_a_deadline_decides_is_left_out(tmp_path: Path) -> None:
    gate = threading.Event()
    service = audited_service(tmp_path, FakeBackend(sure_at({DEEP: 3}), label_of, gate=gate, gate_before=2))
    with client_of(service) as client:
        client.put("/budget", json=AT_5, headers=ADMIN)
        (result,) = client.post("/classify?deadline_ms=200", content=picture(DEEP)).json()["results"]
        assert (result["exit"]["reason"], result["certificate"]) == ("deadline", None)
        gate.set()
        found = settled(client, service)
        assert (found["audited"], found["disagreed"], found["left_out"]) == (0, 0, 1)


def test_an_image_that_cannot_be_read_is_no_sample(client: TestClient, service: Service) -> None:
    assert client.post("/classify", content=b"no image").status_code == 415
    found = settled(client, service)
    assert (found["audited"], found["left_out"]) == (0, 0)


def test_an_answer_waits_for_no_audit_and_an_audit_takes_nobodys_place(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(sure_at({DEEP: 3}), label_of, gate=gate, gate_before=2, lanes=2)
    service = audited_service(tmp_path, backend, queue_limit=1)
    with client_of(service) as client:
        for _ in range(3):
            assert client.post("/classify", content=picture(AGREES)).status_code == 200
        assert service.audit.pending == 1, "as many as there are places, the others are skipped"
        assert 'dvt_audits_total{found="skipped"} 2.0' in client.get("/metrics").text
        assert "dvt_in_flight_images 0.0" in client.get("/metrics").text
        gate.set()
        wait_until(lambda: service.audit.pending == 0)


def test_where_memory_is_the_limit_audits_have_a_part_of_it(tmp_path: Path) -> None:
    service = audited_service(tmp_path, FakeBackend(sure_at({}), slots=3), state_bytes=15_000)
    assert service.admission.limits.permits == 2
    assert audited_service(tmp_path, FakeBackend(sure_at({}), slots=3), audit_share=0.0).admission.limits.permits == 3


def test_with_memory_for_one_image_it_serves_without_an_audit(tmp_path: Path) -> None:
    service = audited_service(tmp_path, FakeBackend(sure_at({}), slots=1), state_bytes=5000)
    with client_of(service) as client:
        for _ in range(3):
            assert client.post("/classify", content=picture(AGREES)).status_code == 200
        assert 'dvt_audits_total{found="skipped"} 0.0' in client.get("/metrics").text


def test_a_broken_certificate_is_quoted_no_more_and_the_next_safer_profile_stands_in(
    client: TestClient, service: Service
) -> None:
    tag = client.get("/budget").headers["ETag"]
    before = client.post("/classify", content=picture(AGREES)).json()["budget"]
    break_it(client, service)

    budget = client.get("/budget").json()
    assert (budget["revision"], budget["request"]) == (2, AT_5)
    assert (budget["resolved"]["certificate"], budget["in_force"]["certificate"]) == (None, None)
    assert "0.05" in budget["resolved"]["uncertified"]
    assert budget["in_force"]["profile"] == "balanced"
    answer = client.post("/classify", content=picture(AGREES)).json()
    assert before == {"revision": 2, "operating_point": 0, "point": None, "profile": None}
    assert answer["budget"] == {"revision": 2, "operating_point": 1, "point": 1, "profile": "balanced"}
    assert answer["results"][0]["certificate"] is None

    changes = client.get("/budget/history", headers=ADMIN).json()["changes"]
    assert [(change["revision"], change["by"]) for change in changes[:2]] == [(2, "audit"), (2, changes[1]["by"])]
    assert "fell back to the profile 'balanced'" in changes[0]["note"]
    assert changes[1]["note"] is None
    assert 'dvt_certificate_broken{epsilon="0.05",risk="disagreement"} 1.0' in client.get("/metrics").text
    assert "dvt_budget_revision 2.0" in client.get("/metrics").text

    refused = client.put("/budget", json={"max_risk": {"disagreement": 0.03}}, headers={**ADMIN, "If-Match": tag})
    assert refused.status_code == 200, "nothing that an operator asked for has changed, so his tag is still good"
    assert refused.json()["in_force"]["certificate"]["epsilon"] == 0.01


def test_without_the_fallback_the_budget_stays_and_promises_nothing(tmp_path: Path) -> None:
    service = audited_service(tmp_path, audit_fallback=False)
    with client_of(service) as client:
        client.put("/budget", json=AT_5, headers=ADMIN)
        thresholds = client.get("/budget").json()["in_force"]["thresholds"]
        break_it(client, service)
        budget = client.get("/budget").json()
        assert budget["in_force"]["thresholds"] == thresholds
        assert budget["in_force"]["certificate"] is None
        (result,) = client.post("/classify", content=picture(AGREES)).json()["results"]
        assert result["certificate"] is None


def test_images_inside_when_it_breaks_do_not_quote_it_either(tmp_path: Path) -> None:
    gate = threading.Event()
    service = audited_service(tmp_path, FakeBackend(sure_at({DEEP: 2}), label_of))
    with client_of(service) as client:
        client.put("/budget", json=AT_5, headers=ADMIN)
        answers: list[dict[str, object]] = []
        backend = scheduler_of(service)._backend
        assert isinstance(backend, FakeBackend)
        for _ in range(10):
            client.post("/classify", content=picture(FICKLE))
        wait_until(lambda: service.audit.pending == 0)
        backend.gate = gate
        inside = threading.Thread(
            target=lambda: answers.extend(client.post("/classify", content=picture(AGREES)).json()["results"])
        )
        inside.start()
        wait_until(lambda: service.scheduler.running != ())
        service.audit.settle()
        gate.set()
        inside.join()
        assert answers[0]["certificate"] is None


def test_all_of_it_outlives_a_restart(tmp_path: Path) -> None:
    for restarted in (False, True):
        service = audited_service(tmp_path)
        with client_of(service) as client:
            if not restarted:
                client.put("/budget", json=AT_5, headers=ADMIN)
                break_it(client, service)
            budget = client.get("/budget").json()
            assert (budget["revision"], budget["in_force"]["profile"]) == (2, "balanced")
            assert settled(client, service)["broken_at"] is not None
            assert 'dvt_certificate_broken{epsilon="0.05",risk="disagreement"} 1.0' in client.get("/metrics").text


def test_what_was_found_last_is_written_when_the_service_ends(tmp_path: Path) -> None:
    with client_of(audited_service(tmp_path)) as client:
        client.put("/budget", json=AT_5, headers=ADMIN)
        client.post("/classify", content=picture(FICKLE))
    service = audited_service(tmp_path)
    with client_of(service) as client:
        found = settled(client, service)
        assert (found["audited"], found["left_out"]) in ((1, 0), (0, 1))
