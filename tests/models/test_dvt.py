"""A cascade of any length, grids and tokenisers: what goes in, what comes out, what is handed on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.config import DVTConfig, ReuseConfig, StageConfig
from models.dvt import DVT, State
from tests.models.small_cascades import (
    CONV_STAGES,
    HYBRID_STAGES,
    LABELS,
    MIXED_STAGES,
    NOTHING,
    SIZE_PX,
    T2T_STAGES,
    patch_stage,
    pixels,
    small_cascade,
    small_config,
)

CASCADES = {
    "t2t": small_config(T2T_STAGES, position="sinusoid"),
    "patches": small_config([patch_stage(grid) for grid in (2, 3, 4)]),
    "convolutions": small_config(CONV_STAGES),
    "hybrid": small_config(HYBRID_STAGES),
    "a tokeniser of its own for each stage": small_config(MIXED_STAGES),
    "one stage": small_config([patch_stage(4)]),
    "five stages": small_config([patch_stage(grid) for grid in (1, 2, 3, 4, 5)]),
    "grids that stay or shrink": small_config([patch_stage(grid) for grid in (4, 4, 2)]),
    "no reuse": small_config(T2T_STAGES, NOTHING),
}

any_cascade = pytest.mark.parametrize("config", CASCADES.values(), ids=CASCADES)


@torch.inference_mode()
def chained(model: DVT, images: Tensor) -> tuple[list[Tensor], list[State | None]]:
    """All exits and states, one stage after the other."""
    logits, states = [], []
    state: State | None = None
    for k in range(model.config.exits):
        output = model.forward_stage(k, images, state)
        state = output.state
        logits.append(output.logits)
        states.append(state)
    return logits, states


@any_cascade
def test_forward_is_forward_stage_after_forward_stage(config: DVTConfig) -> None:
    model = small_cascade(config)
    with torch.inference_mode():
        at_once = model(pixels(2))
    stage_by_stage, _ = chained(model, pixels(2))
    assert [logits.shape for logits in at_once] == [(2, len(LABELS))] * config.exits
    for one, other in zip(at_once, stage_by_stage, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@any_cascade
def test_logits_differ_from_exit_to_exit_and_image_to_image(config: DVTConfig) -> None:
    with torch.inference_mode():
        logits = torch.cat(small_cascade(config)(pixels(2)))
    apart = (logits[:, None] - logits[None]).abs().amax(dim=-1)
    assert (apart + torch.eye(len(logits)) > 1e-3).all()


@any_cascade
def test_the_last_stage_hands_nothing_on(config: DVTConfig) -> None:
    _, states = chained(small_cascade(config), pixels(1))
    assert states[-1] is None
    assert [state is None for state in states[:-1]] == [config.reuse == NOTHING] * (config.exits - 1)


@any_cascade
def test_an_image_has_the_same_logits_whoever_shares_its_batch(config: DVTConfig) -> None:
    model = small_cascade(config)
    with torch.inference_mode():
        together = model(pixels(5))
        alone = [model(image.unsqueeze(0)) for image in pixels(5)]
    for k, logits in enumerate(together):
        torch.testing.assert_close(logits, torch.cat([one[k] for one in alone]), rtol=1e-4, atol=1e-5)


@any_cascade
def test_pixels_and_normalised_floats_are_the_same_images(config: DVTConfig) -> None:
    model = small_cascade(config)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.input.mean, config.input.std))
    normalised = (pixels(2).float() / 255 - mean) / std
    with torch.inference_mode():
        for one, other in zip(model(pixels(2)), model(normalised), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("relations", [True, False])
def test_only_what_is_reused_is_handed_on_and_held(features: bool, relations: bool) -> None:
    config = small_config(T2T_STAGES, ReuseConfig(features, relations, 8, 4, 2), position="sinusoid")
    model = small_cascade(config)
    _, (state, _) = chained(model, pixels(3))
    tokens, maps = 2 * 2 + 1, config.backbone.relation_maps
    handed_on = None if state is None else (state.features, state.relations)
    if state is None:
        assert not features and not relations
    else:
        assert handed_on is not None
        shapes = [part.shape if part is not None else None for part in handed_on]
        assert shapes == [(3, tokens, 16) if features else None, (3, maps, tokens, tokens) if relations else None]
    entries = " ".join(model.state_dict())
    assert ("feature_reuse" in entries, "relation_reuse" in entries) == (features, relations)


@pytest.mark.parametrize("part", ["features", "relations"])
def test_what_is_handed_on_changes_the_next_exit(part: str) -> None:
    model = small_cascade(small_config(T2T_STAGES, position="sinusoid"))
    with torch.inference_mode():
        state = model.forward_stage(0, pixels(1), None).state
        assert state is not None and state.features is not None and state.relations is not None
        others = {"features": state.features, "relations": state.relations}
        others[part] = others[part].flip(-1)
        changed = model.forward_stage(1, pixels(1), State(others["features"], others["relations"])).logits
        unchanged = model.forward_stage(1, pixels(1), state).logits
    assert (changed - unchanged).abs().max() > 1e-3


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_any_stages_grids_and_reuse_make_a_cascade(grids: list[int], features: bool, relations: bool) -> None:
    stages = [patch_stage(grid) for grid in grids]
    model = small_cascade(small_config(stages, ReuseConfig(features, relations, 8, 4, 2)))
    logits, states = chained(model, pixels(2))
    assert len(logits) == len(grids)
    assert all(output.shape == (2, len(LABELS)) and output.isfinite().all() for output in logits)
    for grid, state in zip(grids[:-1], states, strict=False):
        if state is not None and state.relations is not None:
            assert state.relations.shape == (2, 4, grid**2 + 1, grid**2 + 1)


@any_cascade
def test_every_weight_learns(config: DVTConfig) -> None:
    model = small_cascade(config).train()
    torch.autograd.backward(torch.cat(model(pixels(2))).square().sum())
    still = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    }
    # Of the last block only the class token is read, and that has no reused features: so it was published.
    unread = f"stages.{config.exits - 1}.blocks.{config.backbone.depth - 1}.feature_reuse."
    assert {name for name in still if not name.startswith(unread)} == set()


@any_cascade
def test_unless_joint_an_exit_teaches_its_own_stage_alone(config: DVTConfig) -> None:
    model, images = small_cascade(config), pixels(2)
    apart = model.forward_views(model.views(images), joint=False)
    for logits, together in zip(apart, model(images), strict=True):
        assert torch.equal(logits, together)
    torch.autograd.backward(apart[-1].square().sum())
    own = f"stages.{config.exits - 1}.", "stem."
    learn = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert learn
    assert all(name.startswith(own) for name in learn)


def test_fixed_positions_are_the_transformers_and_do_not_learn() -> None:
    model = small_cascade(small_config(T2T_STAGES, position="sinusoid"))
    positions = model.stages[1].pos_embed
    assert isinstance(positions, torch.nn.Parameter)
    assert not positions.requires_grad
    position, pair = 3, 2
    angle = torch.tensor(position / 10000 ** (2 * pair / 16))
    torch.testing.assert_close(positions[0, position, 2 * pair : 2 * pair + 2], torch.stack([angle.sin(), angle.cos()]))


def test_a_stage_sees_the_image_at_its_own_size() -> None:
    model = small_cascade(small_config(CONV_STAGES))
    assert [model.view(k, pixels(1)).shape[-1] for k in range(3)] == [16, 24, SIZE_PX]


def test_stages_of_a_hybrid_share_one_stem() -> None:
    entries = small_cascade(small_config(HYBRID_STAGES)).state_dict()
    assert any(name.startswith("stem.") for name in entries)
    assert not any("stem" in name for name in entries if name.startswith("stages."))


def test_a_stage_without_its_tokenisers_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="stage 2: its tokenizer makes a 4x4 grid, not 5"):
        small_config([patch_stage(2), StageConfig(5, patch_stage(4).tokenizer)])


@any_cascade
def test_shapes_alone_go_through_without_a_computation(config: DVTConfig) -> None:
    with torch.device("meta"):
        model = DVT(config).eval()
        exits = model(torch.empty(2, 3, SIZE_PX, SIZE_PX))
    assert [logits.shape for logits in exits] == [(2, len(LABELS))] * config.exits
