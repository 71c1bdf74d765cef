import json

import pytest

from dvt_client import AnswerError, Classification, ImageFailure, ImageResult, Point, ProblemError
from dvt_client.parsing import load, read
from tests.dvt_client.samples import ANSWER, POINT, PROBLEM, RESULT


def test_an_answer_is_read_field_for_field() -> None:
    answer = read(Classification, json.loads(json.dumps(ANSWER)))
    assert (answer.request_id, answer.model.name, answer.budget.point) == ("9f5be69ba54c2a3a", "small", 31)
    result = answer.result
    assert (result.label, result.probability, result.exit.reason) == ("cat", 0.61, "confident")
    assert (result.timing_ms.stages, result.timing_ms.total, result.certificate) == ((2.5,), 5.0, None)
    assert isinstance(result.timing_ms.total, float)


def test_what_a_newer_server_says_besides_is_left_out() -> None:
    newer = {**ANSWER, "news": 1, "results": [{**RESULT, "news": {"a": [1]}, "exit": {**RESULT["exit"], "news": None}}]}
    assert read(Classification, newer) == read(Classification, ANSWER)


def test_a_failed_image_stands_in_the_place_of_its_result() -> None:
    answer = read(Classification, {**ANSWER, "results": [RESULT, {"error": {**PROBLEM, "nearest": {"gmacs": 1}}}]})
    first, second = answer.results
    assert isinstance(first, ImageResult)
    assert isinstance(second, ImageFailure)
    assert (second.error.code, second.error.more) == ("corrupt_image", {"nearest": {"gmacs": 1}})
    with pytest.raises(ValueError, match="2 results"):
        _ = answer.result


def test_the_only_image_failed_is_raised() -> None:
    answer = read(Classification, {**ANSWER, "results": [{"error": PROBLEM}]})
    with pytest.raises(ProblemError, match="truncated"):
        _ = answer.result


def test_never_stays_never() -> None:
    assert read(Point, POINT).thresholds == (0.4, None)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"thresholds": 1}, "thresholds is 1, expected a list"),
        ({"thresholds": ["x"]}, r"thresholds\[0\] is 'x', expected float"),
        ({"top1": True}, "top1 is True, expected float"),
        ({"number": 1.5}, "number is 1.5, expected int"),
        ({"number": True}, "number is True, expected int"),
        ({"certificate": {}}, "certificate has no 'risk'"),
    ],
)
def test_what_is_of_another_type_is_named_with_its_place(changed: dict[str, object], says: str) -> None:
    with pytest.raises(AnswerError, match=says):
        read(Point, {**POINT, **changed})


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000])
def test_no_json_is_an_error_of_the_answer(body: bytes) -> None:
    with pytest.raises(AnswerError):
        load(body)
