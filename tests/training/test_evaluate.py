"""Evaluation: stage by stage does what the thresholds say, and computes only what stays."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dvt
from models.config import ReuseConfig
from models.dvt import DVT, StageOutput, load_bundle
from models.policy import MEASURES, Measure, confidence, softmax
from tests.training.tiny_bundle import COLOURS, TEST, TinyBundle, write_tiny_bundle
from training.data import DataError, ImageFolder, decode_all
from training.evaluate import (
    ExitPolicy,
    collect_logits,
    evaluate_bundle,
    evaluate_cascade,
    evenly_limited,
    run_cascade,
    with_model_targets,
)
from training.thresholds import evaluate_thresholds

TEMPERATURES = (8.0, 5.0, 3.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(tiny: TinyBundle) -> DVT:
    return load_bundle(tiny.path)


def report_images(tiny: TinyBundle, model: DVT) -> Tensor:
    return decode_all(ImageFolder.scan(tiny.data).report, model.config.input).images


def between_samples(confidences: np.ndarray, share: float) -> float:
    """A threshold that `share` of the samples exceed, half-way between two: rounding moves no sample over it."""
    ranked = np.sort(confidences)[::-1]
    at = int(share * len(ranked))
    return float((ranked[at - 1] + ranked[at]) / 2)


def thirds(model: DVT, images: Tensor, measure: Measure) -> ExitPolicy:
    """About a third of the images leave at each exit."""
    with torch.inference_mode():
        first, second, _ = (logits.numpy() for logits in model(images))
    at_first = confidence(softmax(first, TEMPERATURES[0]), measure)
    threshold = between_samples(at_first, 1 / 3)
    at_second = confidence(softmax(second, TEMPERATURES[1]), measure)[at_first < threshold]
    return ExitPolicy((threshold, between_samples(at_second, 1 / 2)), TEMPERATURES, measure)


@pytest.mark.parametrize("measure", MEASURES)
def test_stage_by_stage_does_what_the_thresholds_say_of_all_logits(
    tiny: TinyBundle, model: DVT, measure: Measure
) -> None:
    source = decode_all(ImageFolder.scan(tiny.data).report, model.config.input)
    policy = thirds(model, source.images, measure)
    collected = collect_logits(model, source, batch=7)
    probabilities = np.stack([softmax(logits, t) for logits, t in zip(collected.logits, TEMPERATURES, strict=True)])
    run = evaluate_cascade(model, source, policy, "thirds", batch=4)
    gmacs = np.array([each.gmacs for each in run.evaluation.exits])
    expected = evaluate_thresholds(
        probabilities, collected.targets, gmacs, np.array(policy.thresholds, dtype=np.float64), measure
    )
    assert run.evaluation.n == TEST * len(COLOURS)
    assert run.evaluation.exit_shares == pytest.approx(expected.exit_shares)
    assert min(run.evaluation.exit_shares) > 0.2, "each exit has its part in this test"
    assert run.evaluation.top1 == pytest.approx(expected.top1)
    assert run.evaluation.mean_gmacs == pytest.approx(expected.mean_gmacs)
    assert [each.top1 for each in run.evaluation.exits] == pytest.approx(collected.exit_top1)


def test_only_samples_that_stay_are_computed_further(
    tiny: TinyBundle, model: DVT, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = report_images(tiny, model)
    policy = thirds(model, images, "max_softmax")
    computed: list[int] = []
    forward_stage: Callable[..., StageOutput] = model.forward_stage

    def counted(k: int, batch: Tensor, state: object) -> StageOutput:
        computed.append(len(batch))
        return forward_stage(k, batch, state)

    monkeypatch.setattr(model, "forward_stage", counted)
    with torch.inference_mode():
        departures = run_cascade(model, images, policy)
    left = np.bincount(departures.exits, minlength=3)
    assert computed == [30, 30 - left[0], left[2]]
    assert 0 < left[2] < 30 - left[0] < 30
    computed.clear()
    with torch.inference_mode():
        run_cascade(model, images, ExitPolicy((0.0, 0.0), TEMPERATURES))
    assert computed == [30], "no stage runs on nothing"


@pytest.mark.parametrize(("features", "relations"), [(True, False), (False, True), (False, False)])
def test_cascades_that_hand_on_less_run_stage_by_stage_too(
    tiny: TinyBundle, model: DVT, features: bool, relations: bool
) -> None:
    torch.manual_seed(1)
    lesser = DVT(replace(model.config, reuse=ReuseConfig(features=features, relations=relations))).eval()
    for stage in lesser.stages:
        assert isinstance(stage.head, nn.Linear)
        nn.init.normal_(stage.head.weight)
        if isinstance(stage.relation_reuse, nn.Module):
            # As large as attention logits are, so that a relation of another image would be noticed.
            for parameter in stage.relation_reuse.parameters():
                nn.init.normal_(parameter, std=3.0)
    images = report_images(tiny, model)
    policy = thirds(lesser, images, "max_softmax")
    with torch.inference_mode():
        departures = run_cascade(lesser, images, policy)
        logits = torch.stack(lesser(images)).numpy()
    assert set(departures.exits) == {0, 1, 2}
    np.testing.assert_array_equal(departures.predicted, logits[departures.exits, np.arange(30)].argmax(axis=-1))


def test_a_static_bundle_has_one_exit_and_no_choice(tmp_path: Path) -> None:
    tiny = write_tiny_bundle(tmp_path, "static_micro")
    evaluation = evaluate_bundle(tiny.path, tiny.data).evaluation
    assert (evaluation.profile, evaluation.exit_shares) == ("full", (1.0,))
    assert evaluation.top1 == evaluation.exits[0].top1
    assert evaluation.mean_gmacs == evaluation.exits[0].gmacs


def test_classes_are_matched_by_name_not_by_place(tiny: TinyBundle, tmp_path: Path) -> None:
    """A tree without the first class: `green` is folder 0 there and class 1 of the bundle."""
    shutil.copytree(tiny.data, tmp_path / "data", ignore=shutil.ignore_patterns("blue"))
    folder = ImageFolder.scan(tmp_path / "data")
    matched = with_model_targets(folder.report, folder, ("blue", "green", "red"))
    assert matched.targets.tolist() == [1] * TEST + [2] * TEST
    whole, part = evaluate_bundle(tiny.path, tiny.data), evaluate_bundle(tiny.path, tmp_path / "data")
    assert part.evaluation.n == whole.evaluation.n - TEST
    source = decode_all(ImageFolder.scan(tiny.data).report, load_bundle(tiny.path).config.input)
    logits = collect_logits(load_bundle(tiny.path), source)
    kept = logits.targets != 0
    expected = (logits.logits.argmax(axis=-1) == logits.targets)[:, kept].mean(axis=1)
    assert [each.top1 for each in part.evaluation.exits] == pytest.approx(expected)


def test_training_images_are_not_needed_to_measure(tiny: TinyBundle, tmp_path: Path) -> None:
    shutil.copytree(tiny.data, tmp_path / "data", ignore=shutil.ignore_patterns("train"))
    assert evaluate_bundle(tiny.path, tmp_path / "data") == evaluate_bundle(tiny.path, tiny.data)
    (tmp_path / "data" / "test").rename(tmp_path / "data" / "other")
    with pytest.raises(DataError, match=r"neither .*test nor .*val holds class folders; expected PATH/test"):
        evaluate_bundle(tiny.path, tmp_path / "data")


def test_a_class_that_the_bundle_does_not_know_is_named(tiny: TinyBundle) -> None:
    folder = ImageFolder.scan(tiny.data)
    with pytest.raises(DataError, match=r"'green'.*it knows blue, red"):
        with_model_targets(folder.report, folder, ("blue", "red"))


def test_a_limit_keeps_every_class(tiny: TinyBundle) -> None:
    images = evenly_limited(ImageFolder.scan(tiny.data).report, 7)
    assert len(images) == 7
    assert set(images.targets.tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="limit is 0"):
        evenly_limited(images, 0)


def test_damaged_images_are_named_and_left_out(tiny: TinyBundle, tmp_path: Path) -> None:
    shutil.copytree(tiny.data, tmp_path / "data")
    damaged = tmp_path / "data" / "test" / "green" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    run = evaluate_bundle(tiny.path, tmp_path / "data")
    assert run.evaluation.n == TEST * len(COLOURS) - 1
    assert [each.path for each in run.unreadable] == ["test/green/3.png"]


def test_eval_prints_one_json_object_and_nothing_else(tiny: TinyBundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert dvt.main(["eval", str(tiny.path), "--data", str(tiny.data), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == ["n", "exits", "profile", "top1", "mean_gmacs", "exit_shares"]
    assert [list(each) for each in answer["exits"]] == [["grid", "top1", "gmacs"]] * 3
    assert [each["grid"] for each in answer["exits"]] == [4, 8, 8]
    assert (answer["n"], answer["profile"]) == (30, "full")
    assert 0 <= answer["top1"] <= 1


def test_eval_shows_people_a_table_on_standard_error(tiny: TinyBundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert dvt.main(["eval", str(tiny.path), "--data", str(tiny.data)]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "3 (8x8)" in printed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "balanced"], "run `dvt profile` on it first"),
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--device", "quantum"], "there is no device 'quantum'"),
    ],
)
def test_what_the_caller_can_mend_is_one_line_and_exit_code_2(
    tiny: TinyBundle, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert dvt.main(["eval", str(tiny.path), "--data", str(tiny.data), *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
