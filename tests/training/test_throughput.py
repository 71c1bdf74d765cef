"""FLOPs by one convention, speeds against what the device reaches."""

import time

import pytest
import torch

from models.architectures import build_config
from models.dvt import DVT
from models.flops import cumulative_gmacs, stages_gmacs
from training.throughput import Pace, Speed, Throughput, measure_throughput, training_flops

LABELS = ("a", "b")


@pytest.fixture(scope="module")
def micro() -> DVT:
    return DVT(build_config("dvt_micro", LABELS))


def test_a_step_takes_three_times_the_forward_pass_at_two_flops_a_multiply_accumulate(micro: DVT) -> None:
    assert training_flops(micro) == pytest.approx(6e9 * cumulative_gmacs(micro.eval())[-1])


def test_a_teacher_goes_forward_alone(micro: DVT) -> None:
    teacher = DVT(build_config("static_micro", LABELS)).eval()
    more = training_flops(micro, teacher) - training_flops(micro)
    assert more == pytest.approx(2e9 * cumulative_gmacs(teacher)[-1])


def test_a_stem_whose_features_are_cached_is_not_counted() -> None:
    hybrid = DVT(build_config("dvt_hybrid_lite", LABELS)).eval()
    assert 0 < stages_gmacs(hybrid) < 0.6 * cumulative_gmacs(hybrid)[-1]


def test_counting_leaves_the_network_as_it_was(micro: DVT) -> None:
    micro.train()
    before = {name: tensor.clone() for name, tensor in micro.state_dict().items()}
    training_flops(micro)
    assert micro.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in micro.state_dict().items())


def test_a_speed_is_told_in_images_in_flops_and_as_share_of_the_ceiling() -> None:
    assert Throughput(2e9, 16.0).at(2000) == Speed(2000, 4.0, 0.25)


def test_the_ceiling_is_that_of_all_processes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.throughput.matrix_tflops", lambda device, dtype: 10.0)
    assert measure_throughput(1e9, torch.device("cpu"), torch.bfloat16, 4) == Throughput(1e9, 40.0)


def test_what_lies_between_two_looks_is_not_the_steps_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace(Throughput(1e9, 1.0), batch=8)
    pace.restart(20)
    now = 102.0
    assert pace.speed(30).images_per_s == pytest.approx(40)
    now = 500.0  # an evaluation, a checkpoint
    pace.restart(30)
    now = 501.0
    assert pace.speed(40).images_per_s == pytest.approx(80)
