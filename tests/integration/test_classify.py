"""`POST /classify` as a client sees it: body forms, answers, parameters."""

import base64
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.engine.job import Job
from tests.service.cascades import (
    ADMIN,
    GMACS,
    LABELS,
    WEIGHTS_SHA256,
    FakeBackend,
    certified_profiles,
    client_of,
    make_service,
    picture,
    small_profiles,
    sure_at,
)

EASY, MEDIUM, HARD = 4, 9, 14
SCRIPT = sure_at({EASY: 1, MEDIUM: 2, HARD: 3})


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with client_of(make_service(tmp_path, FakeBackend(SCRIPT), profiles=small_profiles())) as client:
        yield client


def test_an_answer_quotes_what_is_certified_of_the_budget_that_decided_it(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, FakeBackend(SCRIPT), profiles=certified_profiles())) as client:

        def certificate(query: str = "", kind: int = EASY) -> object:
            answer = client.post(f"/classify{query}", content=picture(kind)).json()
            return answer["results"][0]["certificate"]

        assert certificate() is None, "nothing is certified of `balanced`"
        put = client.put("/budget", json={"max_risk": {"disagreement": 0.01}}, headers=ADMIN).json()
        promised = {"risk": "disagreement", "epsilon": 0.01, "delta": 0.0125}
        assert put["resolved"]["certificate"] == promised
        assert certificate() == certificate(kind=HARD) == certificate("?priority=1") == promised
        for query in ("?max_exit=2", "?min_confidence=0.5", "?profile=full", "?thresholds=0.9,0.8"):
            assert certificate(query) is None, query


def test_what_a_request_was_is_gone_with_it_and_waits_for_no_garbage_collection(client: TestClient) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            assert client.post("/classify", content=picture(MEDIUM)).status_code == 200
        left = sum(type(each) is Job for each in gc.get_objects())
    finally:
        gc.enable()
    assert left <= 4, "a thread that waits may still hold its last"


def test_an_answer_has_every_promised_field(client: TestClient) -> None:
    response = client.post("/classify", files={"image": picture(EASY)}, headers={"X-Request-ID": "mine-1"})
    assert response.status_code == 200
    answer = response.json()
    (result,) = answer.pop("results")
    assert answer == {
        "request_id": "mine-1",
        "model": {"name": "small-bundle", "sha256": WEIGHTS_SHA256},
        "budget": {"revision": 1, "operating_point": 0, "point": 1, "profile": "balanced"},
    }
    assert response.headers["X-Request-ID"] == "mine-1"
    assert set(result) == {"id", "predictions", "exit", "compute", "timing_ms", "certificate"}
    assert len(result["id"]) == 32
    assert result["predictions"][0] == {"label": "apple", "index": 0, "probability": pytest.approx(0.97)}
    assert [prediction["label"] for prediction in result["predictions"]] == list(LABELS)
    assert result["exit"] == {
        "number": 1,
        "of": 3,
        "grid": 2,
        "confidence": pytest.approx(0.97),
        "threshold": 0.8,
        "reason": "confident",
    }
    assert result["compute"] == {"gmacs": 0.1, "full_gmacs": 1.0, "static_gmacs": 0.8, "saved": pytest.approx(0.9)}
    assert set(result["timing_ms"]) == {"decode", "queue", "stages", "total"}
    assert len(result["timing_ms"]["stages"]) == 1
    assert result["certificate"] is None


def test_results_are_in_the_order_of_the_images_though_they_leave_at_different_exits(client: TestClient) -> None:
    files = [("image", picture(kind)) for kind in (HARD, EASY, MEDIUM)]
    results = client.post("/classify", files=files).json()["results"]
    assert [result["exit"]["number"] for result in results] == [3, 1, 2]
    assert [result["exit"]["reason"] for result in results] == ["final", "confident", "confident"]
    assert [result["compute"]["gmacs"] for result in results] == [GMACS[2], GMACS[0], GMACS[1]]
    assert [len(result["timing_ms"]["stages"]) for result in results] == [3, 1, 2]
    assert results[0]["exit"]["threshold"] is None


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "application/json",
        "multipart/form-data; boundary=x",
        "nonsense",
        None,
    ],
)
def test_a_raw_image_is_known_by_its_bytes_whatever_the_content_type(
    client: TestClient, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = client.post("/classify", content=picture(MEDIUM), headers=headers)
    assert response.status_code == 200
    assert response.json()["results"][0]["exit"]["number"] == 2


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", None])
def test_json_takes_base64_with_or_without_line_feeds(client: TestClient, content_type: str | None) -> None:
    plain = base64.b64encode(picture(EASY)).decode()
    wrapped = base64.encodebytes(picture(HARD)).decode()
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = f'{{"images": ["{plain}", "{wrapped}"]}}'.replace("\n", "\\n")
    response = client.post("/classify", content=body, headers=headers)
    assert [result["exit"]["number"] for result in response.json()["results"]] == [1, 3]


def test_an_image_that_fails_does_not_fail_the_others(client: TestClient) -> None:
    files = [("image", picture(EASY)), ("image", b"no image at all"), ("image", picture(HARD))]
    response = client.post("/classify", files=files)
    assert response.status_code == 200
    first, second, third = response.json()["results"]
    assert (first["exit"]["number"], third["exit"]["number"]) == (1, 3)
    assert (second["error"]["status"], second["error"]["code"]) == (415, "unsupported_image")


def test_when_every_image_fails_the_status_is_that_of_the_first_and_all_are_listed(client: TestClient) -> None:
    response = client.post("/classify", files=[("image", b""), ("image", b"no image")])
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == "empty_image"
    assert [error["code"] for error in problem["errors"]] == ["empty_image", "unsupported_image"]


@pytest.mark.parametrize(
    ("query", "kind", "number", "reason"),
    [
        ("profile=full", EASY, 3, "final"),
        ("profile=fast", MEDIUM, 2, "confident"),
        ("thresholds=null,0.5", EASY, 2, "confident"),
        ("thresholds=0.2,0.2", HARD, 1, "confident"),
        ("min_confidence=0.98", EASY, 3, "final"),
        ("min_confidence=0.2", HARD, 1, "confident"),
        ("max_exit=1", HARD, 1, "max_exit"),
        ("max_exit=2", HARD, 2, "max_exit"),
        ("max_exit=3", HARD, 3, "final"),
        ("profile=full&max_exit=2", EASY, 2, "max_exit"),
        ("deadline_ms=60000&priority=1", MEDIUM, 2, "confident"),
    ],
)
def test_a_request_can_say_when_to_leave(client: TestClient, query: str, kind: int, number: int, reason: str) -> None:
    (result,) = client.post(f"/classify?{query}", content=picture(kind)).json()["results"]
    assert (result["exit"]["number"], result["exit"]["reason"]) == (number, reason)


def test_top_k_is_cut_at_the_number_of_classes(client: TestClient) -> None:
    for top_k, expected in ((1, 1), (2, 2), (99, 4)):
        (result,) = client.post(f"/classify?top_k={top_k}", content=picture(EASY)).json()["results"]
        assert len(result["predictions"]) == expected


def test_a_bundle_without_profiles_serves_the_whole_cascade_and_knows_no_costs(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, FakeBackend(SCRIPT))) as client:
        answer = client.post("/classify", content=picture(EASY)).json()
        assert answer["budget"] == {"revision": 1, "operating_point": 0, "point": None, "profile": None}
        assert answer["results"][0]["exit"]["reason"] == "final"
        assert answer["results"][0]["compute"] == dict.fromkeys(("gmacs", "full_gmacs", "static_gmacs", "saved"))
        assert (
            client.post("/classify?thresholds=0.5,0.5", content=picture(EASY)).json()["results"][0]["exit"]["number"]
            == 1
        )
        assert client.post("/classify?profile=fast", content=picture(EASY)).json()["code"] == "unknown_profile"


def test_a_cascade_of_one_exit_has_an_empty_threshold_vector(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, FakeBackend(SCRIPT, stages=1))) as client:
        (result,) = client.post("/classify?thresholds=", content=picture(EASY)).json()["results"]
        assert (result["exit"]["number"], result["exit"]["of"], result["exit"]["reason"]) == (1, 1, "final")
