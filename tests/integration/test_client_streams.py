"""Both clients and `dvt classify --stream` with a service in a process of its own: exits as they are reached, and
answers that are deepened later."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dvt_client import (
    NEVER,
    Client,
    DoneEvent,
    ErrorEvent,
    ExitEvent,
    ProblemError,
    ResultEvent,
    StateGoneError,
)
from tests.dvt_client.kinds import KINDS
from tests.integration.processes import ROOT, environment, running
from tests.integration.scripted_service import DEEP
from tests.service.cascades import picture, wait_until

EASY = 4
SCRIPT = Path(__file__).parent / "scripted_service.py"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    with running((SCRIPT, folder, "certified"), folder, DVT_REFINE_SECONDS="60") as (_, port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, url: str) -> Iterator[Client]:
    with KINDS[request.param](url, retry=NEVER) as client:
        yield client


def test_exits_come_in_order_then_the_result_then_the_end(client: Client) -> None:
    *exits, result, done = client.stream(picture(DEEP), top_k=2)
    words = [(event.exit.number, event.leaves) for event in exits if isinstance(event, ExitEvent)]
    assert words == [(1, False), (2, False), (3, True)]
    assert isinstance(exits[0], ExitEvent)
    assert (exits[0].exit.threshold, exits[0].compute.gmacs, len(exits[0].predictions)) == (0.8, 0.1, 2)
    assert isinstance(result, ResultEvent)
    assert (result.result.exit.number, result.result.exit.reason) == (3, "final")
    assert isinstance(done, DoneEvent)
    assert done.model.name == "small-bundle"


def test_of_several_photos_each_has_its_own_order_and_its_own_end(client: Client) -> None:
    events = list(client.stream(picture(DEEP), picture(EASY)[:40], picture(EASY)))
    assert isinstance(events[-1], DoneEvent)
    ends = {event.index: event for event in events if isinstance(event, ResultEvent | ErrorEvent)}
    assert [type(ends[index]) for index in range(3)] == [ResultEvent, ErrorEvent, ResultEvent]
    for index, reached in ((0, [1, 2, 3]), (2, [1])):
        own = [event for event in events[:-1] if getattr(event, "index", None) == index]
        assert [event.exit.number for event in own if isinstance(event, ExitEvent)] == reached
        assert isinstance(own[-1], ResultEvent)


def test_what_is_refused_before_the_stream_begins_is_raised(client: Client) -> None:
    with pytest.raises(ProblemError) as caught:
        next(client.stream(picture(EASY), profile="nix"))
    assert caught.value.code == "unknown_profile"


def test_who_has_heard_enough_leaves_and_comes_again(client: Client) -> None:
    events = client.stream(picture(DEEP))
    assert isinstance(next(events), ExitEvent)
    events.close()
    wait_until(lambda: "dvt_in_flight_images 0.0" in client.metrics())
    assert client.classify(picture(EASY)).result.exit.number == 1


def test_an_answer_is_deepened_step_by_step(client: Client) -> None:
    first = client.classify(picture(DEEP), max_exit=1).result
    second = client.refine(first.id).result
    assert (second.id, second.exit.number, second.exit.reason) == (first.id, 2, "max_exit")
    third = client.refine(first.id, "final").result
    assert (third.exit.number, third.compute.gmacs) == (3, 1.0)
    assert client.refine(first.id, 2).result.exit.number == 2, "it was reached before"


def test_an_answer_is_deepened_as_far_as_confidence_needs(client: Client) -> None:
    first = client.classify(picture(DEEP), max_exit=1).result
    assert client.refine(first.id, min_confidence=0.9).result.exit.number == 3


def test_deepening_can_be_followed(client: Client) -> None:
    first = client.classify(picture(DEEP), max_exit=1).result
    events = list(client.stream_refine(first.id, "final"))
    assert [type(event) for event in events[-2:]] == [ResultEvent, DoneEvent]
    assert [event.exit.number for event in events if isinstance(event, ExitEvent)][-1] == 3


def test_what_is_not_there_any_more_cannot_be_deepened(client: Client) -> None:
    for refine in (client.refine, lambda result_id: list(client.stream_refine(result_id))):
        with pytest.raises(StateGoneError):
            refine("0" * 32)


def test_the_command_follows_a_photo_exit_by_exit(url: str, tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(picture(DEEP))
    ended = subprocess.run(
        [sys.executable, ROOT / "dvt.py", "classify", "--stream", "deep.png", "--url", url],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    name, *exits, result = ended.stdout.splitlines()
    assert name == "deep.png"
    assert [line.split()[1] for line in exits] == ["1", "2", "3"]
    assert "goes on, confidence 0.300 of 0.800" in exits[0]
    assert "leaves here" in exits[2]
    assert "exit 3 of 3" in result
