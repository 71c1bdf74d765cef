"""What an operator meets: budget, keys, hosts, health, metrics, documentation, overload."""

import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.api.deps import Service
from service.api.keys import make_admin_key
from tests.service.cascades import (
    ADMIN_KEY,
    LABELS,
    FakeBackend,
    bearer,
    client_of,
    make_service,
    picture,
    small_profiles,
    sure_at,
    wait_until,
)

EASY, HARD = 4, 14


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path, FakeBackend(sure_at({EASY: 1, HARD: 3})), profiles=small_profiles())


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(service) as client:
        yield client


def test_an_admin_key_is_made_at_first_start_for_its_owners_eyes(tmp_path: Path) -> None:
    for _ in range(2):
        service = make_service(tmp_path, admin_key="", profiles=small_profiles())
        file = tmp_path / "state" / "admin-key"
        assert file.stat().st_mode & 0o777 == 0o600
        with client_of(service) as client:
            headers = bearer(file.read_text().strip())
            assert client.put("/budget", json={"profile": "fast"}, headers=headers).status_code == 200


def test_services_that_start_at_once_in_one_folder_have_one_admin_key(tmp_path: Path) -> None:
    log = logging.getLogger("test")
    with ThreadPoolExecutor(8) as pool:
        for number in range(50):
            folder = tmp_path / str(number)
            folder.mkdir()
            started = [pool.submit(make_admin_key, folder, log) for _ in range(8)]
            keys = {each.result().read_text() for each in started}
            assert len(keys) == 1
            assert len(keys.pop()) > 32
            assert [path.name for path in folder.iterdir()] == ["admin-key"]


def test_with_keys_everything_but_health_needs_one(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, api_keys="one,two", profiles=small_profiles())) as client:
        paths = ("/budget", "/budget/frontier", "/model", "/metrics", "/docs", "/openapi.json", "/nothing")
        for path in paths:
            assert client.get(path).status_code == 401, path
            assert client.get(path, headers=bearer("three")).status_code == 401, path
        assert client.post("/classify", content=picture(EASY)).status_code == 401
        assert client.get("/health/live").status_code == client.get("/health/ready").status_code == 200
        for key in ("one", "two", ADMIN_KEY):
            assert client.post("/classify", content=picture(EASY), headers=bearer(key)).status_code == 200
        refused = client.put("/budget", json={"profile": "fast"}, headers=bearer("one"))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_metrics_have_a_switch_of_their_own(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, api_keys="one", metrics_public=True)) as client:
        assert client.get("/metrics").status_code == 200
        assert client.get("/model").status_code == 401


def test_a_key_is_asked_for_before_the_body_is_read(tmp_path: Path) -> None:
    sent: list[int] = []

    def body() -> Iterator[bytes]:
        for number in range(3):
            sent.append(number)
            yield bytes(10)

    service = make_service(tmp_path, api_keys="one")
    with client_of(service) as client:
        took: list[int] = []
        service.admission.body = lambda: took.append(1)  # type: ignore[method-assign,assignment,return-value]
        assert client.post("/classify", content=body()).status_code == 401
        assert client.put("/budget", content=body()).status_code == 401
        assert took == []


def test_a_key_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# clients\nalice first-key\n")
    with client_of(make_service(tmp_path, secret_files={"api_keys": file})) as client:

        def status(key: str) -> int:
            return client.get("/model", headers=bearer(key)).status_code

        assert (status("first-key"), status("second-key"), status("alice")) == (200, 401, 401)
        file.write_text("alice second-key  # rotated\n")
        assert (status("first-key"), status("second-key")) == (401, 200)
        file.unlink()
        assert (status("second-key"), status("third")) == (200, 401)
        file.write_text("")
        assert (status("second-key"), status("")) == (401, 401)


def test_a_host_off_the_list_is_refused(client: TestClient) -> None:
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        response = client.get("/model", headers={"Host": host})
        assert (response.status_code, response.json()["code"]) == (421, "host_not_allowed"), host
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"):
        assert client.get("/model", headers={"Host": host}).status_code == 200, host


def test_every_answer_has_its_security_headers_and_none_invites_other_origins(client: TestClient) -> None:
    for response in (client.get("/model"), client.get("/nothing"), client.get("/model", headers={"Host": "evil"})):
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["X-Request-ID"]


def test_a_request_id_that_could_forge_a_log_line_is_not_taken_over(client: TestClient) -> None:
    response = client.get("/model", headers={"X-Request-ID": "a b=c"})
    assert response.headers["X-Request-ID"] != "a b=c"


def test_the_model_says_what_is_served(client: TestClient) -> None:
    model = client.get("/model").json()
    assert model["name"] == "small-bundle"
    assert model["labels"] == list(LABELS)
    assert [(exit_["number"], exit_["grid"], exit_["gmacs"]) for exit_ in model["exits"]] == [
        (1, 2, 0.1),
        (2, 3, 0.3),
        (3, 4, 1.0),
    ]
    assert model["worst_case"] == {"gmacs": 1.0, "state_bytes": 5000}
    assert model["profiles"] == ["fast", "balanced", "accurate", "full"]


def test_docs_work_without_the_internet_and_without_inline_scripts(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script>" not in page.text
    assert "'unsafe-inline'" not in page.headers["Content-Security-Policy"]
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png", "start.js"):
        assert f"docs/{asset}" in page.text
        assert client.get(f"/docs/{asset}").status_code == 200


def test_the_schema_knows_every_path_form_and_error(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/classify", "/budget", "/budget/frontier", "/model", "/metrics"} <= set(schema["paths"])
    classify = schema["paths"]["/classify"]["post"]
    assert set(classify["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/octet-stream",
        "application/json",
    }
    assert {parameter["name"] for parameter in classify["parameters"]} == {
        "top_k",
        "profile",
        "thresholds",
        "min_confidence",
        "max_exit",
        "deadline_ms",
        "priority",
    }
    assert "HTTPValidationError" not in str(schema)
    shapes = schema["components"]["schemas"]
    assert {"Problem", "BudgetBody", "ClassifyResponse"} <= set(shapes)
    referred_to = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(schema)))
    assert referred_to <= set(shapes)
    assert "MaxRisk" in referred_to


def test_metrics_count_exits_costs_and_refusals(client: TestClient) -> None:
    for kind in (EASY, EASY, HARD):
        client.post("/classify", content=picture(kind))
    client.post("/classify", content=b"no image")
    text = client.get("/metrics").text
    for line in (
        'dvt_exits_total{exit="1",reason="confident"} 2.0',
        'dvt_exits_total{exit="3",reason="final"} 1.0',
        'dvt_exit_latency_seconds_count{exit="1"} 2.0',
        'dvt_phase_seconds_count{phase="decode"} 3.0',
        'dvt_stage_seconds_count{stage="2"} 1.0',
        'dvt_batch_images_sum{stage="1"} 3.0',
        "dvt_gmacs_spent_total 1.2",
        "dvt_gmacs_saved_total 1.8",
        'dvt_refusals_total{code="unsupported_image"} 1.0',
        'dvt_refusals_total{code="overloaded"} 0.0',
        'dvt_http_requests_total{method="POST",route="/classify",status="200"} 3.0',
        "dvt_in_flight_images 0.0",
        'dvt_queued_images{stage="1"} 0.0',
        "dvt_ready 1.0",
    ):
        assert line in text, line


def test_a_full_service_refuses_at_once_and_says_when_to_come_again(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(sure_at({}), gate=gate)
    service = make_service(tmp_path, backend, queue_limit=2, max_images=3)
    with client_of(service) as client, ThreadPoolExecutor(2) as pool:
        first = [pool.submit(client.post, "/classify", content=picture(EASY)) for _ in range(2)]
        wait_until(lambda: "dvt_in_flight_images 2.0" in client.get("/metrics").text)
        refused = client.post("/classify", content=picture(EASY))
        gate.set()
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert [response.result().status_code for response in first] == [200, 200]
        assert client.post("/classify", content=picture(EASY)).status_code == 200
        too_many = client.post("/classify", files=[("image", picture(EASY))] * 3)
        assert (too_many.status_code, too_many.json()["code"]) == (413, "too_many_images")


def test_a_deadline_is_answered_by_the_best_exit_so_far(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(sure_at({HARD: 3}), gate=gate, gate_before=2)
    with client_of(make_service(tmp_path, backend, profiles=small_profiles())) as client:
        began = time.monotonic()
        response = client.post("/classify?deadline_ms=1000", content=picture(HARD))
        assert time.monotonic() - began > 0.99
        (result,) = response.json()["results"]
        assert (result["exit"]["number"], result["exit"]["reason"]) == (1, "deadline")
        assert result["compute"]["gmacs"] == 0.1
        gate.set()
        wait_until(lambda: "dvt_in_flight_images 0.0" in client.get("/metrics").text)
        assert len(backend.batches) <= 2


def test_a_deadline_before_any_exit_is_a_504(tmp_path: Path) -> None:
    gate = threading.Event()
    with client_of(make_service(tmp_path, FakeBackend(sure_at({}), gate=gate))) as client:
        late = client.post("/classify?deadline_ms=50", content=picture(HARD))
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        gate.set()
        wait_until(lambda: "dvt_in_flight_images 0.0" in client.get("/metrics").text)


def test_while_draining_it_is_alive_but_takes_no_new_work(client: TestClient, service: Service) -> None:
    service.admission.drain()
    refused = client.post("/classify", content=picture(EASY))
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert refused.headers["Connection"] == "close"
    assert refused.headers["Retry-After"]
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200


def test_a_dead_engine_is_neither_ready_nor_alive(client: TestClient, service: Service) -> None:
    service.scheduler.stop()
    for path in ("/health/ready", "/health/live"):
        assert (client.get(path).status_code, client.get(path).json()["code"]) == (503, "not_ready")
    assert client.post("/classify", content=picture(EASY)).json()["code"] == "not_ready"


def test_an_engine_that_stands_still_is_not_live(client: TestClient, service: Service) -> None:
    service.scheduler.give_up("stage 2 with 8 images has not ended after 30 s")
    for path in ("/health/ready", "/health/live"):
        assert (client.get(path).status_code, client.get(path).json()["code"]) == (503, "not_ready")


def test_a_bug_is_a_500_without_its_secrets(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bytes:
        raise KeyError("secret of the house")

    monkeypatch.setattr(service.metrics, "render", broken)
    response = client.get("/metrics")
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.json()["request_id"] in response.json()["detail"]
