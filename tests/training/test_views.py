"""Cached views of a frozen stem: what was computed once is what the model would see."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.architectures import as_static
from models.config import BackboneConfig, DVTConfig, HybridTokenizer, InputConfig, StageConfig
from models.dvt import DVT
from tests.training.image_trees import write_tree
from training.augment import AugmentConfig
from training.data import DecodedImages, ImageFolder, decode_all
from training.seeds import rng
from training.views import ViewConfig, build_views

SMALL = DVTConfig(
    "dvt_small",
    BackboneConfig(dim=8, depth=1, heads=1, mlp_ratio=1, qkv_bias=True, norm_eps=1e-5, position="learned"),
    (StageConfig(2, HybridTokenizer(32)), StageConfig(3, HybridTokenizer(48))),
    InputConfig(size_px=48, resize_px=56),
    ("a", "b"),
)
FOUR = ViewConfig(4, AugmentConfig(crop="resized"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageFolder:
    root = write_tree(tmp_path_factory.mktemp("images"), {"a": 3, "b": 2}, {"a": 1, "b": 1})
    return ImageFolder.scan(root)


@pytest.fixture(scope="module")
def model() -> DVT:
    torch.manual_seed(0)
    return DVT(SMALL).eval()


def decoded(images: ImageFolder) -> tuple[DecodedImages, DecodedImages]:
    wide = replace(SMALL.input, size_px=SMALL.input.resize_px)
    return decode_all(images.train, SMALL.input), decode_all(images.train, wide)


def test_plain_and_mirrored_views_are_what_the_model_sees(images: ImageFolder, model: DVT, tmp_path: Path) -> None:
    plain, wide = decoded(images)
    cache = build_views(model, plain, wide, FOUR, 0, tmp_path)
    everything = np.arange(5)
    offset = rng("view", 0).integers(0, 4, 5)
    for view, seen in ((0, plain.images), (1, plain.images.flip(-1))):
        for image in everything:
            epoch = int((view - offset[image]) % 4)
            got = cache.take(everything[image : image + 1], epoch)
            with torch.inference_mode():
                expected = [model.view(k, seen[image : image + 1]) for k in (0, 1)]
            for ours, theirs in zip(got, expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)  # stored in fp16


def test_an_image_goes_through_all_its_views_in_turn(images: ImageFolder, model: DVT, tmp_path: Path) -> None:
    cache = build_views(model, *decoded(images), FOUR, 0, tmp_path)
    seen = [cache.take(np.array([3]), epoch)[0] for epoch in range(8)]
    assert all(torch.equal(seen[epoch], seen[epoch + 4]) for epoch in range(4))
    assert all(not torch.equal(seen[first], seen[second]) for first in range(4) for second in range(first))


def test_views_are_computed_once_and_a_static_twin_finds_its_own(
    images: ImageFolder, model: DVT, tmp_path: Path
) -> None:
    plain, wide = decoded(images)
    build_views(model, plain, wide, FOUR, 0, tmp_path)
    made = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(made) == 2
    twin = DVT(as_static(SMALL)).eval()
    assert twin.stem is not None and model.stem is not None
    twin.stem.load_state_dict(model.stem.state_dict())
    cache = build_views(twin, plain, wide, FOUR, 0, tmp_path)
    assert len(cache.take(np.arange(2), 0)) == 1
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == made


def test_another_stem_seed_or_augmentation_has_views_of_its_own(
    images: ImageFolder, model: DVT, tmp_path: Path
) -> None:
    plain, wide = decoded(images)
    other = DVT(SMALL).eval()
    lighter = ViewConfig(4, AugmentConfig(crop="resized", crop_scale=(0.8, 1.0)))
    for cascade, config, seed in ((model, FOUR, 0), (other, FOUR, 0), (model, lighter, 0), (model, FOUR, 1)):
        build_views(cascade, plain, wide, config, seed, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4 * 2


def test_a_computation_that_broke_off_leaves_nothing_that_is_taken_for_views(
    images: ImageFolder, model: DVT, tmp_path: Path
) -> None:
    plain, wide = decoded(images)

    def break_off(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_views(model, plain, wide, FOUR, 0, tmp_path, break_off)
    assert not list(tmp_path.glob("*.npy"))
    cache = build_views(model, plain, wide, FOUR, 0, tmp_path)
    assert cache.take(np.arange(5), 0)[0].isfinite().all()
    assert not list(tmp_path.glob("*.partial"))
