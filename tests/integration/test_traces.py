"""Traces, as they arrive at a collector; and that without one nothing of them is there."""

import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.testclient import TestClient

from service.settings import SettingsError, load_settings
from service.traces import open_traces
from tests.integration.collector import Collector, attributes_of, collecting
from tests.integration.processes import ROOT
from tests.service.cascades import FakeBackend, client_of, make_service, picture, small_profiles, sure_at

EASY, HARD = 4, 14
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@contextmanager
def client_sending_to(url: str, folder: Path) -> Iterator[TestClient]:
    """Of a service whose end sends what is left."""
    backend = FakeBackend(sure_at({EASY: 1, HARD: 3}))
    service = make_service(folder, backend, profiles=small_profiles(), otlp_endpoint=url, refine_seconds=60.0)
    with client_of(service) as client:
        yield client


def by_name(collector: Collector) -> dict[str, Span]:
    assert len({span.name for span in collector.spans}) == len(collector.spans)
    return {span.name: span for span in collector.spans}


def test_a_request_is_a_span_with_one_for_each_phase_and_stage(tmp_path: Path, collector: Collector) -> None:
    with client_sending_to(collector.url, tmp_path) as client:
        assert client.post("/classify", content=picture(HARD), headers={"X-Request-ID": "mine"}).status_code == 200
    assert collector.services == {"dvt"}
    assert Counter(span.name for span in collector.spans) == {
        "POST /classify": 1,
        "read": 1,
        "image": 1,
        "decode": 1,
        "queue": 3,
        "stage": 3,
    }
    (request,) = [span for span in collector.spans if not span.parent_span_id]
    (image,) = [span for span in collector.spans if span.name == "image"]
    assert (request.name, request.kind) == ("POST /classify", Span.SPAN_KIND_SERVER)
    assert attributes_of(request) == {
        "http.request.method": "POST",
        "http.route": "/classify",
        "http.response.status_code": 200,
        "dvt.request_id": "mine",
    }
    image_attributes = attributes_of(image)
    assert image_attributes.pop("dvt.exit.confidence") == pytest.approx(0.97)
    assert image_attributes == {"dvt.image.index": 0, "dvt.exit": 3, "dvt.exit.reason": "final"}
    stages = [attributes_of(span) for span in collector.spans if span.name == "stage"]
    assert stages == [{"dvt.stage": number, "dvt.batch.images": 1} for number in (1, 2, 3)]
    parents = {span.name: span.parent_span_id for span in collector.spans}
    assert parents["read"] == parents["image"] == request.span_id
    assert parents["decode"] == parents["queue"] == parents["stage"] == image.span_id


def test_spans_lie_within_their_parents_in_the_order_of_the_way(tmp_path: Path, collector: Collector) -> None:
    with client_sending_to(collector.url, tmp_path) as client:
        client.post("/classify", content=picture(EASY))
    spans = by_name(collector)
    request, image = spans["POST /classify"], spans["image"]
    slack_ns = 2_000_000  # Two clocks are read one after the other.
    for span in collector.spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.start_time_unix_nano >= request.start_time_unix_nano - slack_ns
        assert span.end_time_unix_nano <= request.end_time_unix_nano + slack_ns
    order = [spans[name] for name in ("read", "decode", "queue", "stage")]
    starts = [span.start_time_unix_nano for span in order]
    assert starts == sorted(starts)
    assert image.end_time_unix_nano >= spans["stage"].end_time_unix_nano - slack_ns


def test_images_of_one_request_have_a_span_each(tmp_path: Path, collector: Collector) -> None:
    with client_sending_to(collector.url, tmp_path) as client:
        client.post("/classify", files=[("image", picture(EASY)), ("image", picture(HARD))])
    images = [attributes_of(span) for span in collector.spans if span.name == "image"]
    assert {(image["dvt.image.index"], image["dvt.exit"], image["dvt.exit.reason"]) for image in images} == {
        (0, 1, "confident"),
        (1, 3, "final"),
    }


def test_the_trace_that_comes_in_is_continued_and_told_on(tmp_path: Path, collector: Collector) -> None:
    with client_sending_to(collector.url, tmp_path) as client:
        incoming = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
        answer = client.post("/classify", content=picture(EASY), headers=incoming)
    request = by_name(collector)["POST /classify"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    assert answer.headers["tracestate"] == "vendor=1"


def test_a_trace_that_is_not_sampled_is_passed_on_and_not_sent(tmp_path: Path, collector: Collector) -> None:
    with client_sending_to(collector.url, tmp_path) as client:
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        answer = client.post("/classify", content=picture(EASY), headers=unsampled)
        assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
        assert answer.headers["traceparent"].endswith("-00")
    assert collector.spans == []


@pytest.mark.parametrize("nonsense", ["", "1", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "x" * 5000])
def test_a_header_that_makes_no_sense_begins_a_new_trace(tmp_path: Path, collector: Collector, nonsense: str) -> None:
    with client_sending_to(collector.url, tmp_path) as client:
        answer = client.post("/classify", content=picture(EASY), headers={"traceparent": nonsense})
        assert answer.status_code == 200
    request = by_name(collector)["POST /classify"]
    assert not request.parent_span_id
    assert request.trace_id.hex() != TRACE


def test_a_request_that_failed_is_a_span_that_says_why(tmp_path: Path, collector: Collector) -> None:
    with client_sending_to(collector.url, tmp_path) as client:
        client.app.state.service.admission.drain()  # type: ignore[attr-defined]  # FastAPI's
        client.post("/classify", content=picture(EASY))
        client.get("/health/live")
    (span,) = collector.spans
    assert attributes_of(span)["error.type"] == "draining"
    assert span.status.code == Status.STATUS_CODE_ERROR


def test_a_collector_that_is_gone_costs_nobody_an_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with client_sending_to(f"http://127.0.0.1:{port}", tmp_path) as client:
        assert client.post("/classify", content=picture(EASY)).status_code == 200


def test_without_a_collector_there_are_no_traces(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path)) as client:
        answer = client.post("/classify", content=picture(EASY), headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert "traceparent" not in answer.headers


def test_the_standard_variable_names_the_collector_too() -> None:
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://everybodys:4318"}
    assert load_settings({}).settings.otlp_endpoint == ""
    assert load_settings(standard).settings.otlp_endpoint == "http://everybodys:4318"
    own = {**standard, "DVT_OTLP_ENDPOINT": "http://ours:4318"}
    assert load_settings(own).settings.otlp_endpoint == "http://ours:4318"
    with pytest.raises(SettingsError, match="DVT_OTLP_ENDPOINT is 'ours:4318'"):
        load_settings({"DVT_OTLP_ENDPOINT": "ours:4318"})


def test_without_the_extra_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"pip install 'dvt\[traces\]'"):
        open_traces("http://127.0.0.1:4318", lambda: 0.0)


def test_serving_imports_nothing_of_it_unless_it_is_asked_for(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from tests.service.cascades import client_of, make_service, picture
with client_of(make_service(Path({str(tmp_path)!r}))) as client:
    assert client.post("/classify", content=picture({EASY})).status_code == 200
found = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "requests"))]
assert not found, found
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def test_a_stream_and_a_refined_answer_are_traced_alike(tmp_path: Path, collector: Collector) -> None:
    with client_sending_to(collector.url, tmp_path) as client:
        streamed = client.post("/classify", content=picture(EASY), headers={"Accept": "text/event-stream"})
        assert "event: result" in streamed.text
        answered = client.post("/classify", content=picture(EASY + 1)).json()["results"][0]
        assert client.post(f"/classify/{answered['id']}/refine", json={"to": "next"}).status_code == 200
    requests = {span.span_id: span.name for span in collector.spans if not span.parent_span_id}
    assert Counter(requests.values()) == {"POST /classify": 2, "POST /classify/{id}/refine": 1}
    images = {requests[span.parent_span_id]: span.span_id for span in collector.spans if span.name == "image"}
    assert set(images) == set(requests.values())
    refined = [span for span in collector.spans if span.parent_span_id == images["POST /classify/{id}/refine"]]
    # It goes on from its state: nothing is decoded, and the first stage is not run again.
    assert [(span.name, attributes_of(span)["dvt.stage"]) for span in refined] == [("queue", 2), ("stage", 2)]
