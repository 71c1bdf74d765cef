"""Both clients with a server that answers by a list: what goes out, what comes back, what is tried again."""

import io
import json
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvt_client import (
    NEVER,
    AnswerError,
    BudgetNotMetError,
    Client,
    DoneEvent,
    ExitEvent,
    ForbiddenError,
    ProblemError,
    ResultEvent,
    Retry,
    RevisionChangedError,
    StateGoneError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
)
from dvt_client.transport import Setup
from tests.dvt_client.kinds import Make
from tests.dvt_client.samples import ANSWER, BUDGET, PROBLEM, RESULT, WHOLE_STREAM, problem
from tests.dvt_client.scripted_server import Answer, HangUp, Stream, serving

BUSY = Answer(503, problem(503, "overloaded"), {"Retry-After": "2"})
FINE = Answer(200, ANSWER)


def test_one_photo_goes_as_it_is_with_its_options_and_the_key(make_client: Make) -> None:
    with serving(FINE) as script, make_client(script.url, key="secret") as client:
        answer = client.classify(b"photo", top_k=2, thresholds=[0.9, None], deadline_ms=50, priority=1)
    assert answer.result.label == "cat"
    ((method, path, headers, body),) = script.asked
    assert (method, body) == ("POST", b"photo")
    assert path == "/classify?top_k=2&thresholds=0.9%2Cnull&deadline_ms=50&priority=1"
    assert headers["authorization"] == "Bearer secret"
    assert headers["content-type"] == "application/octet-stream"
    assert "secret" not in repr(Setup(script.url, "secret"))


def test_several_photos_go_as_a_form_whatever_they_are(make_client: Make, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"from a path")
    with serving(Answer(200, {**ANSWER, "results": [RESULT] * 3})) as script, make_client(script.url) as client:
        assert len(client.classify(file, str(file), io.BytesIO(b"from a file")).results) == 3
    _, _, headers, body = script.asked[0]
    assert headers["content-type"].startswith("multipart/form-data")
    assert (body.count(b'name="image"'), body.count(b"from a path"), body.count(b"from a file")) == (3, 2, 1)


def test_what_cannot_be_sent_is_not(make_client: Make, tmp_path: Path) -> None:
    with serving() as script, make_client(script.url) as client:
        with pytest.raises(FileNotFoundError):
            client.classify(tmp_path / "none.jpg")
        with pytest.raises(TypeError, match="rb"):
            client.classify(io.StringIO("text"))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="needs a photo"):
            client.classify()
        with pytest.raises(ValueError, match="not both"):
            client.refine("id", "next", min_confidence=0.9)
        with pytest.raises(TypeError):
            client.classify(b"photo", depth=3)  # type: ignore[call-arg]
    assert script.asked == []


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "http://", "http://a:b", "http://me:pw@host"])
def test_an_address_that_is_none_is_refused_at_once(make_client: Make, url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        make_client(url)


@pytest.mark.parametrize("key", ["", "a\nb", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_at_once(make_client: Make, key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        make_client("http://localhost", key=key)


def test_a_service_under_a_path_is_called_there(make_client: Make) -> None:
    with serving(Answer(200, BUDGET)) as script, make_client(f"{script.url}/vision") as client:
        assert client.budget().in_force.thresholds == (0.4, None)
    assert script.asked[0][1] == "/vision/budget"


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (lambda client: client.refine("a/b"), {"to": "next"}),
        (lambda client: client.refine("a/b", 2), {"to": 2}),
        (lambda client: client.refine("a/b", min_confidence=0.9), {"min_confidence": 0.9}),
    ],
)
def test_refine_says_how_far(make_client: Make, call: Callable[[Client], Any], body: dict[str, object]) -> None:
    with serving(FINE) as script, make_client(script.url) as client:
        assert call(client).result.id == RESULT["id"]
    method, path, _, sent = script.asked[0]
    assert (method, path, json.loads(sent)) == ("POST", "/classify/a%2Fb/refine", body)


def test_a_budget_is_put_in_the_place_of_a_revision(make_client: Make) -> None:
    with serving(Answer(200, BUDGET)) as script, make_client(script.url) as client:
        assert client.put_budget({"thresholds": (0.9, None)}, if_match=7, dry_run=True).revision == 7
    method, path, headers, body = script.asked[0]
    assert (method, path, headers["if-match"]) == ("PUT", "/budget?dry_run=true", '"7"')
    assert json.loads(body) == {"thresholds": [0.9, None]}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthorized", UnauthorizedError),
        (403, "above_ceiling", ForbiddenError),
        (410, "state_gone", StateGoneError),
        (412, "revision_changed", RevisionChangedError),
        (422, "budget_not_met", BudgetNotMetError),
        (422, "news", ProblemError),
        (500, "internal", ProblemError),
    ],
)
def test_a_refusal_is_raised_by_its_kind_and_not_tried_again(
    make_client: Make, status: int, code: str, kind: type[ProblemError]
) -> None:
    document = problem(status, code, nearest={"gmacs": 0.3})
    with (
        serving(Answer(status, document)) as script,
        make_client(script.url) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.classify(b"photo")
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.detail) == (status, code, PROBLEM["detail"])
    assert error.request_id == PROBLEM["request_id"]
    assert error.problem.more["nearest"] == {"gmacs": 0.3}
    assert len(script.asked) == 1
    assert pickle.loads(pickle.dumps(error)).problem == error.problem


def test_a_page_of_some_proxy_is_a_problem_too(make_client: Make) -> None:
    with (
        serving(Answer(502, b"<h1>Bad\n gateway</h1>")) as script,
        make_client(script.url) as client,
        pytest.raises(ProblemError, match="the server answered 502: <h1>Bad gateway") as caught,
    ):
        client.model()
    assert caught.value.code == "http_502"


def test_a_redirect_is_not_followed_with_the_key(make_client: Make) -> None:
    with (
        serving(Answer(307, b"", {"Location": "http://elsewhere/"})) as script,
        make_client(script.url) as client,
        pytest.raises(UnreachableError, match="redirects to http://elsewhere/"),
    ):
        client.model()


@pytest.mark.parametrize("body", [b"<html>", {"revision": "x"}, []])
def test_an_answer_that_makes_no_sense_is_told_as_such(make_client: Make, body: object) -> None:
    with serving(Answer(200, body)) as script, make_client(script.url) as client, pytest.raises(AnswerError):
        client.budget()


def test_an_overloaded_server_is_asked_again_when_it_said(make_client: Make) -> None:
    pauses: list[float] = []
    with serving(BUSY, HangUp(), FINE) as script, make_client(script.url, sleep=pauses.append) as client:
        assert client.classify(b"photo").result.label == "cat"
    assert len(script.asked) == 3
    assert pauses[0] >= 2
    assert pauses[1] < 1


def test_tries_have_an_end_and_the_last_error_tells_when_to_come_again(make_client: Make) -> None:
    with (
        serving(BUSY, BUSY) as script,
        make_client(script.url, retry=Retry(tries=2), sleep=lambda _: None) as client,
        pytest.raises(UnavailableError) as caught,
    ):
        client.classify(b"photo")
    assert len(script.asked) == 2
    assert caught.value.retry_after_s == 2


def test_after_its_deadline_nothing_is_tried_again(make_client: Make) -> None:
    with serving(BUSY) as script, make_client(script.url) as client, pytest.raises(UnavailableError):
        client.classify(b"photo", deadline_ms=500)
    assert len(script.asked) == 1


def test_what_may_have_been_done_is_not_done_again(make_client: Make) -> None:
    with serving(HangUp(), HangUp()) as script, make_client(script.url, sleep=lambda _: None) as client:
        with pytest.raises(UnreachableError, match="broke off"):
            client.send_feedback("id", "cat")
        with pytest.raises(UnreachableError, match="broke off"):
            client.put_budget({"profile": "fast"}, if_match=7)
    assert len(script.asked) == 2


def test_where_nothing_listens_is_told_with_the_address(make_client: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pauses: list[float] = []
    with (
        make_client(f"http://127.0.0.1:{port}", sleep=pauses.append) as client,
        pytest.raises(UnreachableError, match=f"nothing answers at http://127.0.0.1:{port}"),
    ):
        client.send_feedback("id", "cat")
    assert len(pauses) == 3, "what was never sent can be sent again"


def test_a_server_that_says_nothing_is_given_up(make_client: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with make_client(url, timeout_s=0.05) as client, pytest.raises(UnreachableError, match=r"for 0\.05 s"):
            client.model()


def test_not_ready_is_an_answer_to_who_asks_for_health(make_client: Make) -> None:
    steps = Answer(503, problem(503, "not_ready", detail="warming up")), Answer(200, {"status": "live"})
    with serving(*steps) as script, make_client(script.url) as client:
        ready, live = client.health(), client.health("live")
    assert (ready.ok, ready.status, ready.detail) == (False, "not_ready", "warming up")
    assert live.ok
    assert [path for _, path, _, _ in script.asked] == ["/health/ready", "/health/live"]


def test_events_come_in_order_and_end_with_done(make_client: Make) -> None:
    chunks = [WHOLE_STREAM[:100], WHOLE_STREAM[100:]]
    with (
        serving(BUSY, Stream(chunks, then="wait")) as script,
        make_client(script.url, sleep=lambda _: None) as client,
    ):
        events = list(client.stream(b"photo", top_k=2))
        assert script.client_left.wait(10), "after `done` the connection is not kept"
    assert [type(event).__name__ for event in events] == [
        "ExitEvent",
        "ExitEvent",
        "ResultEvent",
        "ErrorEvent",
        "DoneEvent",
    ]
    assert isinstance(events[-1], DoneEvent)
    assert script.asked[1][2]["accept"] == "text/event-stream"


def test_who_closes_the_iterator_closes_the_connection(make_client: Make) -> None:
    with serving(Stream([WHOLE_STREAM[:-200]], then="wait")) as script, make_client(script.url) as client:
        events = client.stream(b"photo")
        assert isinstance(next(events), ExitEvent)
        assert not script.client_left.is_set()
        events.close()
        assert script.client_left.wait(10)


def test_refining_can_be_followed_too(make_client: Make) -> None:
    with serving(Stream([WHOLE_STREAM])) as script, make_client(script.url) as client:
        events = list(client.stream_refine("id", "final"))
    assert any(isinstance(event, ResultEvent) for event in events)
    assert script.asked[0][1] == "/classify/id/refine"


@pytest.mark.parametrize("then", ["end", "cut"])
def test_a_stream_that_ends_before_done_is_an_error(make_client: Make, then: str) -> None:
    with serving(Stream([WHOLE_STREAM[:-10]], then=then)) as script, make_client(script.url) as client:
        events = client.stream(b"photo")
        assert isinstance(next(events), ExitEvent)
        with pytest.raises(UnreachableError):
            list(events)
    assert len(script.asked) == 1, "what has begun to be answered is not asked again"


def test_no_stream_where_one_was_asked_for_is_told(make_client: Make) -> None:
    with (
        serving(FINE) as script,
        make_client(script.url) as client,
        pytest.raises(AnswerError, match="not a stream of events"),
    ):
        list(client.stream(b"photo"))


def test_a_refused_stream_is_raised_like_any_refusal(make_client: Make) -> None:
    with (
        serving(Answer(410, problem(410, "state_gone"))) as script,
        make_client(script.url, retry=NEVER) as client,
        pytest.raises(StateGoneError),
    ):
        list(client.stream_refine("id"))
