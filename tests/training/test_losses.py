import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.losses import LossConfig, cascade_loss

PLAIN = LossConfig(label_smoothing=0.0)


def logits_of(exits: int, B: int = 4, classes: int = 3, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(B, classes, generator=draw).requires_grad_() for _ in range(exits)]


def test_one_exit_equals_a_hand_computation() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    loss = cascade_loss([logits], torch.tensor([0, 1]), PLAIN)
    assert loss.total.item() == pytest.approx(-(math.log(0.7) + math.log(0.1)) / 2, rel=1e-6)


def test_label_smoothing_takes_a_share_for_all_classes() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    loss = cascade_loss([logits], torch.tensor([0]), LossConfig(label_smoothing=0.3))
    by_hand = -(0.8 * math.log(0.7) + 0.1 * math.log(0.2) + 0.1 * math.log(0.1))
    assert loss.total.item() == pytest.approx(by_hand, rel=1e-6)


def test_soft_targets_weigh_the_classes() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    loss = cascade_loss([logits], torch.tensor([[0.25, 0.75, 0.0]]), PLAIN)
    assert loss.total.item() == pytest.approx(-(0.25 * math.log(0.7) + 0.75 * math.log(0.2)), rel=1e-6)


@given(weights=st.lists(st.floats(0.1, 4), min_size=1, max_size=5), seed=st.integers(0, 100))
def test_the_total_is_the_weighted_sum_of_the_exits(weights: list[float], seed: int) -> None:
    logits = logits_of(len(weights), seed=seed)
    targets = torch.tensor([0, 1, 2, 0])
    loss = cascade_loss(logits, targets, LossConfig(exit_weights=tuple(weights)))
    alone = [cascade_loss([exit_logits], targets, LossConfig()).total for exit_logits in logits]
    torch.testing.assert_close(loss.exits, torch.stack(alone))
    assert loss.total.item() == pytest.approx(sum(w * a.item() for w, a in zip(weights, alone, strict=True)), rel=1e-4)
    assert not loss.exits.requires_grad


def test_without_weights_every_exit_counts_once() -> None:
    loss = cascade_loss(logits_of(3), torch.tensor([0, 1, 2, 0]), PLAIN)
    assert loss.total.item() == pytest.approx(loss.exits.sum().item(), rel=1e-6)


def test_distillation_from_a_teacher_equals_a_hand_computation() -> None:
    student = torch.log(torch.tensor([[0.5, 0.5]]))
    teacher = 2 * torch.log(torch.tensor([[0.8, 0.2]]))  # at temperature 2 its softmax is 0.8, 0.2
    config = LossConfig(label_smoothing=0.0, distill_from="teacher", distill_weight=0.25, distill_temperature=2.0)
    loss = cascade_loss([student], torch.tensor([0]), config, teacher_logits=teacher)
    distance = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert loss.total.item() == pytest.approx(0.75 * math.log(2) + 0.25 * 4 * distance, rel=1e-5)


def test_the_last_exit_teaches_the_others_and_learns_nothing_from_it() -> None:
    config = LossConfig(label_smoothing=0.0, distill_from="last", distill_weight=1.0)
    logits = logits_of(3)
    loss = cascade_loss(logits, torch.tensor([0, 1, 2, 0]), config)
    torch.autograd.backward(loss.total)
    alone = logits_of(3)[2]
    torch.autograd.backward(cascade_loss([alone], torch.tensor([0, 1, 2, 0]), PLAIN).total)
    assert logits[2].grad is not None
    assert alone.grad is not None
    torch.testing.assert_close(logits[2].grad, alone.grad)
    assert logits[0].grad is not None
    expected = (logits[0].softmax(1) - logits[2].softmax(1)) / 4  # the gradient of KL(teacher || student)
    torch.testing.assert_close(logits[0].grad, expected)


def test_an_exit_that_agrees_with_its_teacher_has_no_distance_to_it() -> None:
    same = logits_of(1)[0]
    config = LossConfig(distill_from="last", distill_weight=1.0, distill_temperature=3.0)
    loss = cascade_loss([same, same], torch.tensor([0, 1, 2, 0]), config)
    assert loss.exits[0].item() == pytest.approx(0.0, abs=1e-6)
    assert loss.exits[1].item() > 0.1


def test_half_precision_logits_are_judged_in_single_precision() -> None:
    logits = [exit_logits.detach().to(torch.bfloat16) for exit_logits in logits_of(2)]
    loss = cascade_loss(logits, torch.tensor([0, 1, 2, 0]), LossConfig(distill_from="last"))
    assert loss.total.dtype == torch.float32
    same = cascade_loss([each.float() for each in logits], torch.tensor([0, 1, 2, 0]), LossConfig(distill_from="last"))
    assert torch.equal(loss.total, same.total)


def test_a_teacher_and_weights_must_fit() -> None:
    targets = torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match="exit_weights has 2 entries for 3 exits"):
        cascade_loss(logits_of(3), targets, LossConfig(exit_weights=(1.0, 1.0)))
    with pytest.raises(ValueError, match="teacher_logits go with"):
        cascade_loss(logits_of(3), targets, LossConfig(distill_from="teacher"))
    with pytest.raises(ValueError, match="teacher_logits go with"):
        cascade_loss(logits_of(3), targets, PLAIN, teacher_logits=logits_of(1)[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"exit_weights": (1.0, -1.0)}, "exit_weights"),
        ({"exit_weights": (0.0, 0.0)}, "exit_weights"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"distill_weight": 1.5}, "distill_weight"),
        ({"distill_temperature": 0.0}, "distill_temperature"),
    ],
)
def test_numbers_outside_their_range_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**wrong)  # type: ignore[arg-type]
