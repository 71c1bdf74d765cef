"""The weights that are kept follow those that are trained."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.conv_tokenizer import BatchNorm
from training.average import WeightAverage, ema_decay_at


def test_the_average_follows_with_a_decay_that_warms_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, decay=0.5)
    by_hand = 1.0
    average.update_parameters(model)
    for update, value in enumerate([3.0, -2.0, 5.0, 4.0, 4.0, 7.0, 8.0, 1.0, 0.0, 6.0, 2.0], start=1):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        decay = min(0.5, (1 + update) / (10 + update))
        by_hand = decay * by_hand + (1 - decay) * value
    assert next(average.parameters()).item() == pytest.approx(by_hand, rel=1e-5)


def test_buffers_are_those_of_the_last_update() -> None:
    norm = BatchNorm(2)
    average = WeightAverage(norm, decay=0.9)
    for value in (1.0, 3.0):
        norm.running_mean.fill_(value)
        average.update_parameters(norm)
    kept = average.module.get_buffer("running_mean")
    assert kept.tolist() == [3.0, 3.0]
    norm.running_mean.fill_(7.0)
    assert kept.tolist() == [3.0, 3.0], "a copy, not the same memory"


def test_the_count_of_updates_goes_with_the_weights() -> None:
    model = nn.Linear(1, 1)
    average, resumed = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    for _ in range(3):
        average.update_parameters(model)
    resumed.load_state_dict(average.state_dict())
    assert int(resumed.n_averaged) == 3
    assert resumed.n_averaged.device == torch.device("cpu"), "reading it must not wait for a GPU"


@given(updates=st.integers(0, 10_000), decay=st.floats(0, 0.9999))
def test_the_decay_never_falls_and_never_exceeds_its_limit(updates: int, decay: float) -> None:
    assert 0 <= ema_decay_at(updates, decay) <= ema_decay_at(updates + 1, decay) <= decay
