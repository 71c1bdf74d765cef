"""The same image again: answered from what was computed before, as if it had been computed now."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.api import tickets
from service.engine.audit import Audit
from service.engine.content import ContentKeys
from tests.integration.infer_requests import INFER, tensors, with_pixels
from tests.service.cascades import (
    ADMIN,
    GMACS,
    SIZE_PX,
    FakeBackend,
    bearer,
    certified_profiles,
    client_of,
    make_service,
    picture,
    small_profiles,
    sure_at,
    wait_until,
)
from tests.service.exchanges import parse

EASY, MEDIUM, HARD = 4, 9, 14
SCRIPT = sure_at({EASY: 1, MEDIUM: 2, HARD: 3})
EVENTS = {"Accept": "text/event-stream"}


@contextmanager
def caching(folder: Path, backend: FakeBackend, **settings: Any) -> Iterator[TestClient]:
    values = {"cache": "key", "refine_seconds": 60, "profiles": small_profiles(), **settings}
    with client_of(make_service(folder, backend, **values)) as client:
        yield client


def first(client: TestClient, kind: int = EASY, query: str = "", **options: Any) -> dict[str, Any]:
    (result,) = client.post(f"/classify{query}", content=picture(kind), **options).json()["results"]
    return dict(result)


def without_what_is_of_one_call(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("id", "timing_ms")}


def metric(client: TestClient, name: str) -> float:
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


def lookups(client: TestClient) -> dict[str, float]:
    return {
        found: metric(client, f'dvt_reuse_total{{call="classify",found="{found}"}}')
        for found in ("stored", "resumed", "missed")
    }


def test_the_same_image_again_is_neither_decoded_nor_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend(SCRIPT)
    with caching(tmp_path, backend) as client:
        before = first(client, MEDIUM)
        monkeypatch.setattr(tickets, "decode", None)
        again = first(client, MEDIUM)
        assert lookups(client) == {"stored": 1, "resumed": 0, "missed": 1}
    assert without_what_is_of_one_call(again) == without_what_is_of_one_call(before)
    assert again["id"] != before["id"]
    assert (again["timing_ms"]["decode"], again["timing_ms"]["stages"]) == (0.0, [])
    assert [stage for stage, _ in backend.batches] == [1, 2]


def test_what_the_budget_wants_deeper_is_gone_on_with(tmp_path: Path) -> None:
    backend = FakeBackend(SCRIPT)
    with caching(tmp_path, backend) as client:
        assert first(client, EASY)["exit"]["number"] == 1
        client.put("/budget", json={"profile": "full"}, headers=ADMIN)
        deeper = first(client, EASY)
        client.put("/budget", json={"profile": "balanced"}, headers=ADMIN)
        assert first(client, EASY)["exit"]["number"] == 1
        assert lookups(client) == {"stored": 1, "resumed": 1, "missed": 1}
    assert (deeper["exit"]["number"], deeper["exit"]["reason"]) == (3, "final")
    assert deeper["compute"]["gmacs"] == GMACS[2]
    assert len(deeper["timing_ms"]["stages"]) == 2
    assert [stage for stage, _ in backend.batches] == [1, 2, 3]


@pytest.mark.parametrize("first_asked", ["", "profile=full", "max_exit=1"])
def test_every_wish_is_met_as_without_it(tmp_path: Path, first_asked: str) -> None:
    wishes = [
        "",
        "profile=fast",
        "profile=full",
        "thresholds=null,0.5",
        "thresholds=0.2,0.2",
        "min_confidence=0.98",
        "min_confidence=0.3",
        "max_exit=1",
        "max_exit=2",
        "profile=full&max_exit=2",
        "top_k=1",
    ]
    answers = {}
    for cache in ("off", "key"):
        with caching(tmp_path, FakeBackend(SCRIPT), cache=cache) as client:
            first(client, MEDIUM, f"?{first_asked}")
            answers[cache] = [without_what_is_of_one_call(first(client, MEDIUM, f"?{wish}")) for wish in wishes]
    assert answers["key"] == answers["off"]


def test_where_the_state_is_gone_it_is_computed_from_its_start(tmp_path: Path) -> None:
    backend = FakeBackend(SCRIPT)
    with caching(tmp_path, backend, refine_seconds=0) as client:
        first(client)
        assert first(client, query="?profile=full")["exit"]["number"] == 3
        assert first(client, query="?profile=full")["exit"]["number"] == 3
        assert lookups(client) == {"stored": 1, "resumed": 0, "missed": 2}
    assert [stage for stage, _ in backend.batches] == [1, 1, 2, 3]


@pytest.mark.parametrize(("cache", "batches"), [("off", 4), ("key", 2), ("shared", 1)])
def test_it_is_of_each_key_unless_it_is_shared_or_off(tmp_path: Path, cache: str, batches: int) -> None:
    backend = FakeBackend(SCRIPT)
    with caching(tmp_path, backend, cache=cache, api_keys="alice-key,bob-key") as client:
        for key in ("alice-key", "bob-key") * 2:
            assert first(client, headers=bearer(key))["exit"]["number"] == 1
    assert len(backend.batches) == batches


def test_a_shared_image_can_be_refined_by_each_by_his_own_id(tmp_path: Path) -> None:
    backend = FakeBackend(SCRIPT)
    alice, bob = bearer("alice-key"), bearer("bob-key")
    with caching(tmp_path, backend, cache="shared", api_keys="alice-key,bob-key") as client:
        ids = [first(client, headers=key)["id"] for key in (alice, bob)]

        def status(result_id: str, key: dict[str, str]) -> int:
            return client.post(f"/classify/{result_id}/refine", json={"to": "final"}, headers=key).status_code

        assert [status(ids[0], alice), status(ids[1], bob), status(ids[0], bob), status(ids[1], alice)] == [
            200,
            200,
            410,
            410,
        ]
    assert [stage for stage, _ in backend.batches] == [1, 2, 3]


def test_a_request_that_is_drawn_for_an_audit_is_computed_whatever_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And drawn like any other: the lottery is asked about every image of the budget, known or not."""
    asked = 0
    draw = Audit.draw

    def counting(self: Audit, thresholds: Any) -> Any:
        nonlocal asked
        asked += 1
        return draw(self, thresholds)

    monkeypatch.setattr(Audit, "draw", counting)
    backend = FakeBackend(SCRIPT)
    with caching(tmp_path, backend, audit_share=1.0) as client:
        for _ in range(3):
            first(client)
            wait_until(lambda: client.get("/audit").json()["pending"] == 0)
        service = client.app.state.service  # type: ignore[attr-defined]  # an application of Starlette's
        service.audit.settle()
        assert metric(client, 'dvt_audits_total{found="agreed"}') == 3
        assert first(client, query="?max_exit=1")["exit"]["reason"] == "confident"
    assert asked == 3
    assert [stage for stage, _ in backend.batches] == [1, 2, 3] * 3


def test_an_answer_that_is_known_is_under_the_budget_of_now(tmp_path: Path) -> None:
    with caching(tmp_path, FakeBackend(SCRIPT), profiles=certified_profiles()) as client:
        assert first(client)["certificate"] is None
        client.put("/budget", json={"max_risk": {"disagreement": 0.05}}, headers=ADMIN)
        again = first(client)
        assert again["certificate"] == {"risk": "disagreement", "epsilon": 0.05, "delta": 0.0125}
        assert again["exit"]["threshold"] == 0.6


def test_what_is_counted_of_a_known_answer_is_what_it_cost(tmp_path: Path) -> None:
    with caching(tmp_path, FakeBackend(SCRIPT)) as client:
        for query in ("", "", "?profile=full"):
            first(client, query=query)
        assert metric(client, "dvt_gmacs_spent_total") == pytest.approx(GMACS[2])
        assert metric(client, "dvt_gmacs_reused_total") == pytest.approx(2 * GMACS[0])
        assert metric(client, "dvt_gmacs_saved_total") == pytest.approx(2 * (GMACS[2] - GMACS[0]))
        assert metric(client, 'dvt_exits_total{exit="1",reason="confident"}') == 2
        assert metric(client, 'dvt_phase_seconds_count{phase="decode"}') == 1
        assert metric(client, 'dvt_phase_seconds_count{phase="compute"}') == 2
        assert metric(client, 'dvt_phase_seconds_count{phase="total"}') == 3
        assert metric(client, "dvt_in_flight_images") == 0
        service = client.app.state.service  # type: ignore[attr-defined]  # an application of Starlette's
        assert service.admission.offered == 2, "what is known is no load for the controller of `auto`"


def test_feedback_takes_a_label_for_each_answer(tmp_path: Path) -> None:
    with caching(tmp_path, FakeBackend(SCRIPT)) as client:
        ids = [first(client)["id"] for _ in range(2)]
        taken = [client.post("/feedback", json={"id": each, "label": "apple"}).json()["correct"] for each in ids]
    assert taken == [True, True]


def test_images_of_one_request_are_known_each_by_itself(tmp_path: Path) -> None:
    backend = FakeBackend(SCRIPT)
    with caching(tmp_path, backend) as client:
        first(client, EASY)
        files = [("image", body) for body in (picture(HARD), picture(EASY), b"no image", picture(MEDIUM))]
        results = client.post("/classify", files=files).json()["results"]
    assert [result["exit"]["number"] for result in (results[0], results[1], results[3])] == [3, 1, 2]
    assert results[2]["error"]["code"] == "unsupported_image"
    assert sum(EASY in kinds for _, kinds in backend.batches) == 1


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    backend = FakeBackend(SCRIPT, poison=frozenset({EASY}))
    with caching(tmp_path, backend) as client:
        assert client.post("/classify", content=picture(EASY)).status_code == 500
        backend.poison = frozenset()
        assert client.post("/classify", content=picture(EASY)).status_code == 200


def test_a_known_answer_streams_its_exits_too(tmp_path: Path) -> None:
    with caching(tmp_path, FakeBackend(SCRIPT)) as client:
        texts = [
            client.post(f"/classify{query}", content=picture(MEDIUM), headers=EVENTS).text
            for query in ("", "", "?profile=full")
        ]
    told = [[(each.name, each.data.get("exit", {}).get("number")) for each in parse(text)] for text in texts]
    assert told[0] == told[1] == [("exit", 1), ("exit", 2), ("result", None), ("done", None)]
    assert told[2] == [("exit", 1), ("exit", 2), ("exit", 3), ("result", None), ("done", None)]


def test_an_image_that_is_being_computed_is_computed_for_others_too(tmp_path: Path) -> None:
    """Nobody waits for a stranger, whose deadline and priority may be others."""
    gate = threading.Event()
    backend = FakeBackend(SCRIPT, gate=gate, gate_before=2, lanes=2)
    with caching(tmp_path, backend) as client:
        early = first(client, HARD, "?deadline_ms=100")
        assert early["exit"]["reason"] == "deadline"
        again = first(client, HARD, "?deadline_ms=100")
        assert again["exit"]["reason"] == "deadline"
        gate.set()
        assert first(client, HARD)["exit"]["number"] == 3


def repeats(images: int, requests: int) -> list[int]:
    """Kinds by Zipf's law: the most popular is asked for twice as often as the second, three times as the third."""
    return random.Random(0).choices(range(1, images + 1), [1 / rank for rank in range(1, images + 1)], k=requests)


def zipf(tmp_path: Path, requests: int) -> None:
    """Over images of which some leave at each exit, under budgets and wishes that change."""
    kinds = repeats(200, requests)
    wishes = random.Random(1).choices(["", "?profile=fast", "?profile=full", "?max_exit=2"], [8, 1, 1, 1], k=requests)
    backends = {}
    answers: dict[str, list[dict[str, Any]]] = {}
    for cache in ("off", "key"):
        backend = backends[cache] = FakeBackend(sure_at({kind: 1 + kind % 3 for kind in range(256)}), slots=64)
        with caching(tmp_path, backend, cache=cache, queue_limit=8) as client:
            client.put("/budget", json={"profile": "balanced"}, headers=ADMIN)
            answers[cache] = [
                without_what_is_of_one_call(first(client, kind, wish)) for kind, wish in zip(kinds, wishes, strict=True)
            ]
    assert answers["key"] == answers["off"]
    assert len(backends["key"].batches) < len(backends["off"].batches) / 2


def test_repeats_by_zipfs_law_are_answered_alike_with_and_without_it(tmp_path: Path) -> None:
    zipf(tmp_path, 400)


@pytest.mark.slow
def test_ten_thousand_repeats_by_zipfs_law_are_answered_alike_with_and_without_it(tmp_path: Path) -> None:
    zipf(tmp_path, 10_000)


def test_pixels_are_known_by_content_too_and_never_taken_for_a_file(tmp_path: Path) -> None:
    """A file may be made of the very bytes that some pixels have; what it shows is something else."""
    file = picture(EASY, "BMP")
    array = np.frombuffer(file[:192].ljust(192, b"\0"), np.uint8).reshape(1, 3, SIZE_PX, SIZE_PX)
    body, headers = with_pixels(array, "UINT8")
    with caching(tmp_path, FakeBackend(SCRIPT)) as client:
        for number in (1, 2):
            answer = client.post(INFER, content=body, headers=headers).json()
            assert tensors(answer)["exit_number"] == [1]
            assert lookups(client) == {"stored": number - 1, "resumed": 0, "missed": 1}
        keys = {ContentKeys("w", "c", is_shared=True).of(data, "") for data in (array[0].tobytes(), array[0])}
        assert len(keys) == 2
