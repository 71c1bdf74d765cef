"""What the log tells of requests."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service import log
from service.api.deps import Service
from tests.service.cascades import client_of, make_service, picture

EASY = 4


@pytest.fixture
def stream(logging_as_it_was: None) -> io.StringIO:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    return stream


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path, access_log=0.0)


@pytest.fixture
def client(service: Service, stream: io.StringIO) -> Iterator[TestClient]:
    with client_of(service) as client:
        stream.seek(0)
        stream.truncate()
        yield client


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_requests_that_go_well_are_logged_by_their_share(client: TestClient, stream: io.StringIO) -> None:
    assert client.post("/classify", content=picture(EASY)).status_code == 200
    assert client.post("/classify", content=b"no image").status_code == 415
    assert lines(stream) == []


def test_a_request_that_failed_is_logged_with_its_code_and_id(
    client: TestClient, service: Service, stream: io.StringIO
) -> None:
    service.admission.drain()
    client.post("/classify", content=picture(EASY), headers={"X-Request-ID": "mine"})
    (line,) = lines(stream)
    wanted = {"event": "request", "request_id": "mine", "status": 503, "why": "failed", "code": "draining"}
    assert wanted.items() <= line.items()


def test_a_bug_is_told_with_the_request_that_met_it(
    client: TestClient, service: Service, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bytes:
        raise KeyError("why")

    monkeypatch.setattr(service.metrics, "render", broken)
    client.get("/metrics", headers={"X-Request-ID": "mine"})
    (line,) = lines(stream)
    assert (line["event"], line["request_id"]) == ("bug", "mine")
    assert "KeyError: 'why'" in str(line["exception"])


def test_what_happens_in_a_thread_for_a_request_is_told_with_its_id(
    client: TestClient, service: Service, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("why")

    monkeypatch.setattr("service.api.tickets.decode", broken)
    client.post("/classify", content=picture(EASY), headers={"X-Request-ID": "mine"})
    told = [(line["event"], line["request_id"]) for line in lines(stream)]
    assert told == [("decoding failed by a bug", "mine"), ("request", "mine")]
