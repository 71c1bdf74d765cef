"""What holds for every way in holds for `/v2`: budget, audits, guard, keys, overload, drain, statistics."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.api.deps import Service
from tests.integration.infer_requests import INFER, exits, files, tensors
from tests.service.cascades import (
    ADMIN,
    FakeBackend,
    bearer,
    certified_profiles,
    client_of,
    make_service,
    picture,
    small_profiles,
    sure_at,
    wait_until,
)

EASY, MEDIUM, HARD = 4, 9, 14


@pytest.fixture
def service(tmp_path: Path) -> Service:
    backend = FakeBackend(sure_at({EASY: 1, MEDIUM: 2, HARD: 3}))
    return make_service(tmp_path, backend, profiles=small_profiles())


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(service) as client:
        yield client


def test_it_answers_by_the_budget_and_below_the_ceiling(tmp_path: Path) -> None:
    backend = FakeBackend(lambda kind, stage: 0.5)
    with client_of(make_service(tmp_path, backend, profiles=small_profiles(), ceiling="balanced")) as client:
        assert exits(client.post(INFER, json=files(HARD)).json()) == [3]
        client.put("/budget", json={"profile": "fast"}, headers=ADMIN)
        answer = client.post(INFER, json=files(HARD)).json()
        assert (exits(answer), answer["parameters"]["profile"]) == ([1], "fast")
        refused = client.post(INFER, json={**files(HARD), "parameters": {"profile": "full"}})
        assert (refused.status_code, set(refused.json())) == (403, {"error"})


def test_images_are_audited_as_those_of_classify_are(tmp_path: Path) -> None:
    service = make_service(tmp_path, profiles=certified_profiles(), audit_share=1.0)
    with client_of(service) as client:
        client.put("/budget", json={"max_risk": {"disagreement": 0.05}}, headers=ADMIN)
        assert exits(client.post(INFER, json=files(EASY)).json()) == [1]
        wait_until(lambda: service.audit.pending == 0)
        service.audit.settle()
        assert client.get("/audit").json()["certificates"][1]["audited"] == 1


def test_the_guard_counts_them(tmp_path: Path) -> None:
    backend = FakeBackend(sure_at({HARD: 3}), stage_seconds=0.01)
    with client_of(make_service(tmp_path, backend, profiles=small_profiles(), guard_share=0.0)) as client:
        found = tensors(client.post(INFER, json=files(HARD)).json())
    assert found["reason"] == ["guard"]


def test_a_label_may_be_sent_for_its_id(client: TestClient) -> None:
    (result_id,) = tensors(client.post(INFER, json=files(EASY)).json())["id"]
    assert client.post("/feedback", json={"id": result_id, "label": "apple"}).json()["correct"]


def test_an_answer_is_refined_by_its_id(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, profiles=small_profiles(), refine_seconds=60)) as client:
        (result_id,) = tensors(client.post(INFER, json=files(EASY)).json())["id"]
        refined = client.post(f"/classify/{result_id}/refine", json={"to": 2})
        assert refined.json()["results"][0]["exit"]["number"] == 2


def test_keys_are_asked_for_in_its_own_form_and_health_is_open(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, api_keys="one", profiles=small_profiles())) as client:
        for method, path in (("GET", "/v2"), ("POST", INFER), ("GET", "/v2/models/stats"), ("GET", "/v2/nothing")):
            refused = client.request(method, path, headers=bearer("two"))
            assert (refused.status_code, set(refused.json())) == (401, {"error"}), path
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert client.post(INFER, json=files(EASY), headers=bearer("one")).status_code == 200
        assert client.get("/v2/health/live").status_code == client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2/models/small-bundle/ready").status_code == 401


def test_a_full_service_refuses_and_says_when_to_come_again(tmp_path: Path) -> None:
    gate = threading.Event()
    service = make_service(tmp_path, FakeBackend(sure_at({}), gate=gate), queue_limit=1)
    with client_of(service) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, INFER, json=files(EASY))
        wait_until(lambda: service.admission.inside == 1)
        refused = client.post(INFER, json=files(EASY))
        gate.set()
        assert (refused.status_code, set(refused.json())) == (503, {"error"})
        assert int(refused.headers["Retry-After"]) >= 1
        assert first.result().status_code == 200


def test_a_drain_answers_who_is_inside_and_refuses_who_comes(tmp_path: Path) -> None:
    gate = threading.Event()
    service = make_service(tmp_path, FakeBackend(sure_at({}), gate=gate))
    with client_of(service) as client, ThreadPoolExecutor(1) as pool:
        inside = pool.submit(client.post, INFER, json=files(EASY))
        wait_until(lambda: service.admission.inside == 1)
        service.admission.drain()
        refused = client.post(INFER, json=files(EASY))
        assert (refused.status_code, refused.json()) == (
            503,
            {"error": "the service is shutting down; try again in a moment"},
        )
        assert not service.admission.idle
        for path in ("/v2/health/ready", "/v2/models/small-bundle/ready"):
            assert client.get(path).status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        assert client.post("/v2/repository/index").json()[0]["state"] == "UNAVAILABLE"
        assert client.post("/v2/repository/index", json={"ready": True}).json() == []
        gate.set()
        assert inside.result().status_code == 200
        wait_until(lambda: service.admission.idle)


def test_a_dead_engine_is_neither_ready_nor_alive(client: TestClient, service: Service) -> None:
    service.scheduler.stop()
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/small-bundle/ready"):
        assert (client.get(path).status_code, set(client.get(path).json())) == (503, {"error"})
    assert client.post(INFER, json=files(EASY)).status_code == 503


def test_statistics_are_what_was_measured_of_both_ways_in(client: TestClient, service: Service) -> None:
    client.post(INFER, json=files(EASY, HARD))
    client.post("/classify", content=picture(MEDIUM))
    client.post("/classify", content=b"no image")
    client.get("/classify")  # No request to classify anything.
    (stats,) = client.get("/v2/models/small-bundle/versions/1/stats").json()["model_stats"]
    assert (stats["name"], stats["version"]) == ("small-bundle", "1")
    assert stats["inference_count"] == 3
    batches = {each["batch_size"]: each["compute_infer"]["count"] for each in stats["batch_stats"]}
    images = sum(size * count for size, count in batches.items())
    assert (images, stats["execution_count"]) == (
        1 + 3 + 2,
        sum(batches.values()),
    )  # Stages that each ran.
    assert stats["last_inference"] > 1_700_000_000_000
    found = stats["inference_stats"]
    counts = {name: each["count"] for name, each in found.items()}
    assert counts == {"success": 2, "fail": 1, "queue": 3, "compute_input": 3, "compute_infer": 3, "compute_output": 0}
    assert service.metrics.images("read").count == 3
    compute = service.metrics.images("compute")
    assert found["compute_infer"]["ns"] == round(compute.seconds * 1e9) > 0
    assert found["success"]["ns"] > found["compute_input"]["ns"] > 0
    assert client.get("/v2/models/stats").json() == client.get("/v2/models/small-bundle/stats").json()


def test_a_bundle_that_was_never_profiled_has_no_gmacs(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path)) as client:
        names = [output["name"] for output in client.get("/v2/models/small-bundle").json()["outputs"]]
        assert "gmacs" not in names
        assert list(tensors(client.post(INFER, json=files(EASY)).json())) == names
        refused = client.post(INFER, json={**files(EASY), "outputs": [{"name": "gmacs"}]})
        assert (refused.status_code, "no output 'gmacs'" in refused.json()["error"]) == (400, True)


def test_the_documentation_knows_its_calls(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v2", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer", "/v2/models/stats"):
        assert path in paths
    (model, version) = paths["/v2/models/{model}/versions/{version}/config"]["get"]["parameters"]
    assert [(each["name"], each["in"]) for each in (model, version)] == [("model", "path"), ("version", "path")]
