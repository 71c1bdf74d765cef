"""Forty classes, of which a device tells the best 16 unless somebody needs more: nobody notices but by the cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.integration.infer_requests import INFER, files, tensors
from tests.service.cascades import FakeBackend, client_of, make_service, picture, small_profiles, sure_at
from tests.service.exchanges import parse

LABELS = tuple(f"class {number}" for number in range(40))
HELD = 16
EASY, HARD = 4, 14


@contextmanager
def classifying(folder: Path, held: int | None = HELD, **settings: Any) -> Iterator[tuple[TestClient, FakeBackend]]:
    script = sure_at({EASY: 1, HARD: 3})
    backend = FakeBackend(script, lambda kind, stage: kind, labels=LABELS, brief_classes=held)
    with client_of(make_service(folder, backend, profiles=small_profiles(), **settings)) as client:
        yield client, backend


def first(client: TestClient, kind: int = EASY, query: str = "") -> dict[str, Any]:
    (result,) = client.post(f"/classify{query}", content=picture(kind)).json()["results"]
    return dict(result)


def without_what_is_of_one_call(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("id", "timing_ms")}


def stages(backend: FakeBackend) -> list[int]:
    return [stage for stage, _ in backend.batches]


@pytest.mark.parametrize("top_k", [1, 16, 17, 30, 40, 99])
def test_as_many_predictions_are_given_as_are_asked_for(tmp_path: Path, top_k: int) -> None:
    answers = []
    for held in (HELD, None):
        with classifying(tmp_path, held) as (client, _):
            results = [first(client, kind, f"?top_k={top_k}") for kind in (EASY, HARD)]
        answers.append([without_what_is_of_one_call(result) for result in results])
    assert answers[0] == answers[1]
    for answer in answers[0]:
        probabilities = [each["probability"] for each in answer["predictions"]]
        assert len(probabilities) == min(top_k, 40)
        assert probabilities == sorted(probabilities, reverse=True)


def test_every_exit_of_a_stream_has_as_many_too(tmp_path: Path) -> None:
    with classifying(tmp_path) as (client, _):
        text = client.post("/classify?top_k=30", content=picture(HARD), headers={"Accept": "text/event-stream"}).text
    exits = [event.data for event in parse(text) if event.name == "exit"]
    assert [len(told["predictions"]) for told in exits] == [30, 30, 30]


def test_the_open_inference_protocol_gives_all_probabilities(tmp_path: Path) -> None:
    found = []
    for held in (HELD, None):
        with classifying(tmp_path, held) as (client, _):
            answer = tensors(client.post(INFER, json=files(EASY, HARD)).json())
            found.append(np.reshape(answer["probabilities"], (2, 40)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0].sum(axis=1), 1, rtol=1e-6)
    assert found[0].argmax(axis=1).tolist() == [EASY, HARD]


@pytest.mark.parametrize("classes", [1, 16, 20, 99])
def test_the_open_inference_protocol_gives_the_best_classes(tmp_path: Path, classes: int) -> None:
    asked = {**files(EASY), "outputs": [{"name": "probabilities", "parameters": {"classification": classes}}]}
    with classifying(tmp_path) as (client, _):
        (output,) = client.post(INFER, json=asked).json()["outputs"]
    assert output["shape"] == [1, min(classes, 40)]
    assert output["data"][0] == "0.970000:4:class 4"


def test_an_answer_of_few_classes_is_not_given_to_who_needs_more_but_computed_anew_and_kept(tmp_path: Path) -> None:
    with classifying(tmp_path, cache="key", refine_seconds=60) as (client, backend):
        for top_k, computed in ((5, [1]), (16, [1]), (30, [1, 1]), (40, [1, 1]), (5, [1, 1])):
            assert len(first(client, EASY, f"?top_k={top_k}")["predictions"]) == top_k
            assert stages(backend) == computed
        answer = tensors(client.post(INFER, json=files(EASY)).json())
        assert stages(backend) == [1, 1], "a file is known by its content, however it came"
    assert sum(answer["probabilities"]) == pytest.approx(1, rel=1e-6)


def test_a_deep_answer_of_few_classes_is_not_gone_on_with_by_who_needs_more(tmp_path: Path) -> None:
    """Where time was up on the way, that one's answer would be an exit of few classes."""
    with classifying(tmp_path, cache="key", refine_seconds=60) as (client, backend):
        first(client, EASY)
        assert first(client, EASY, "?profile=full")["exit"]["number"] == 3
        assert stages(backend) == [1, 2, 3], "gone on with for as few"
        assert len(first(client, EASY, "?profile=full&top_k=30")["predictions"]) == 30
        assert stages(backend) == [1, 2, 3, 1, 2, 3]
        assert len(first(client, EASY, "?top_k=30")["predictions"]) == 30
        assert stages(backend) == [1, 2, 3, 1, 2, 3]


def test_an_exit_that_was_reached_is_refined_to_as_many_predictions_as_are_known_of_it(tmp_path: Path) -> None:
    with classifying(tmp_path, refine_seconds=60) as (client, _):

        def refined(result_id: str, wish: object) -> int:
            response = client.post(f"/classify/{result_id}/refine?top_k=30", json=wish)
            assert response.status_code == 200, response.text
            return len(response.json()["results"][0]["predictions"])

        few, many = first(client, EASY)["id"], first(client, EASY, "?top_k=30")["id"]
        assert [refined(few, {"to": 1}), refined(many, {"to": 1})] == [HELD, 30]
        assert [refined(few, {"to": "final"}), refined(many, {"to": "final"})] == [30, 30]
