"""What an exit says of a batch: by a device's brief as by all logits, whatever a neighbour in the batch asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.policy import MEASURES, ExitMeasure
from service.backends.base import Brief
from service.engine.exits import Word, judge
from service.types import ExitRule
from tests.service.briefs import brief_of

EXITS = 3

Logits = NDArray[np.float32]

measures = st.builds(ExitMeasure, st.sampled_from(MEASURES), st.tuples(*[st.floats(0.5, 2)] * EXITS))
all_logits = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 12)),
    elements=st.floats(-5, 5, width=32).map(lambda value: round(value, 1)) | st.just(float("nan")),
    fill=st.nothing(),
)
thresholds = st.none() | st.floats(0, 1)
rules = st.builds(ExitRule, st.tuples(*[thresholds] * (EXITS - 1)), st.integers(1, EXITS))


@dataclass(frozen=True)
class Output:
    """A computed batch without slots behind it."""

    logits: Logits
    brief: Brief | None = None

    def keep(self, rows: Sequence[int]) -> None:
        raise AssertionError("nothing is handed on here")


@dataclass(frozen=True)
class OnDevice:
    """One whose logits are not to be fetched."""

    brief: Brief

    @property
    def logits(self) -> NoReturn:
        raise AssertionError("the logits were fetched")

    def keep(self, rows: Sequence[int]) -> None:
        raise AssertionError("nothing is handed on here")


def told(words: Sequence[Word], classes: int) -> list[tuple[object, ...]]:
    """All that can be told of them, with so many classes."""
    exits = [(word.reason, word.taken) for word in words]
    return [
        (reason,)
        if taken is None
        else (reason, taken.number, taken.confidence, taken.threshold, taken.ranking.best(classes))
        for reason, taken in exits
    ]


@given(st.data(), measures, all_logits, st.integers(1, EXITS), st.integers(1, 12), st.integers(1, 12))
def test_a_brief_says_what_all_logits_say(
    data: st.DataObject, measure: ExitMeasure, logits: Logits, stage: int, held: int, asked: int
) -> None:
    asked_rules = [data.draw(rules) for _ in logits]
    by_logits = judge(measure, stage, Output(logits), asked_rules, asked)
    brief = brief_of(logits, measure, stage, held)
    by_brief = judge(
        measure, stage, OnDevice(brief) if brief.tells(asked) else Output(logits, brief), asked_rules, asked
    )
    assert told(by_brief, asked) == told(by_logits, asked)
    for word in by_logits:
        event(str(word.reason))


def test_logits_are_fetched_where_one_image_needs_more_classes_than_a_brief_holds() -> None:
    logits = np.arange(8, dtype=np.float32).reshape(2, 4)
    measure, rule = ExitMeasure("max_softmax", (1.0,) * EXITS), ExitRule((0.0, 0.0), EXITS)
    brief = brief_of(logits, measure, 1, 2)
    with pytest.raises(AssertionError, match="fetched"):
        judge(measure, 1, OnDevice(brief), [rule] * 2, 3)
    for asked, held in ((2, 2), (3, 4), (99, 4)):
        for word in judge(measure, 1, Output(logits, brief), [rule] * 2, asked):
            assert word.taken is not None
            assert word.taken.ranking.held == held
            assert [best.index for best in word.taken.ranking.best(9)] == [3, 2, 1, 0][:held]


def test_the_same_confidence_decides_whatever_others_of_the_batch_ask_for() -> None:
    """A device may round its last bit otherwise than the host."""
    logits = np.array([[0.0, 1.0, 2.0]], np.float32)
    measure = ExitMeasure("max_softmax", (1.0,) * EXITS)
    brief = brief_of(logits, measure, 1, 2)
    brief.confidences[0] = np.nextafter(brief.confidences[0], 1)
    rule = ExitRule((float(brief.confidences[0]), None), EXITS)
    for asked in (2, 3):
        (word,) = judge(measure, 1, Output(logits, brief), [rule], asked)
        assert word.reason == "confident"
    (word,) = judge(measure, 1, Output(logits), [rule], 2)
    assert word.reason is None


def test_an_image_that_goes_on_keeps_nothing_of_its_batch_but_its_own() -> None:
    logits = np.zeros((3, 4), np.float32)
    measure, never = ExitMeasure("margin", (1.0,) * EXITS), ExitRule((None, None), EXITS)
    for brief in (None, brief_of(logits, measure, 1, 2)):
        for word in judge(measure, 1, Output(logits, brief), [never] * 3, 1):
            assert word.taken is not None
            assert word.taken.alone() is word.taken


@pytest.mark.parametrize("logits", [np.zeros(4), np.zeros((3, 4)), np.zeros((2, 2, 4))])
def test_an_output_that_is_not_of_its_images_is_refused(logits: Logits) -> None:
    measure, rule = ExitMeasure("max_softmax", (1.0,) * EXITS), ExitRule((0.5, 0.5), EXITS)
    with pytest.raises(ValueError, match="stage 1"):
        judge(measure, 1, Output(logits), [rule] * 2, 1)


def test_a_brief_that_is_not_of_its_images_is_refused() -> None:
    measure, rule = ExitMeasure("max_softmax", (1.0,) * EXITS), ExitRule((0.5, 0.5), EXITS)
    brief = brief_of(np.zeros((3, 4), np.float32), measure, 1, 2)
    with pytest.raises(ValueError, match="3 images of 2"):
        judge(measure, 1, OnDevice(brief), [rule] * 2, 1)


def test_a_class_is_told_by_its_number() -> None:
    measure, rule = ExitMeasure("max_softmax", (1.0,) * EXITS), ExitRule((0.0, 0.0), EXITS)
    logits = np.log(np.array([[0.125, 0.625, 0.25]], np.float32))
    (word,) = judge(measure, 1, OnDevice(brief_of(logits, measure, 1, 2)), [rule], 2)
    assert word.taken is not None
    assert word.taken.label == 1
    (best,) = word.taken.ranking.best(1)
    assert best.index == 1
    assert best.probability == pytest.approx(0.625)
