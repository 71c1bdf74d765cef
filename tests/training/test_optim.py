import copy
import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from models.architectures import build_config
from models.dvt import DVT
from training.average import WeightAverage
from training.muon import MuonConfig
from training.optim import (
    OptimConfig,
    Optimizers,
    build_optimizers,
    clip_gradients,
    rate_share,
    split_parameters,
)

CONFIG = OptimConfig(learning_rate=0.1, total_steps=20, warmup_steps=4, weight_decay=0.5, ema_decay=0.9)
WITH_MUON = replace(CONFIG, muon=MuonConfig(learning_rate=0.2))


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def test_everything_but_vectors_and_embeddings_decays() -> None:
    model = DVT(build_config("dvt_micro", ("a", "b")))
    decayed, kept = split_parameters(model)
    assert decayed.keys() | kept.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not decayed.keys() & kept.keys()
    assert {"stages.0.cls_token", "stages.2.pos_embed", "stages.1.norm.weight"} <= kept.keys()
    assert all(name.endswith((".bias", "norm.weight", "cls_token", "pos_embed")) or "norm" in name for name in kept)
    assert all(name.endswith(".weight") for name in decayed)
    groups = build_optimizers(model, CONFIG).parts[0].param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert [len(group["params"]) for group in groups] == [len(decayed), len(kept)]


def test_frozen_parameters_are_not_trained() -> None:
    model = small_model()
    next(model.parameters()).requires_grad_(False)
    (adamw,) = build_optimizers(model, CONFIG).parts
    trained = {id(parameter) for group in adamw.param_groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in list(model.parameters())[1:]}


def test_decay_alone_shrinks_matrices_and_leaves_vectors() -> None:
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    optimizers = build_optimizers(model, CONFIG)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step()
    after = model.state_dict()
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(after["1.weight"], before["1.weight"])
    assert torch.equal(after["0.bias"], before["0.bias"])


def test_the_schedule_at_its_corners() -> None:
    assert rate_share(0, CONFIG) == pytest.approx(0.25)
    assert rate_share(3, CONFIG) == pytest.approx(1.0)
    assert rate_share(4, CONFIG) == pytest.approx(1.0)
    assert rate_share(19, CONFIG) == pytest.approx(0.01)
    halfway = OptimConfig(learning_rate=2.0, total_steps=101, final_share=0.0)
    assert rate_share(50, halfway) == pytest.approx(0.5)
    assert rate_share(25, halfway) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@given(total=st.integers(1, 300), warmup=st.floats(0, 0.99), final=st.floats(0, 1))
def test_the_schedule_rises_to_its_peak_then_falls_and_stays_in_range(total: int, warmup: float, final: float) -> None:
    config = OptimConfig(learning_rate=1.0, total_steps=total, warmup_steps=int(warmup * total), final_share=final)
    rates = [rate_share(step, config) for step in range(total + 3)]
    peak = config.warmup_steps
    assert all(a < b for a, b in itertools.pairwise(rates[:peak]))
    assert all(a >= b for a, b in itertools.pairwise(rates[peak:]))
    assert rates[peak] == pytest.approx(1.0)
    assert rates[0] > 0
    assert min(rates[peak:]) >= final - 1e-12


def test_every_group_moves_at_its_share_of_its_peak() -> None:
    optimizers = build_optimizers(small_model(), WITH_MUON)
    for share in (0.5, 0.25):
        optimizers.set_rate(share)
        rates = [[group["lr"] for group in part.param_groups] for part in optimizers.parts]
        assert rates == [[0.1 * share], [0.2 * share]]


def test_muon_moves_all_that_decays_but_heads_and_reuse() -> None:
    model = DVT(build_config("dvt_micro", ("a", "b")))
    before = copy.deepcopy(dict(model.named_parameters()))
    optimizers = build_optimizers(model, replace(CONFIG, weight_decay=0.0, muon=MuonConfig()))
    moved = sum(len(group["params"]) for part in optimizers.parts for group in part.param_groups)
    assert moved == len([parameter for parameter in model.parameters() if parameter.requires_grad])
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers.parts[1].step()
    decayed, _ = split_parameters(model)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in decayed if ".head." not in name and "_reuse." not in name}
    assert any("_reuse." in name for name in decayed)


def test_states_of_other_optimizers_are_refused() -> None:
    with pytest.raises(ValueError, match="different number"):
        build_optimizers(small_model(), WITH_MUON).load_state_dict(build_optimizers(small_model(), CONFIG).state_dict())


@pytest.mark.parametrize(("clip_norm", "expected"), [(1.0, 1.0), (50.0, 10.0), (0.0, 10.0)])
def test_gradients_are_clipped_to_the_norm_and_their_norm_before_is_told(clip_norm: float, expected: float) -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[6.0, 8.0]])
    assert clip_gradients(model, clip_norm).item() == pytest.approx(10.0)
    assert model.weight.grad.norm().item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(model.weight.grad / model.weight.grad.norm(), torch.tensor([[0.6, 0.8]]))


@dataclass(frozen=True)
class Run:
    """A small training run, as a checkpoint would hold it."""

    model: nn.Module
    optimizers: Optimizers
    average: WeightAverage

    @staticmethod
    def start(config: OptimConfig) -> "Run":
        model = small_model()
        return Run(model, build_optimizers(model, config), WeightAverage(model, config.ema_decay))

    def train(self, steps: range) -> None:
        for step in steps:
            draw = torch.Generator().manual_seed(step)
            self.optimizers.set_rate(rate_share(step, CONFIG))
            self.model.zero_grad()
            self.model(torch.randn(8, 4, generator=draw)).square().mean().backward()
            clip_gradients(self.model, 1.0)
            self.optimizers.step()
            self.average.update_parameters(self.model)

    def weights(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.average.state_dict().values()]


@pytest.mark.parametrize("config", [CONFIG, WITH_MUON])
def test_going_on_from_saved_states_ends_with_the_very_same_weights(config: OptimConfig) -> None:
    whole, first, second = Run.start(config), Run.start(config), Run.start(config)
    whole.train(range(20))
    first.train(range(7))
    second.model.load_state_dict(copy.deepcopy(first.model.state_dict()))
    second.optimizers.load_state_dict(copy.deepcopy(first.optimizers.state_dict()))
    second.average.load_state_dict(copy.deepcopy(first.average.state_dict()))
    second.train(range(7, 20))
    assert all(map(torch.equal, whole.weights(), second.weights()))
    assert not all(map(torch.equal, whole.weights(), first.weights()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warmup_steps": 20}, "warmup_steps 20"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"total_steps": 0}, "total_steps 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**{"learning_rate": 0.1, "total_steps": 20, **wrong})  # type: ignore[arg-type]
