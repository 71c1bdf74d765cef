"""`/feedback` over HTTP: labels that come later, from whoever asked, once each, and counted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.service.cascades import (
    ADMIN,
    LABELS,
    FakeBackend,
    bearer,
    certified_profiles,
    client_of,
    make_service,
    picture,
    sure_at,
    wait_until,
)

ANN, BEN = bearer("ann-key"), bearer("ben-key")
EASY, HARD = 4, 15


def label_of(kind: int, stage: int) -> int:
    """HARD is class 3 for the last exit, and something else before."""
    return 3 if kind == HARD and stage == 3 else kind % 3


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    keys = tmp_path / "keys"
    keys.write_text("ann ann-key\nben ben-key\n")
    service = make_service(
        tmp_path,
        FakeBackend(sure_at({}), label_of),
        profiles=certified_profiles(),
        secret_files={"api_keys": keys},
        audit_share=1.0,
        feedback_results=3,
    )
    with client_of(service) as client:
        yield client


def result_of(client: TestClient, kind: int = EASY, headers: dict[str, str] = ANN) -> str:
    (result,) = client.post("/classify", content=picture(kind), headers=headers).json()["results"]
    return str(result["id"])


def give(
    client: TestClient, result_id: str, label: str, headers: dict[str, str] = ANN
) -> tuple[int, dict[str, object]]:
    response = client.post("/feedback", json={"id": result_id, "label": label}, headers=headers)
    return response.status_code, response.json()


def test_a_label_is_taken_once_and_the_answer_says_whether_it_was_right(client: TestClient) -> None:
    result_id = result_of(client)
    assert give(client, result_id, LABELS[1]) == (
        200,
        {"id": result_id, "label": "bell", "predicted": "bell", "correct": True},
    )
    status, problem = give(client, result_id, LABELS[2])
    assert (status, problem["code"]) == (409, "feedback_given")
    assert 'dvt_feedback_total{correct="true",exit="1"} 1.0' in client.get("/metrics", headers=ANN).text
    assert 'dvt_feedback_total{correct="false",exit="1"} 0.0' in client.get("/metrics", headers=ANN).text


def test_a_wrong_key_finds_no_such_result_before_and_after_its_owner_spoke(client: TestClient) -> None:
    result_id = result_of(client)
    unknown = give(client, "0" * 32, LABELS[0], BEN)
    for headers in (BEN, ADMIN):
        status, problem = give(client, result_id, LABELS[0], headers)
        assert (status, problem["code"]) == (404, "unknown_result")
        assert problem["detail"] == unknown[1]["detail"]
    assert give(client, result_id, LABELS[0])[0] == 200
    assert give(client, result_id, LABELS[0], BEN)[1]["detail"] == unknown[1]["detail"]
    assert client.post("/feedback", json={"id": result_id, "label": "cat"}).status_code == 401


def test_the_oldest_results_are_forgotten(client: TestClient) -> None:
    ids = [result_of(client) for _ in range(4)]
    assert give(client, ids[0], LABELS[0])[1]["code"] == "unknown_result"
    assert [give(client, result_id, LABELS[0])[0] for result_id in ids[1:]] == [200] * 3
    assert client.get("/feedback", headers=ADMIN).json()["remembered"] == 3


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"{", 400, "bad_json"),
        (b"[]", 422, "invalid_parameter"),
        (b"{}", 422, "invalid_parameter"),
        (b'{"id": "a"}', 422, "invalid_parameter"),
        (b'{"id": 1, "label": "cat"}', 422, "invalid_parameter"),
        (b'{"id": "a", "label": "cat", "more": 1}', 422, "invalid_parameter"),
        (b'{"id": "a", "label": "zebra"}', 422, "invalid_parameter"),
        (b'{"id": "' + b"a" * 65 + b'", "label": "cat"}', 422, "invalid_parameter"),
        (b'{"id": "a", "label": "' + b"a" * 5000 + b'"}', 413, "body_too_large"),
        (b'{"id": "a", "label": "cat"}', 404, "unknown_result"),
    ],
)
def test_what_makes_no_sense_is_refused(client: TestClient, body: bytes, status: int, code: str) -> None:
    response = client.post("/feedback", content=body, headers=ANN)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_the_admin_reads_how_often_answers_were_right_and_what_the_last_exit_had_said(client: TestClient) -> None:
    for kind, label in ((HARD, 3), (EASY, 1), (EASY, 2)):
        result_id = result_of(client, kind)
        wait_until(lambda: "dvt_audits_pending_images 0.0" in client.get("/metrics", headers=ANN).text)
        assert give(client, result_id, LABELS[label])[0] == 200
    assert client.get("/feedback", headers=ANN).json()["code"] == "forbidden"
    first, *others = client.get("/feedback", headers=ADMIN).json()["exits"]
    assert first == {
        "number": 1,
        "labelled": 3,
        "correct": 1,
        "accuracy": pytest.approx(1 / 3),
        "audited": 3,
        "lost": 1,
        "gained": 0,
    }
    assert [(each["labelled"], each["accuracy"]) for each in others] == [(0, None)] * 2


def test_labels_change_no_budget(client: TestClient) -> None:
    before = client.get("/budget", headers=ANN).json()
    for _ in range(30):
        assert give(client, result_of(client), LABELS[2])[0] == 200
    assert client.get("/budget", headers=ANN).json() == before


def test_without_keys_the_address_that_asked_may_tell(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path)) as client:
        assert give(client, result_of(client, headers={}), LABELS[0], {})[0] == 200


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, feedback_results=0)) as client:
        assert give(client, result_of(client, headers={}), LABELS[0], {})[1]["code"] == "unknown_result"
