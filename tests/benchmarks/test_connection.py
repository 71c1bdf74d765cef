"""Where requests may go, and what their bytes are."""

import pytest
from python_multipart.multipart import parse_options_header

from benchmarks.connection import Target, form_request, parse_target, raw_request
from service.api.body import BodyLimits, images_of

LIMITS = BodyLimits(10_000, 10_000, 4, 1.0)
PHOTO = b"\xff\xd8\xff" + bytes(range(256))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://127.0.0.1:8000", "/classify"),
        ("http://127.0.0.1:8000/", "/classify"),
        ("http://127.0.0.1:8000?top_k=1", "/classify?top_k=1"),
        ("http://127.0.0.1:8000/v2/infer?a=b", "/v2/infer?a=b"),
    ],
)
def test_a_url_without_a_path_means_classify(url: str, path: str) -> None:
    assert parse_target(url) == Target("127.0.0.1", 8000, path)


@pytest.mark.parametrize("url", ["https://example.com", "127.0.0.1:8000", "http://", ""])
def test_what_cannot_be_measured_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="write http://HOST:PORT"):
        parse_target(url)


def test_a_query_joins_the_one_that_is_there() -> None:
    target = Target("h", 1, "/classify?top_k=1").with_query({"profile": "fast & good"})
    assert target.path == "/classify?top_k=1&profile=fast+%26+good"


@pytest.mark.parametrize("encode", [raw_request, form_request])
def test_the_service_finds_the_photo_in_a_request(encode: object) -> None:
    assert callable(encode)
    head, _, body = encode(Target("127.0.0.1", 1, "/classify"), PHOTO).partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    assert int(headers["Content-Length"]) == len(body)
    assert images_of(body, headers["Content-Type"], LIMITS) == (PHOTO,)


def test_the_form_is_really_multipart() -> None:
    head, _, body = form_request(Target("127.0.0.1", 1, "/"), PHOTO).partition(b"\r\n\r\n")
    kind, options = parse_options_header(head.decode().partition("Content-Type: ")[2].partition("\r\n")[0])
    assert kind == b"multipart/form-data"
    assert body.startswith(b"--" + options[b"boundary"])
