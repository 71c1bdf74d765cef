"""A run that has gone wrong is stopped, one that is merely noisy is not."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.divergence import RECENT, WINDOW, Health, LossWatch, chance_loss
from training.losses import LossConfig, cascade_loss

GOLDEN = Path(__file__).parents[1] / "golden"
# What the recorded runs of ten classes and three exits were trained on.
DIVERGED = LossConfig(distill_from="last", distill_weight=0.3)
HEALTHY = LossConfig(distill_from="teacher", distill_weight=0.5, distill_temperature=2.0)
CHANCE = 5.5


def recorded(name: str) -> list[tuple[int, float]]:
    with (GOLDEN / name).open() as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]


def judged(losses: Iterable[float], chance: float = CHANCE) -> list[Health]:
    """Up to the first loss at which the run would have been stopped."""
    watch, found = LossWatch(chance), []
    for loss in losses:
        found.append(watch.see(float(loss)))
        if found[-1] == "diverged":
            break
    return found


def noisy(curve: NDArray[np.float64], noise: float, seed: int) -> NDArray[np.float64]:
    return curve + np.random.default_rng(seed).normal(0, noise, len(curve))


def learning(looks: int, end: float, pace: float) -> NDArray[np.float64]:
    """From chance to `end`, ever more slowly."""
    return end + (CHANCE - end) * np.exp(-pace * np.arange(looks) / looks)


@pytest.mark.parametrize("config", [LossConfig(), DIVERGED, LossConfig(exit_weights=(0.5, 1, 2), label_smoothing=0.0)])
def test_chance_is_the_loss_of_even_answers(config: LossConfig) -> None:
    targets = torch.tensor([3, 1, 4, 1])
    loss = cascade_loss([torch.zeros(4, 10)] * 3, targets, config).total
    assert chance_loss(config, 3, 10) == pytest.approx(float(loss), rel=1e-6)


def test_a_run_on_a_gpu_that_diverged_is_stopped_soon_after_its_loss_jumped() -> None:
    """Learning rate 1e-3: 4.8 until step 590, 5.9 and more from step 640 to its end at step 5,292."""
    run = recorded("losses.diverged.csv")
    found = judged((loss for _, loss in run), chance_loss(DIVERGED, 3, 10))
    assert found[-1] == "diverged"
    assert 640 <= run[len(found) - 1][0] <= 740
    assert found.index("suspicious") >= next(place for place, (step, _) in enumerate(run) if step > 590)
    assert found[-4:-1] == ["suspicious"] * 3, "no checkpoint is taken once the loss is high"


def test_a_run_that_went_well_was_never_in_doubt() -> None:
    losses = [loss for _, loss in recorded("losses.healthy.csv")]
    assert set(judged(losses, chance_loss(HEALTHY, 3, 10))) == {"fine"}


@given(
    end=st.floats(0.3, 5.4),
    pace=st.floats(0.5, 30),
    noise=st.floats(0, 1),
    looks=st.integers(1, 600),
    seed=st.integers(0, 2**32 - 1),
)
def test_noise_however_large_is_not_divergence(end: float, pace: float, noise: float, looks: int, seed: int) -> None:
    assert "diverged" not in judged(noisy(learning(looks, end, pace), noise, seed))


@given(noise=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_a_run_that_learns_nothing_has_not_diverged(noise: float, seed: int) -> None:
    assert "diverged" not in judged(noisy(np.full(600, CHANCE), noise, seed))


def test_weights_that_were_good_at_the_start_may_get_worse_at_the_peak_of_the_rate() -> None:
    """Of a run from a bundle's weights (`--start`)."""
    looks = np.arange(400)
    hump = 1.0 + 1.5 * np.exp(-(((looks - 100) / 60) ** 2)) - 0.2 * looks / 400
    assert set(judged(noisy(hump, 0.1, 0))) == {"fine"}


def test_single_losses_may_be_as_high_as_they_like() -> None:
    losses = noisy(learning(600, 2.0, 5), 0.1, 0)
    losses[::7] = 100
    assert "diverged" not in judged(losses)


@pytest.mark.parametrize("learnt", [60, 300])
@pytest.mark.parametrize("after", [0.9 * CHANCE, CHANCE, 1.2 * CHANCE, 40.0])
def test_a_loss_that_jumps_and_stays_is(learnt: int, after: float) -> None:
    good = learning(400, 3.0, 10)[:learnt]
    found = judged(noisy(np.concatenate((good, np.full(100, after))), 0.1, 0))
    assert found[-1] == "diverged"
    assert learnt + WINDOW // 2 <= len(found) <= learnt + WINDOW
    assert found[learnt + RECENT : -1] == ["suspicious"] * (len(found) - 1 - learnt - RECENT)


def test_a_loss_that_explodes_before_anything_is_learnt_is() -> None:
    assert judged([CHANCE, *[1000.0] * 50])[-1] == "diverged"
    assert judged([CHANCE] * 8 + [2 * CHANCE] * 50)[-1] == "diverged"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_at_once(loss: float) -> None:
    assert judged([CHANCE, loss]) == ["fine", "diverged"]


def test_a_watch_that_is_fed_the_log_knows_what_the_run_before_knew() -> None:
    losses = [loss for _, loss in recorded("losses.diverged.csv")]
    whole, resumed = LossWatch(CHANCE), LossWatch(CHANCE)
    for loss in losses[:50]:
        resumed.see(loss)
    for place, loss in enumerate(losses[:60]):
        health = whole.see(loss)
        assert place < 50 or health == resumed.see(loss)
    assert (whole.best, whole.limit) == (resumed.best, resumed.limit)
