"""What a device reaches in large products is a rate of this device, not a guess."""

import time

import pytest
import torch

from models.device_rate import device_seconds, matrix_tflops

CPU = torch.device("cpu")


def test_a_rate_is_that_of_products_as_they_take_in_fact() -> None:
    """Between a tenth of a GFLOP/s and more than any CPU has."""
    assert 1e-4 < matrix_tflops(CPU, torch.float32) < 100


def test_the_time_is_the_median_of_those_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = iter([50.0, 50.0, 50.0, 1.0, 200.0, 3.0])
    now = 0.0

    def run() -> None:
        nonlocal now
        now += next(takes)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert device_seconds(run, CPU, repeats=3) == 3.0
