"""`tritonclient`, unmodified, against `dvt serve` in a process of its own: every call that it has."""

import base64
import io
import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as tritonclient
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.integration.processes import ROOT, running
from tests.integration.stock_client import CLIENTS, Stock, files, pixels

# The asyncio client leaves the answers to health checks unread, which aiohttp minds.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")

MODEL = "cifar10-micro"
CLASSES, SIDE = 10, 32
PHOTOS = [(ROOT / "samples" / name).read_bytes() for name in ("church.jpg", "golf_ball.jpg")]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("stock-client")
    with running(("dvt.py", "serve", ROOT / "checkpoints" / MODEL, "--port", "0"), folder) as (_, port, _):
        yield port


@pytest.fixture(params=CLIENTS)
def stock(request: pytest.FixtureRequest, port: int) -> Iterator[Stock]:
    with CLIENTS[request.param](port) as stock:
        yield stock


def classify(port: int, photo: bytes) -> dict[str, Any]:
    """What `POST /classify` says of it."""
    url = f"http://127.0.0.1:{port}/classify?top_k={CLASSES}"
    with urllib.request.urlopen(urllib.request.Request(url, photo), timeout=60) as response:
        result: dict[str, Any] = json.load(response)["results"][0]
    return result


def noise(images: int) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (images, 3, SIDE, SIDE), np.uint8)


def unseen(images: int) -> NDArray[np.uint8]:
    """Of which nothing can be known yet."""
    return np.frombuffer(os.urandom(images * 3 * SIDE * SIDE), np.uint8).reshape(images, 3, SIDE, SIDE)


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_health(stock: Stock) -> None:
    assert stock.call("is_server_live")
    assert stock.call("is_server_ready")
    assert stock.call("is_model_ready", MODEL)
    assert stock.call("is_model_ready", MODEL, "1")
    assert not stock.call("is_model_ready", "other")
    assert not stock.call("is_model_ready", MODEL, "2")


def test_metadata_and_configuration(stock: Stock) -> None:
    server = stock.call("get_server_metadata")
    assert server["name"] == "dvt"
    assert {"binary_tensor_data", "classification", "statistics", "schedule_policy"} <= set(server["extensions"])
    for version in ("", "1"):
        model = stock.call("get_model_metadata", MODEL, version)
        assert (model["name"], model["versions"]) == (MODEL, ["1"])
        assert model["inputs"] == [
            {"name": "image", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, 3, SIDE, SIDE]},
        ]
        config = stock.call("get_model_config", MODEL, version)
        assert config["max_batch_size"] == 16
        assert [each["dims"] for each in config["input"]] == [[1], [3, SIDE, SIDE]]
        probabilities = config["output"][0]
        assert (probabilities["name"], probabilities["data_type"]) == ("probabilities", "TYPE_FP32")
        assert (probabilities["dims"], len(probabilities["labels"])) == ([CLASSES], CLASSES)
    assert stock.call("get_model_repository_index") == [{"name": MODEL, "version": "1", "state": "READY", "reason": ""}]


def test_infer_by_default_binary_both_ways(stock: Stock, port: int) -> None:
    result = stock.call("infer", MODEL, files(*PHOTOS), request_id="seven")
    assert result.get_response()["id"] == "seven"
    for row, photo in enumerate(PHOTOS):
        expected = classify(port, photo)
        assert result.as_numpy("label")[row, 0].decode() == expected["predictions"][0]["label"]
        assert result.as_numpy("exit_number")[row, 0] == expected["exit"]["number"]
        assert result.as_numpy("reason")[row, 0].decode() == expected["exit"]["reason"]
        np.testing.assert_allclose(result.as_numpy("confidence")[row, 0], expected["exit"]["confidence"], rtol=1e-4)
        np.testing.assert_allclose(result.as_numpy("gmacs")[row, 0], expected["compute"]["gmacs"], rtol=1e-6)
        for prediction in expected["predictions"]:
            found = result.as_numpy("probabilities")[row, prediction["index"]]
            np.testing.assert_allclose(found, prediction["probability"], rtol=1e-3, atol=1e-6)
    assert all("binary_data_size" in output["parameters"] for output in result.get_response()["outputs"])


def test_infer_in_json_both_ways(stock: Stock) -> None:
    photos = files(*map(base64.b64encode, PHOTOS), is_binary=False)
    names = ("label", "exit_number", "probabilities")
    outputs = [tritonclient.InferRequestedOutput(name, binary_data=False) for name in names]
    texts = stock.call("infer", MODEL, photos, outputs=outputs)
    binary = stock.call("infer", MODEL, files(*PHOTOS))
    assert all("data" in texts.get_output(name) for name in names)
    assert texts.as_numpy("label").tolist() == [[text.decode()] for (text,) in binary.as_numpy("label")]
    np.testing.assert_array_equal(texts.as_numpy("exit_number"), binary.as_numpy("exit_number"))
    np.testing.assert_allclose(texts.as_numpy("probabilities"), binary.as_numpy("probabilities"), rtol=1e-3, atol=1e-6)


def test_pixels_say_what_the_same_image_says_as_a_file(stock: Stock) -> None:
    images = noise(3)
    expected = stock.call("infer", MODEL, files(*map(png, images))).as_numpy("probabilities")
    for array in (images, images.astype(np.float32) / 255):
        for is_binary in (True, False):
            found = stock.call("infer", MODEL, pixels(array, is_binary=is_binary)).as_numpy("probabilities")
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(stock: Stock, algorithm: str) -> None:
    result = stock.call(
        "infer",
        MODEL,
        pixels(noise(2)),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert result.as_numpy("probabilities").shape == (2, CLASSES)


def test_classification(stock: Stock) -> None:
    output = tritonclient.InferRequestedOutput("probabilities", class_count=3)
    found = stock.call("infer", MODEL, files(*PHOTOS), outputs=[output]).as_numpy("probabilities")
    assert found.shape == (2, 3)
    best = stock.call("infer", MODEL, files(*PHOTOS))
    for row in range(2):
        value, index, label = found[row, 0].decode().split(":")
        assert label == best.as_numpy("label")[row, 0].decode()
        assert int(index) == best.as_numpy("probabilities")[row].argmax()
        assert float(value) == pytest.approx(best.as_numpy("confidence")[row, 0], abs=1e-4)


def test_priority_timeout_and_parameters(stock: Stock) -> None:
    photo = files(PHOTOS[0])
    full = stock.call("infer", MODEL, photo, priority=1, timeout=60_000_000, parameters={"profile": "full"})
    assert (full.as_numpy("exit_number")[0, 0], full.as_numpy("reason")[0, 0]) == (3, b"final")
    first = stock.call("infer", MODEL, photo, model_version="1", parameters={"max_exit": 1, "deadline_ms": 60_000})
    assert first.as_numpy("exit_number")[0, 0] == 1
    with pytest.raises(InferenceServerException, match=r"\[504\].*deadline") as late:
        stock.call("infer", MODEL, files(png(unseen(1)[0])), timeout=1)
    assert late.value.status() == "504"
    for options in ({"priority": 10}, {"parameters": {"profil": "fast"}}, {"sequence_id": 7}):
        with pytest.raises(InferenceServerException, match=r"\[422\]"):
            stock.call("infer", MODEL, photo, **options)


def test_headers_and_query_parameters(stock: Stock) -> None:
    options = {"headers": {"X-Request-ID": "mine-7"}, "query_params": {"max_exit": 1}}
    result = stock.call("infer", MODEL, files(PHOTOS[0]), **options)
    assert result.get_response()["parameters"]["request_id"] == "mine-7"
    assert result.as_numpy("exit_number")[0, 0] == 1


def test_statistics_grow_by_what_was_asked(stock: Stock) -> None:
    def counts() -> tuple[int, ...]:
        (stats,) = stock.call("get_inference_statistics", MODEL, "1")["model_stats"]
        measured = stats["inference_stats"]
        assert measured["compute_infer"]["ns"] >= 0
        return stats["inference_count"], measured["success"]["count"], measured["fail"]["count"]

    before = counts()
    stock.call("infer", MODEL, pixels(unseen(2)))
    with pytest.raises(InferenceServerException):
        stock.call("infer", MODEL, files(b"no image"))
    assert np.subtract(counts(), before).tolist() == [2, 1, 1]
    assert stock.call("get_inference_statistics")["model_stats"][0]["name"] == MODEL


def test_many_at_once(port: int) -> None:
    with tritonclient.InferenceServerClient(f"127.0.0.1:{port}", concurrency=8) as client:
        asked = [client.async_infer(MODEL, files(PHOTOS[number % 2])) for number in range(16)]
        labels = [each.get_result(timeout=60).as_numpy("label")[0, 0] for each in asked]
        broken = client.async_infer(MODEL, files(b"no image"))
        with pytest.raises(InferenceServerException, match=r"\[415\].*no image"):
            broken.get_result(timeout=60)
    assert labels == labels[:2] * 8


def test_what_is_wrong_is_told(stock: Stock) -> None:
    unknown = tritonclient.InferRequestedOutput("score")
    for arguments, options, says in (
        (("other", files(PHOTOS[0])), {}, r"\[404\].*'other'.*'cifar10-micro'"),
        ((MODEL, files(PHOTOS[0])), {"model_version": "2"}, r"\[404\].*version '2'"),
        ((MODEL, files(PHOTOS[0], b"no image")), {}, r"\[415\] image 1 .*JPEG, PNG"),
        ((MODEL, files(PHOTOS[0])), {"outputs": [unknown]}, r"\[400\].*'score'.*probabilities"),
        ((MODEL, pixels(np.zeros((1, 3, 8, 8), np.uint8))), {}, r"\[400\].*\[n, 3, 32, 32\]"),
        ((MODEL, pixels(np.full((1, 3, SIDE, SIDE), 255, np.float32))), {}, r"\[400\].*0\.\.1"),
        ((MODEL, []), {}, r"\[400\].*inputs"),
    ):
        with pytest.raises(InferenceServerException, match=says):
            stock.call("infer", *arguments, **options)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (("load_model", MODEL), "dvt serve BUNDLE"),
        (("unload_model", MODEL), "dvt serve BUNDLE"),
        (("get_system_shared_memory_status",), "binary data"),
        (("get_system_shared_memory_status", "region"), "binary data"),
        (("register_system_shared_memory", "region", "key", 8), "binary data"),
        (("unregister_system_shared_memory",), "binary data"),
        (("unregister_system_shared_memory", "region"), "binary data"),
        (("get_cuda_shared_memory_status",), "binary data"),
        (("get_cuda_shared_memory_status", "region"), "binary data"),
        (("register_cuda_shared_memory", "region", "aGFuZGxl", 0, 8), "binary data"),
        (("unregister_cuda_shared_memory",), "binary data"),
        (("unregister_cuda_shared_memory", "region"), "binary data"),
        (("get_trace_settings",), "/metrics"),
        (("get_trace_settings", MODEL), "/metrics"),
        (("update_trace_settings", MODEL, {"trace_rate": "1"}), "/metrics"),
        (("update_trace_settings",), "/metrics"),
        (("get_log_settings",), "DVT_LOG_LEVEL"),
        (("update_log_settings", {"log_info": True}), "DVT_LOG_LEVEL"),
    ],
    ids=lambda value: "-".join(map(str, value[:2])) if isinstance(value, tuple) else None,
)
def test_what_does_not_apply_says_so(stock: Stock, call: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InferenceServerException, match=says) as refused:
        stock.call(*call)
    assert refused.value.status() == "501"


def test_tensors_in_shared_memory_are_refused(stock: Stock) -> None:
    tensor = tritonclient.InferInput("image", [1, 1], "BYTES")
    tensor.set_shared_memory("region", 8)
    output = tritonclient.InferRequestedOutput("label")
    output.set_shared_memory("region", 8)
    for inputs, outputs in (([tensor], None), (files(PHOTOS[0]), [output])):
        with pytest.raises(InferenceServerException, match=r"\[400\].*shared memory"):
            stock.call("infer", MODEL, inputs, outputs=outputs)


def test_the_example_of_the_page_runs(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "open-inference.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(example.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), {})
    assert re.search(r"^\w+ \d\.\d\d, exit [123], \d\.\d\d GMACs$", capsys.readouterr().out, flags=re.MULTILINE)


def test_with_keys_the_client_sends_one_in_its_headers(tmp_path: Path) -> None:
    command = ("dvt.py", "serve", ROOT / "checkpoints" / MODEL, "--port", "0")
    with running(command, tmp_path, DVT_API_KEYS="alice-key") as (_, port, _):
        for open_client in CLIENTS.values():
            with open_client(port) as stock:
                assert stock.call("is_server_ready")
                with pytest.raises(InferenceServerException, match=r"\[401\].*Bearer"):
                    stock.call("infer", MODEL, files(PHOTOS[0]))
                headers = {"Authorization": "Bearer alice-key"}
                assert stock.call("infer", MODEL, files(PHOTOS[0]), headers=headers).as_numpy("label").shape == (1, 1)
