"""Hostile requests under `/v2`: a 4xx `{"error": ...}` that names what is wrong; then life goes on."""

import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.integration.bad_infer_requests import CASES, HEADER, KIND, Case, asked, sent
from tests.integration.infer_requests import INFER, files, pixels, with_pixels
from tests.service.cascades import FakeBackend, client_of, make_service, small_profiles, sure_at


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("bad-tensors")
    backend = FakeBackend(sure_at({KIND: 2}))
    limits: dict[str, Any] = {"max_body_bytes": 20_000, "max_image_bytes": 5_000, "max_images": 3}
    with client_of(make_service(folder, backend, profiles=small_profiles(), **limits)) as client:
        yield client


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_told_what_is_wrong_and_leaves_no_trace(client: TestClient, case: Case) -> None:
    response = client.post(INFER, content=case.body, headers=case.headers)
    assert response.status_code == case.status, response.text
    answer = response.json()
    assert set(answer) == {"error"}
    for words in case.says:
        assert words in answer["error"]
    assert len(answer["error"]) < 600
    assert_serves(client)


def test_paths_methods_models_and_versions_that_are_not_have_the_same_form(client: TestClient) -> None:
    for method, path, status in (
        ("GET", "/v2/", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models", 404),
        ("DELETE", "/v2", 405),
        ("GET", INFER, 405),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/small-bundle/versions/2/infer", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v2/models/small-bundle/versions/01/config", 404),
        ("GET", "/v2/models/other/versions/1/stats", 404),
        ("GET", f"/v2/models/{'x' * 5000}", 404),
    ):
        response = client.request(method, path)
        assert (response.status_code, set(response.json())) == (status, {"error"}), path
        assert len(response.json()["error"]) < 300
    assert client.get("/v2x").json()["code"] == "not_found"


@pytest.mark.parametrize(("body", "status"), [(b"[]", 400), (b"{", 400), (b"[" * 9000, 400), (bytes(70_000), 413)])
def test_a_bad_index_request_is_refused(client: TestClient, body: bytes, status: int) -> None:
    response = client.post("/v2/repository/index", content=body)
    assert (response.status_code, set(response.json())) == (status, {"error"})


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "parameters", "data", "binary_data_size", "classification"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["id", "parameters", "inputs", "outputs", "model_name"]),
    value=_JSON | st.lists(_JSON, max_size=2),
    noise=st.binary(max_size=60),
    cut=st.integers(-40, 400),
    encoding=st.sampled_from(["", "gzip", "deflate"]),
)
def test_no_request_makes_a_500(
    client: TestClient, key: str, value: object, noise: bytes, cut: int, encoding: str
) -> None:
    body, _ = with_pixels(pixels(KIND), "UINT8")
    whole = sent({**files(KIND), key: value})
    for content, header in ((whole + noise, len(whole)), (whole, len(whole)), (body[: max(0, cut)] + noise, cut)):
        headers = {HEADER: str(header)} | ({"Content-Encoding": encoding} if encoding else {})
        packed = gzip.compress(content) if encoding == "gzip" else content
        response = client.post(INFER, content=packed, headers=headers)
        assert response.status_code < 500 or response.status_code == 504, response.text


def assert_serves(client: TestClient) -> None:
    """As if nothing had been: the same answer as ever, and nothing left inside."""
    response = client.post(INFER, content=asked(outputs=[{"name": "exit_number"}]))
    assert response.status_code == 200
    assert response.json()["outputs"][0]["data"] == [2]
    assert "dvt_in_flight_images 0.0" in client.get("/metrics").text
