"""Classes by their probability: the same answers, whether all are held or the best alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from service.types import ExitTaken, RankedClass, Ranking

Floats = NDArray[np.floating]

# Few values, so that many are equal; few classes, and so many that they are ranked in another way.
all_probabilities = arrays(
    np.float64, st.integers(1, 12) | st.integers(30, 40), elements=st.sampled_from([0.0, 0.1, 0.25, 0.5])
)


def whole(probabilities: Floats) -> Ranking:
    return Ranking(probabilities, len(probabilities))


def best_alone(probabilities: Floats, count: int) -> Ranking:
    order = np.argsort(-probabilities, kind="stable")[:count]
    return Ranking(probabilities[order], len(probabilities), order)


def test_the_best_comes_first_and_of_equals_the_lower_number() -> None:
    ranking = whole(np.array([0.2, 0.3, 0.2, 0.3]))
    assert ranking.label == 1
    assert ranking.best(3) == [RankedClass(1, 0.3), RankedClass(3, 0.3), RankedClass(0, 0.2)]
    assert len(ranking.best(99)) == 4


@given(all_probabilities, st.integers(1, 12), st.integers(1, 14))
def test_the_best_alone_tell_what_all_tell_as_far_as_they_go(probabilities: Floats, held: int, asked: int) -> None:
    every, few = whole(probabilities), best_alone(probabilities, held)
    assert few.label == every.label
    assert few.best(asked) == every.best(min(asked, held))
    assert few.tells(asked) == (few.best(asked) == every.best(asked))
    assert every.tells(asked)


@given(all_probabilities)
def test_all_of_them_in_rank_are_the_same_by_number(probabilities: Floats) -> None:
    np.testing.assert_array_equal(best_alone(probabilities, len(probabilities)).whole(), probabilities)
    np.testing.assert_array_equal(whole(probabilities).whole(), probabilities)


def test_some_of_them_are_never_taken_for_all() -> None:
    with pytest.raises(AssertionError, match="2 classes of 3"):
        best_alone(np.array([0.2, 0.3, 0.5]), 2).whole()


@pytest.mark.parametrize("held", [None, 2])
def test_one_that_is_alone_keeps_no_batch(held: int | None) -> None:
    batch = np.array([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]])
    order = np.array([[2, 1], [0, 1]])
    ranking = Ranking(batch[0], 3) if held is None else Ranking(batch[0, :2], 3, order[0])
    taken = ExitTaken(1, ranking, 0.5, 0.9).alone()
    assert taken.ranking.best(2) == ranking.best(2)
    assert taken.ranking.probabilities.base is None
    assert taken.ranking.classes is None or taken.ranking.classes.base is None
    assert taken.alone() is taken
