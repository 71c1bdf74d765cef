"""Bad input, one line a case: a 4xx problem document with code, limit and way out; then life goes on."""

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.service.cascades import ADMIN_KEY, FakeBackend, client_of, make_service, picture, small_profiles, sure_at

GOOD = picture(4)
BOUNDARY = "frontier"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("bad-input")
    service = make_service(
        folder,
        FakeBackend(sure_at({4: 2})),
        profiles=small_profiles(),
        max_body_bytes=20_000,
        max_image_bytes=5_000,
        max_image_px=64,
        max_images=3,
    )
    with client_of(service) as client:
        yield client


def form(*parts: tuple[str, bytes], end: bytes = b"--\r\n") -> bytes:
    body = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in parts
    )
    return body + f"--{BOUNDARY}".encode() + end


def jpeg(size: tuple[int, int] = (60, 60)) -> bytes:
    return picture(200, "JPEG", size)


def huge_png() -> bytes:
    """9000 x 9000 px by its header; of the pixels there is next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


def as_json(*images: object) -> bytes:
    return json.dumps({"images": images}).encode()


@dataclass(frozen=True)
class Case:
    """A request, and what its problem document must say."""

    name: str
    status: int
    code: str
    says: tuple[str, ...]
    body: bytes = GOOD
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)


MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"Content-Type": "application/json"}

CASES = (
    Case("no body", 400, "empty_body", ("0 bytes", "curl -F image=@photo.jpg"), b""),
    Case("text", 415, "unsupported_image", ("JPEG, PNG, WebP, GIF, BMP and TIFF",), b"hello, I am no image"),
    Case("pdf in a form", 415, "unsupported_image", ("JPEG",), form(("image", b"%PDF-1.7 ...")), headers=MULTIPART),
    Case("svg", 415, "unsupported_image", ("JPEG",), b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    Case("truncated jpeg", 422, "corrupt_image", ("truncated", "whole file"), jpeg()[:500]),
    Case("png without pixels", 422, "corrupt_image", ("truncated",), GOOD[:40]),
    Case("only magic", 422, "corrupt_image", ("damaged",), b"\xff\xd8\xff"),
    Case("image of 0 bytes", 400, "empty_image", ("0 bytes",), form(("image", b"")), headers=MULTIPART),
    Case("wrong field", 400, "wrong_field", ("'file'", "`image`"), form(("file", GOOD)), headers=MULTIPART),
    Case("one field too many", 400, "wrong_field", ("'x'",), form(("image", GOOD), ("x", b"1")), headers=MULTIPART),
    Case("form without parts", 400, "missing_image", ("`image`",), f"--{BOUNDARY}--\r\n".encode(), headers=MULTIPART),
    Case("form cut off", 400, "bad_multipart", ("closing boundary",), form(("image", GOOD))[:-30], headers=MULTIPART),
    Case(
        "form without boundary",
        400,
        "bad_multipart",
        ("boundary",),
        form(("image", GOOD)),
        headers={"Content-Type": "multipart/form-data"},
    ),
    Case(
        "form of another boundary",
        400,
        "bad_multipart",
        ("taken apart",),
        form(("image", GOOD)),
        headers={"Content-Type": "multipart/form-data; boundary=other"},
    ),
    Case("bad base64", 400, "bad_base64", ("images[0]", "RFC 4648"), as_json("!!!"), headers=JSON),
    Case("base64 with a prefix", 400, "bad_base64", ("without a prefix",), as_json("data:image/png;base64,AAAA")),
    Case("a number for an image", 400, "bad_base64", ("images[0]",), as_json(7), headers=JSON),
    Case("base64 of no image", 415, "unsupported_image", ("JPEG",), as_json(base64.b64encode(b"text!").decode())),
    Case("empty base64", 400, "empty_image", ("0 bytes",), as_json(""), headers=JSON),
    Case("bad json", 400, "bad_json", ("not JSON",), b'{"images": [', headers=JSON),
    Case("deep json", 400, "bad_json", ("not JSON",), b'{"images":' + b"[" * 9000, headers=JSON),
    Case("json of another shape", 400, "bad_json", ('{"images"',), b'{"image": "AAAA"}', headers=JSON),
    Case("json of urls", 400, "bad_json", ('{"images"',), b'{"urls": ["http://127.0.0.1/"]}', headers=JSON),
    Case("json list", 400, "bad_json", ('{"images"',), b"[]", headers=JSON),
    Case("no images in json", 400, "missing_image", ("at least one",), as_json(), headers=JSON),
    Case(
        "too many bytes of image",
        413,
        "image_too_large",
        ("5001 bytes", "5000", "DVT_MAX_IMAGE_BYTES"),
        GOOD + bytes(5001 - len(GOOD)),
    ),
    Case(
        "too many bytes of part",
        413,
        "image_too_large",
        ("6000 bytes", "5000", "DVT_MAX_IMAGE_BYTES"),
        form(("image", GOOD + bytes(6000 - len(GOOD)))),
        headers=MULTIPART,
    ),
    Case(
        "too many bytes of base64",
        413,
        "image_too_large",
        ("5000", "DVT_MAX_IMAGE_BYTES"),
        as_json(base64.b64encode(bytes(6000)).decode()),
        headers=JSON,
    ),
    Case("too many bytes of body", 413, "body_too_large", ("20001", "20000", "DVT_MAX_BODY_BYTES"), bytes(20_001)),
    Case(
        "too many parts",
        413,
        "too_many_images",
        ("4 images", "3", "DVT_MAX_IMAGES"),
        form(*[("image", GOOD)] * 4),
        headers=MULTIPART,
    ),
    Case(
        "far too many parts",
        413,
        "too_many_images",
        ("4 images", "3", "DVT_MAX_IMAGES"),
        form(*[("image", b"")] * 200),
        headers=MULTIPART,
    ),
    Case("too many images in json", 413, "too_many_images", ("4 images", "3"), as_json("", "", "", ""), headers=JSON),
    Case("too many pixels", 413, "too_many_pixels", ("9000x9000 px", "64x64", "DVT_MAX_IMAGE_PX"), huge_png()),
    Case("unknown profile", 422, "unknown_profile", ("'turbo'", "fast, balanced"), query="profile=turbo"),
    Case("too few thresholds", 422, "invalid_thresholds", ("1 entries", "needs 2"), query="thresholds=0.5"),
    Case("too many thresholds", 422, "invalid_thresholds", ("3 entries", "needs 2"), query="thresholds=0.5,0.5,0.5"),
    Case("threshold above 1", 422, "invalid_thresholds", ("1.5", "0..1"), query="thresholds=1.5,0.5"),
    Case("threshold below 0", 422, "invalid_thresholds", ("-0.1", "0..1"), query="thresholds=0.5,-0.1"),
    Case("threshold nan", 422, "invalid_thresholds", ("nan", "0..1"), query="thresholds=nan,0.5"),
    Case("threshold in words", 422, "invalid_thresholds", ("'high,low'", "0.9,null"), query="thresholds=high,low"),
    Case(
        "two ways to say when",
        422,
        "invalid_parameter",
        ("profile and min_confidence",),
        query="profile=fast&min_confidence=0.5",
    ),
    Case("min_confidence nan", 422, "invalid_parameter", ("min_confidence",), query="min_confidence=nan"),
    Case("min_confidence above 1", 422, "invalid_parameter", ("min_confidence", "1"), query="min_confidence=1.01"),
    Case("exit 0", 422, "invalid_parameter", ("max_exit",), query="max_exit=0"),
    Case("exit that is not", 422, "invalid_parameter", ("max_exit is 4", "1 to 3"), query="max_exit=4"),
    Case("top_k 0", 422, "invalid_parameter", ("top_k",), query="top_k=0"),
    Case("top_k in words", 422, "invalid_parameter", ("top_k", "'all'"), query="top_k=all"),
    Case("no time", 422, "invalid_parameter", ("deadline_ms",), query="deadline_ms=0"),
    Case("endless time", 422, "invalid_parameter", ("deadline_ms",), query="deadline_ms=inf"),
    Case("priority 0", 422, "invalid_parameter", ("priority",), query="priority=0"),
    Case("misspelt parameter", 422, "invalid_parameter", ("'topk'", "/docs"), query="topk=3"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_told_what_is_wrong_and_leaves_no_trace(client: TestClient, case: Case) -> None:
    response = client.post(f"/classify?{case.query}", content=case.body, headers=case.headers)
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (case.status, case.status, case.code)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    for words in case.says:
        assert words in problem["detail"]
    assert_serves(client)


BUDGETS = (
    ("nothing", 400, "empty_body", b""),
    ("no json", 400, "bad_json", b"balanced"),
    ("a list", 400, "bad_json", b"[0.5, 0.5]"),
    ("neither", 422, "invalid_parameter", b"{}"),
    ("both", 422, "invalid_parameter", b'{"profile": "fast", "thresholds": [0.5, 0.5]}'),
    ("unknown key", 422, "invalid_parameter", b'{"profil": "fast"}'),
    ("unknown profile", 422, "unknown_profile", b'{"profile": "turbo"}'),
    ("profile of another type", 422, "invalid_parameter", b'{"profile": 7}'),
    ("too few thresholds", 422, "invalid_thresholds", b'{"thresholds": [0.5]}'),
    ("threshold outside", 422, "invalid_thresholds", b'{"thresholds": [0.5, 7]}'),
    ("threshold nan", 422, "invalid_parameter", b'{"thresholds": [0.5, NaN]}'),
    ("thresholds in words", 422, "invalid_parameter", b'{"thresholds": ["0.5", "0.5"]}'),
    ("too long", 413, "body_too_large", b" " * 70_000),
)


@pytest.mark.parametrize(("name", "status", "code", "body"), BUDGETS, ids=[case[0] for case in BUDGETS])
def test_a_bad_budget_is_refused_and_the_one_in_force_stays(
    client: TestClient, name: str, status: int, code: str, body: bytes
) -> None:
    before = client.get("/budget").json()
    response = client.put("/budget", content=body, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert client.get("/budget").json() == before
    assert_serves(client)


def test_paths_and_methods_that_are_not_are_problem_documents_too(client: TestClient) -> None:
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/classify/", 404, "not_found"),
        ("GET", "/classify", 405, "method_not_allowed"),
        ("DELETE", "/budget", 405, "method_not_allowed"),
    ):
        response = client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert response.headers["Content-Type"] == "application/problem+json"
    assert "POST" in client.get("/classify").headers["Allow"]


def test_a_body_without_a_length_is_cut_at_the_limit(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(1000)

    response = client.post("/classify", content=endless())
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert_serves(client)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=200).map(lambda noise: form(("image", noise))),
        st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=4)).map(
            lambda change: GOOD[: change[0]] + change[1] + GOOD[change[0] + len(change[1]) :]
        ),
        st.integers(1, 900).map(lambda length: jpeg()[:length]),
        st.recursive(st.none() | st.text(max_size=9) | st.integers(), lambda inner: st.lists(inner, max_size=3)).map(
            lambda images: json.dumps({"images": images}).encode()
        ),
    ),
    content_type=st.sampled_from(
        ["", "application/json", "image/png", MULTIPART["Content-Type"], "multipart/form-data"]
    ),
)
def test_no_body_makes_a_500(client: TestClient, body: bytes, content_type: str) -> None:
    response = client.post("/classify", content=body, headers={"Content-Type": content_type})
    assert response.status_code < 500, response.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        ["top_k", "profile", "thresholds", "min_confidence", "max_exit", "deadline_ms", "priority", "x"]
    ),
    value=st.text(max_size=20),
)
def test_no_parameter_makes_a_500(client: TestClient, name: str, value: str) -> None:
    response = client.post("/classify", params={name: value}, content=GOOD)
    assert response.status_code < 500 or response.json()["code"] == "deadline_exceeded", response.text


def assert_serves(client: TestClient) -> None:
    """As if nothing had been: the same answer as ever, and nothing left inside."""
    response = client.post("/classify", content=GOOD)
    assert response.status_code == 200
    exit_ = response.json()["results"][0]["exit"]
    assert (exit_["number"], exit_["reason"]) == (2, "confident")
    assert "dvt_in_flight_images 0.0" in client.get("/metrics").text
