"""The Open Inference Protocol over HTTP: the same images, rules and answers as `POST /classify`, in tensors."""

import base64
import gzip
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from service.api.deps import Service
from service.engine.job import Job
from tests.integration.infer_requests import INFER, exits, files, pixels, tensors, with_pixels
from tests.service.cascades import (
    GMACS,
    LABELS,
    SIZE_PX,
    FakeBackend,
    client_of,
    make_service,
    picture,
    scheduler_of,
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


def test_it_answers_what_classify_answers(client: TestClient) -> None:
    response = client.post(INFER, json={"id": "mine", **files(EASY, MEDIUM, HARD)})
    assert response.headers["Content-Type"] == "application/json"
    assert "Inference-Header-Content-Length" not in response.headers
    theirs = response.json()
    uploads = [("image", picture(kind)) for kind in (EASY, MEDIUM, HARD)]
    ours = client.post("/classify?top_k=4", files=uploads).json()
    assert (theirs["model_name"], theirs["model_version"], theirs["id"]) == ("small-bundle", "1", "mine")
    assert {name: theirs["parameters"][name] for name in ours["budget"]} == ours["budget"]
    found, results = tensors(theirs), ours["results"]
    assert found["label"] == [result["predictions"][0]["label"] for result in results]
    assert found["exit_number"] == [result["exit"]["number"] for result in results] == [1, 2, 3]
    assert found["reason"] == [result["exit"]["reason"] for result in results]
    np.testing.assert_allclose(found["confidence"], [result["exit"]["confidence"] for result in results], rtol=1e-6)
    np.testing.assert_allclose(found["gmacs"], GMACS, rtol=1e-6)
    for row, result in zip(np.reshape(found["probabilities"], (3, 4)), results, strict=True):
        for prediction in result["predictions"]:
            assert row[prediction["index"]] == pytest.approx(prediction["probability"], rel=1e-6)


def test_shapes_and_types_are_those_of_the_metadata(client: TestClient) -> None:
    metadata = client.get("/v2/models/small-bundle").json()
    outputs = client.post(INFER, json=files(EASY, HARD)).json()["outputs"]
    assert [output["name"] for output in outputs] == [output["name"] for output in metadata["outputs"]]
    for told, given in zip(metadata["outputs"], outputs, strict=True):
        assert given["datatype"] == told["datatype"]
        assert given["shape"] == [2, *told["shape"][1:]]


def test_pixels_come_as_bytes_or_as_parts_of_one_in_json_or_binary(client: TestClient) -> None:
    whole = pixels(EASY, MEDIUM, HARD)
    parts = whole.astype(np.float32) / 255
    for array, datatype in ((whole, "UINT8"), (parts, "FP32")):
        body, headers = with_pixels(array, datatype)
        assert exits(client.post(INFER, content=body, headers=headers).json()) == [1, 2, 3]
        for data in (array.ravel().tolist(), array.tolist()):
            tensor = {"name": "pixels", "shape": array.shape, "datatype": datatype, "data": data}
            assert exits(client.post(INFER, json={"inputs": [tensor]}).json()) == [1, 2, 3]


def test_every_level_survives_the_way_through_fp32(client: TestClient, service: Service) -> None:
    seen: list[NDArray[np.uint8]] = []
    submit = service.scheduler.submit

    def spy(job: Job, pixels: NDArray[np.uint8] | None = None) -> None:
        assert pixels is not None
        seen.append(pixels)
        submit(job, pixels)

    service.scheduler.submit = spy  # type: ignore[method-assign]
    levels = np.resize(np.arange(256, dtype=np.uint8), (2, 3, SIZE_PX, SIZE_PX))
    body, headers = with_pixels(levels.astype(np.float32) / np.float32(255), "FP32")
    assert client.post(INFER, content=body, headers=headers).status_code == 200
    np.testing.assert_array_equal(sorted(map(np.ndarray.tolist, seen)), sorted(levels.tolist()))


def test_outputs_are_those_asked_for_each_in_its_form(client: TestClient) -> None:
    outputs: list[dict[str, Any]] = [
        {"name": "label", "parameters": {"binary_data": True}},
        {"name": "exit_number"},
        {"name": "confidence", "parameters": {"binary_data": False}},
        {"name": "probabilities", "parameters": {"binary_data": True}},
    ]
    response = client.post(INFER, json={**files(EASY, HARD), "outputs": outputs})
    assert response.headers["Content-Type"] == "application/octet-stream"
    size = int(response.headers["Inference-Header-Content-Length"])
    document, binary = json.loads(response.content[:size]), response.content[size:]
    assert [output["name"] for output in document["outputs"]] == [output["name"] for output in outputs]
    assert document["outputs"][1]["data"] == [1, 3]
    labels = [LABELS[EASY % 4].encode(), LABELS[HARD % 4].encode()]
    written = b"".join(struct.pack("<I", len(label)) + label for label in labels)
    assert document["outputs"][0]["parameters"] == {"binary_data_size": len(written)}
    assert binary[: len(written)] == written
    probabilities = np.frombuffer(binary[len(written) :], "<f4").reshape(2, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_binary_for_all_is_overruled_by_an_output_of_its_own_mind(client: TestClient) -> None:
    outputs = [{"name": "exit_number"}, {"name": "label", "parameters": {"binary_data": False}}]
    asked = {**files(EASY), "outputs": outputs, "parameters": {"binary_data_output": True}}
    response = client.post(INFER, json=asked)
    size = int(response.headers["Inference-Header-Content-Length"])
    number, label = json.loads(response.content[:size])["outputs"]
    assert (number["parameters"], label["data"]) == ({"binary_data_size": 4}, ["apple"])
    assert response.content[size:] == struct.pack("<i", 1)


def test_classification_gives_the_best_classes_as_text(client: TestClient) -> None:
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    (output,) = client.post(INFER, json={**files(EASY, HARD), "outputs": outputs}).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"] == ["0.970000:0:apple", "0.010000:1:bell", "0.970000:2:cat", "0.010000:0:apple"]
    outputs[0]["parameters"] = {"classification": 99}
    (output,) = client.post(INFER, json={**files(EASY), "outputs": outputs}).json()["outputs"]
    assert output["shape"] == [1, 4]


@pytest.mark.parametrize(
    ("parameters", "exit_number", "reason"),
    [
        ({}, 3, "final"),
        ({"profile": "fast"}, 3, "final"),
        ({"min_confidence": 0.2}, 1, "confident"),
        ({"thresholds": "null,0.2"}, 2, "confident"),
        ({"max_exit": 2}, 2, "max_exit"),
        ({"priority": 1}, 3, "final"),
        ({"priority": 0, "timeout": 0}, 3, "final"),
        ({"timeout": 60_000_000}, 3, "final"),
        ({"deadline_ms": 60_000}, 3, "final"),
        ({"content_type": "np", "binary_data_output": False}, 3, "final"),
    ],
)
def test_parameters_are_those_of_classify_and_the_protocols_own(
    client: TestClient, parameters: dict[str, Any], exit_number: int, reason: str
) -> None:
    found = tensors(client.post(INFER, json={**files(HARD), "parameters": parameters}).json())
    assert (found["exit_number"], found["reason"]) == ([exit_number], [reason])


def test_the_url_may_carry_parameters_too(client: TestClient) -> None:
    assert exits(client.post(f"{INFER}?max_exit=2&priority=1&timeout=60000000", json=files(HARD)).json()) == [2]
    twice = client.post(f"{INFER}?max_exit=2", json={**files(HARD), "parameters": {"max_exit": 1}})
    assert (twice.status_code, "once" in twice.json()["error"]) == (422, True)


def test_a_timeout_in_microseconds_is_answered_by_the_best_exit_so_far(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(sure_at({HARD: 3}), gate=gate, gate_before=2)
    with client_of(make_service(tmp_path, backend, profiles=small_profiles())) as client:
        found = tensors(client.post(INFER, json={**files(HARD), "parameters": {"timeout": 500_000}}).json())
        gate.set()
    assert (found["exit_number"], found["reason"]) == ([1], ["deadline"])


def test_a_timeout_before_any_exit_is_a_504(tmp_path: Path) -> None:
    gate = threading.Event()
    with client_of(make_service(tmp_path, FakeBackend(sure_at({}), gate=gate))) as client:
        late = client.post(INFER, json={**files(HARD), "parameters": {"timeout": 50_000}})
        gate.set()
    assert (late.status_code, set(late.json())) == (504, {"error"})


def test_priority_1_goes_first(tmp_path: Path) -> None:
    gate = threading.Event()
    backend = FakeBackend(sure_at({}), gate=gate, buckets=(1,))
    service = make_service(tmp_path, backend)
    with client_of(service) as client, ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.post, INFER, json=files(1))
        wait_until(lambda: service.scheduler.running != ())
        waiting = []
        for number, (kind, priority) in enumerate(((2, 9), (3, 1)), start=1):
            asked = {**files(kind), "parameters": {"priority": priority}}
            waiting.append(pool.submit(client.post, INFER, json=asked))
            wait_until(lambda number=number: len(scheduler_of(service)._inbox) == number)  # type: ignore[misc]
        gate.set()
        assert {each.result().status_code for each in (first, *waiting)} == {200}
    assert [kinds for stage, kinds in backend.batches if stage == 1] == [(1,), (3,), (2,)]


def test_one_bad_image_fails_the_request_and_is_named(client: TestClient, service: Service) -> None:
    asked = files(EASY, EASY, HARD)
    asked["inputs"][0]["data"][1] = base64.b64encode(b"no image").decode()
    refused = client.post(INFER, json=asked)
    assert refused.status_code == 415
    assert refused.json()["error"].startswith("image 1 of the request, counted from 0: the 8 bytes sent are no image")
    assert 'dvt_refusals_total{code="unsupported_image"} 1.0' in client.get("/metrics").text
    assert service.admission.inside == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compression_goes_both_ways(client: TestClient, encoding: str) -> None:
    body, headers = with_pixels(pixels(EASY, HARD), "UINT8")
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    headers |= {"Content-Encoding": encoding, "Accept-Encoding": encoding}
    response = client.post(INFER, content=packed, headers=headers)
    assert response.headers["Content-Encoding"] == encoding
    assert exits(response.json()) == [1, 3]
    headers["Accept-Encoding"] = "identity"
    assert "Content-Encoding" not in client.post(INFER, content=packed, headers=headers).headers
