"""Training goes on from a bundle's weights, on the same classes or on others, and never on what it is measured by."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.architectures import build_config
from models.bundle import Bundle, BundleError
from models.dvt import DVT, State, load_bundle
from tests.training.image_trees import write_image, write_tree
from training import splits
from training.folders import DataError, ImageFolder
from training.recipe import load_recipe
from training.run import TrainOptions, train
from training.splits import Splits, SplitSizes
from training.start import begin_without_reuse, load_teacher, start_from

SIZES = SplitSizes(2, 2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("images"), {"a": 9, "b": 9}, {"a": 2, "b": 2})


def trained(name: str, images: Path, out: Path, start: Path | None = None) -> Bundle:
    named = load_recipe(name)
    named = replace(named, recipe=replace(named.recipe, epochs=1, batch=4, held_out=SIZES))
    bundle = train(named, TrainOptions(images, out, torch.device("cpu"), start=start))
    assert bundle is not None
    return bundle


@pytest.fixture(scope="module")
def bundle(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return trained("cifar10_micro_static", images, tmp_path_factory.mktemp("bundle") / "out")


def cut(root: Path, seed: int = 0) -> Splits:
    return splits.cut(ImageFolder.scan(root), SIZES, seed)


def overlapping_seed(images: Path) -> int:
    """Of a cut that holds out some of what seed 0 does, and some that it does not."""

    def held_out(seed: int) -> set[str]:
        return {*cut(images, seed).search.paths, *cut(images, seed).certify.paths}

    return next(seed for seed in range(1, 20) if 0 < len(held_out(0) & held_out(seed)) < len(held_out(0)))


def fresh(labels: tuple[str, ...], name: str = "cifar10_micro_static") -> DVT:
    return DVT(load_recipe(name).recipe.config(labels))


def test_the_network_is_the_bundle_s(bundle: Bundle, images: Path) -> None:
    model = fresh(("a", "b"))
    start_from(model, bundle.path, cut(images))
    expected = load_bundle(bundle.path).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_other_classes_keep_a_head_of_their_own(bundle: Bundle, tmp_path: Path) -> None:
    for number, name in enumerate("xyz" * 10):
        write_image(tmp_path / ("train" if number < 27 else "test") / name / f"{number}.png", 1000 + number)
    model = fresh(("x", "y", "z"))
    head = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".head." in name}
    start_from(model, bundle.path, cut(tmp_path))
    expected = load_bundle(bundle.path).state_dict() | head
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_another_network_is_refused_by_name(bundle: Bundle, images: Path) -> None:
    with pytest.raises(BundleError, match=r"static_micro and its weights do not fit dvt_micro.*the first: stages\."):
        start_from(fresh(("a", "b"), "cifar10_micro"), bundle.path, cut(images))


def test_images_that_were_trained_on_cannot_be_held_out(bundle: Bundle, images: Path) -> None:
    with pytest.raises(DataError, match=r"held out here: only \d of 4 were held out there.*its seed is 0"):
        start_from(fresh(("a", "b")), bundle.path, cut(images, overlapping_seed(images)))


def test_a_teacher_of_other_classes_is_refused(bundle: Bundle, images: Path) -> None:
    config = fresh(("a", "c")).config
    with pytest.raises(BundleError, match=r"cannot teach static_micro here: its classes would have to be \('a', 'c'\)"):
        load_teacher(bundle.path, config, cut(images))


def test_a_teacher_must_not_have_seen_what_is_held_out(bundle: Bundle, images: Path) -> None:
    config = fresh(("a", "b")).config
    assert load_teacher(bundle.path, config, cut(images)).config == bundle.config
    with pytest.raises(DataError, match="was trained on images of this data that are held out here"):
        load_teacher(bundle.path, config, cut(images, overlapping_seed(images)))


def test_the_model_card_names_the_weights_that_training_started_from(
    bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    next_round = trained("cifar10_micro_static", images, tmp_path / "out", start=bundle.path)
    assert next_round.weights_sha256 != bundle.weights_sha256
    assert bundle.weights_sha256 in (next_round.path / "README.md").read_text()


def test_random_weights_begin_with_stages_that_stand_alone() -> None:
    model = DVT(build_config("dvt_micro", ("a", "b"))).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        before = [model.forward_stage(2, pixels, state).logits for state in upstream_states(model, pixels)]
        begin_without_reuse(model)
        after = [model.forward_stage(2, pixels, state).logits for state in upstream_states(model, pixels)]
    assert not torch.allclose(before[0], before[1], atol=1e-4)
    assert torch.equal(after[0], after[1])


def upstream_states(model: DVT, pixels: torch.Tensor) -> list[State | None]:
    """What the second stage hands on for these images, and for their mirror images."""
    states = []
    for images in (pixels, pixels.flip(-1)):
        first = model.forward_stage(0, images, None).state
        states.append(model.forward_stage(1, images, first).state)
    return states
