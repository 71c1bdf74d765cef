import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from training.mix import Mix, MixConfig, draw_mix
from training.seeds import rng

CONFIGS = st.builds(
    MixConfig,
    mixup_alpha=st.sampled_from([0.0, 0.2, 0.8]),
    cutmix_alpha=st.sampled_from([0.0, 1.0]),
    probability=st.floats(0, 1),
    cutmix_share=st.floats(0, 1),
)


@given(config=CONFIGS, seed=st.integers(0, 1000), B=st.integers(1, 20))
def test_mixed_targets_are_not_negative_and_sum_to_one(config: MixConfig, seed: int, B: int) -> None:
    labels = torch.from_numpy(rng("labels", seed).integers(0, 5, B))
    mixed = draw_mix(B, config, rng("mix", seed)).apply_targets(F.one_hot(labels, 5).float())
    assert (mixed >= 0).all()
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(B))


@given(config=CONFIGS, seed=st.integers(0, 1000), S=st.integers(1, 33))
def test_targets_are_mixed_by_the_share_of_the_image_that_is_kept_at_any_resolution(
    config: MixConfig, seed: int, S: int
) -> None:
    mix = draw_mix(6, config, rng("mix", seed))
    own = torch.eye(6).view(6, 6, 1, 1).expand(6, 6, S, S).contiguous()
    by_pixels = mix.apply(own).mean(dim=(2, 3))
    torch.testing.assert_close(by_pixels, mix.apply_targets(torch.eye(6)), atol=1e-5, rtol=0)


def test_a_cut_takes_its_box_from_the_image_before_and_a_blend_takes_of_it_everywhere() -> None:
    mix = Mix(
        inside=np.array([0.0, 0.25]),
        top=np.array([0.5, 0.0]),
        bottom=np.array([1.0, 1.0]),
        left=np.array([0.0, 0.0]),
        right=np.array([0.25, 1.0]),
    )
    maps = torch.stack((torch.zeros(1, 4, 4), torch.ones(1, 4, 4)))
    mixed = mix.apply(maps)
    expected = torch.zeros(4, 4)
    expected[2:, 0] = 1
    assert torch.equal(mixed[0, 0], expected)
    assert torch.equal(mixed[1, 0], torch.full((4, 4), 0.25))
    np.testing.assert_allclose(mix.kept(), [0.875, 0.25])


@pytest.mark.parametrize(
    "config", [MixConfig(), MixConfig(mixup_alpha=0.2, probability=0), MixConfig(cutmix_alpha=1.0, probability=0)]
)
def test_a_mix_that_is_off_changes_nothing(config: MixConfig) -> None:
    assert not config.on
    images = torch.rand(5, 3, 8, 8)
    mix = draw_mix(5, config, rng("mix", 0))
    assert torch.equal(mix.apply(images), images)
    assert torch.equal(mix.apply_targets(torch.eye(5)), torch.eye(5))


def test_both_kinds_occur_as_often_as_asked_for() -> None:
    config = MixConfig(mixup_alpha=0.5, cutmix_alpha=1.0, probability=0.8, cutmix_share=0.25)
    mix = draw_mix(20_000, config, rng("mix", 1))
    cut = mix.inside == 0.0
    assert np.mean(cut) == pytest.approx(0.2, abs=0.01)
    assert np.mean(~cut & (mix.inside < 1)) == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_blends_follow_the_beta_distribution(alpha: float) -> None:
    inside = draw_mix(20_000, MixConfig(mixup_alpha=alpha), rng("mix", 2)).inside
    assert np.mean(inside) == pytest.approx(0.5, abs=0.02)
    assert np.var(inside) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_boxes_have_the_area_that_is_given_away_but_for_what_the_border_cuts_off() -> None:
    """Side s = sqrt(U), centre uniform: a clipped side is s - s^2 / 4 on average, its square 1/2 - 1/5 + 1/48."""
    mix = draw_mix(50_000, MixConfig(cutmix_alpha=1.0), rng("mix", 3))
    assert np.mean(1 - mix.kept()) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.005)
    inner = (mix.top > 0) & (mix.bottom < 1) & (mix.left > 0) & (mix.right < 1)
    np.testing.assert_allclose((mix.bottom - mix.top)[inner], (mix.right - mix.left)[inner])
