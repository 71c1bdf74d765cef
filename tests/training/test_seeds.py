import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.seeds import epoch_order, rng, step_indices, steps_per_epoch

SEEDS = st.integers(0, 2**63)


@given(n=st.integers(1, 500), seed=SEEDS, epoch=st.integers(0, 1000))
def test_an_epoch_visits_every_image_once_and_the_same_way_when_asked_again(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed, epoch)
    assert sorted(order) == list(range(n))
    np.testing.assert_array_equal(order, epoch_order(n, seed, epoch))


def test_epochs_and_seeds_shuffle_differently() -> None:
    orders = {tuple(epoch_order(100, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@given(steps=st.integers(1, 5), batch=st.integers(1, 6), world=st.integers(1, 4), rest=st.integers(0, 3), seed=SEEDS)
def test_processes_together_see_what_one_process_with_the_whole_batch_sees(
    steps: int, batch: int, world: int, rest: int, seed: int
) -> None:
    order = epoch_order(steps * batch * world + min(rest, batch * world - 1), seed, 0)
    assert steps_per_epoch(len(order), batch, world) == steps_per_epoch(len(order), batch * world) == steps
    for step in range(steps):
        shards = [step_indices(order, step, batch, rank, world) for rank in range(world)]
        np.testing.assert_array_equal(np.concatenate(shards), step_indices(order, step, batch * world))


@given(n=st.integers(0, 60), batch=st.integers(1, 7))
def test_an_epoch_trains_on_no_image_twice_and_leaves_out_less_than_a_batch(n: int, batch: int) -> None:
    order = epoch_order(n, seed=3, epoch=1)
    seen = [int(i) for step in range(steps_per_epoch(n, batch)) for i in step_indices(order, step, batch)]
    assert len(set(seen)) == len(seen) > n - batch


@pytest.mark.parametrize("step", [-1, 3])
def test_a_step_outside_the_epoch_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match="3 steps"):
        step_indices(epoch_order(10, 0, 0), step, batch=3)


def test_a_generator_depends_on_its_purpose_and_on_every_number_of_its_key() -> None:
    keys = [("a", 1, 2), ("b", 1, 2), ("a", 2, 2), ("a", 1, 3), ("a", 1), ("a", 1 + 2**32, 2)]
    assert len({rng(purpose, *key).random() for purpose, *key in keys}) == len(keys)  # type: ignore[arg-type]


def test_generators_leave_the_global_ones_alone() -> None:
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    rng("a", 1).random(1000)
    assert np.random.random() == expected
