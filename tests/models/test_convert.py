"""Published checkpoints become bundles with their thresholds and curve; what does not fit is named, nothing is run."""

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import dvt
from models import convert as conversion
from models.bundle import Bundle, BundleError, read_bundle
from models.config import DVTConfig
from models.convert import ConvertError, convert, published_name
from models.dvt import DVT
from models.profiles import OperatingPoint
from tests.models.published_weights import published_entries, published_state_dict
from tests.models.small_cascades import T2T_STAGES, small_config

LABELS = ("ant", "bee", "cat", "dog", "elk")
NEVER, ALL = 1e8, -1e8

# Five operating points; the third is dominated by the second.
THRESHOLDS = [[0.2, 0.1, ALL], [0.8, 0.5, ALL], [NEVER, 0.6, ALL], [0.9, 0.7, ALL], [NEVER, NEVER, ALL]]
CURVE: dict[str, Any] = {
    "flops": [0.5, 1.5, 3.5],
    "anytime_classification": [70.0, 77.0, 80.0],
    "dynamic_threshold": THRESHOLDS,
    "budgeted_batch_classification": [[0.6, 1.0, 1.7, 1.8, 3.5], [71.0, 78.5, 78.0, 79.6, 80.0]],
}


def small_architecture(name: str, labels: tuple[str, ...]) -> DVTConfig:
    """Three stages as published, in miniature."""
    config = small_config([T2T_STAGES[0], *T2T_STAGES], position="sinusoid", labels=labels)
    return replace(config, architecture=name)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The `model_state_dict` of a miniature, which `dvt_t2t_vit_12` stands for in this test."""
    monkeypatch.setattr(conversion, "build_config", small_architecture)
    config = small_architecture("small", LABELS)
    with torch.device("meta"):
        ours = DVT(config).state_dict()
    return published_state_dict({published_name(name, config): tuple(tensor.shape) for name, tensor in ours.items()})


def saved(folder: Path, content: object) -> Path:
    path = folder / "checkpoint.pth.tar"
    torch.save(content, path)
    return path


def converted(folder: Path, content: object, labels: tuple[str, ...] | None = None) -> Bundle:
    return convert(saved(folder, content), folder / "bundle", "dvt_t2t_vit_12", labels)


def refused(folder: Path, content: object) -> str:
    """What is said against `content`; and that nothing was written."""
    with pytest.raises(ConvertError) as raised:
        converted(folder, content)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pth.tar"]
    return str(raised.value)


def test_a_published_architecture_of_another_class_count_is_converted(tmp_path: Path) -> None:
    entries = published_entries("DVT_T2t_vit_12")
    entries = {name: (2, *shape[1:]) if ".head." in name else shape for name, shape in entries.items()}
    bundle = converted(tmp_path, {"model_state_dict": published_state_dict(entries)}, labels=("cat", "dog"))
    assert (bundle.config.architecture, bundle.config.labels) == ("dvt_t2t_vit_12", ("cat", "dog"))
    assert bundle.weights()["stages.2.head.weight"].shape == (2, 256)


def test_weights_are_those_of_the_checkpoint_under_our_names(tmp_path: Path, small: dict[str, Tensor]) -> None:
    bundle = converted(tmp_path, {"model_state_dict": small})
    weights = bundle.weights()
    assert len(weights) == len(small)
    for ours, published in {
        "stages.0.tokenizer.attention1.fc1.weight": "less_less_token.tokens_to_token.attention1.mlp.0.weight",
        "stages.1.blocks.1.feature_reuse.norm.bias": "less_token.blocks.1.feature_resuse_mlp.0.bias",
        "stages.1.blocks.0.feature_reuse.fc2.weight": "less_token.blocks.0.feature_resuse_mlp.1.fc2.weight",
        "stages.2.relation_reuse.fc2.weight": "normal_token.relation_reuse_conv.2.weight",
        "stages.2.head.bias": "normal_token.head.bias",
    }.items():
        np.testing.assert_array_equal(weights[ours], small[published].numpy())


def test_classes_without_labels_are_numbered(tmp_path: Path, small: dict[str, Tensor]) -> None:
    bundle = converted(tmp_path, {"model_state_dict": small})
    assert bundle.config.labels == ("class 0", "class 1", "class 2", "class 3", "class 4")


def test_names_of_parallel_training_lose_their_prefix(tmp_path: Path, small: dict[str, Tensor]) -> None:
    parallel = {f"module.{name}": tensor for name, tensor in small.items()}
    ours = DVT(small_architecture("small", LABELS)).state_dict()
    assert converted(tmp_path, {"model_state_dict": parallel}).weights().keys() == ours.keys()


def test_weights_in_half_precision_or_with_gradients_are_read(tmp_path: Path, small: dict[str, Tensor]) -> None:
    head = "normal_token.head.weight"
    mixed = {name: torch.nn.Parameter(tensor) for name, tensor in small.items()} | {head: small[head].half()}
    weights = converted(tmp_path, {"model_state_dict": mixed}).weights()
    np.testing.assert_array_equal(weights["stages.2.head.weight"], small[head].half().float().numpy())


def test_every_entry_that_does_not_fit_is_named(tmp_path: Path, small: dict[str, Tensor]) -> None:
    del small["less_less_token.cls_token"], small["less_token.blocks.0.norm1.weight"]
    small["normal_token.extra"] = torch.zeros(3)
    small["normal_token.norm.weight"] = torch.zeros(17)
    assert refused(tmp_path, {"model_state_dict": small}).splitlines() == [
        "the checkpoint does not fit dvt_t2t_vit_12:",
        "  missing: less_less_token.cls_token (1, 1, 16)",
        "  missing: less_token.blocks.0.norm1.weight (16,)",
        "  unexpected: normal_token.extra (3,)",
        "  shape of normal_token.norm.weight: (17,), expected (16,)",
    ]


def test_labels_of_another_number_are_refused(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = saved(tmp_path, {"model_state_dict": small})
    with pytest.raises(ConvertError, match="2 labels for a checkpoint of 5 classes: give one label a class"):
        convert(path, tmp_path / "bundle", "dvt_t2t_vit_12", ("cat", "dog"))


@pytest.mark.parametrize("architecture", ["dvt_micro", "dvt_hybrid_lite", "static_deit_small"])
def test_what_was_never_published_is_refused(tmp_path: Path, architecture: str) -> None:
    path = saved(tmp_path, {"model_state_dict": {"a": torch.zeros(1)}})
    with pytest.raises(ConvertError, match=f"{architecture} was never published: choose one of dvt_t2t_vit"):
        convert(path, tmp_path / "bundle", architecture)


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path, small: dict[str, Tensor]) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(BundleError, match="exists already"):
        converted(tmp_path, {"model_state_dict": small})
    assert not list((tmp_path / "bundle").iterdir())


def test_a_checkpoint_without_a_curve_has_no_profiles(tmp_path: Path, small: dict[str, Tensor]) -> None:
    assert converted(tmp_path, {"model_state_dict": small, "epoch": 300}).profiles is None


def as_arrays(kind: Callable[[object], object]) -> dict[str, object]:
    return {key: kind(value) for key, value in CURVE.items()}


CURVES: dict[str, dict[str, object]] = {
    "lists": CURVE,
    "tensors": as_arrays(lambda value: torch.tensor(value, dtype=torch.float64)),
    "lists of tensors": as_arrays(lambda value: list(torch.tensor(value, dtype=torch.float64))),
    "numpy arrays": as_arrays(np.array),
    "numpy numbers": CURVE | {"flops": [np.float64(value) for value in CURVE["flops"]]},
    "tensors of one number": CURVE | {"anytime_classification": [torch.tensor(value) for value in (70.0, 77.0, 80.0)]},
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_thresholds_and_curve_are_kept_as_the_frontier(
    tmp_path: Path, small: dict[str, Tensor], curve: dict[str, object]
) -> None:
    profiles = converted(tmp_path, {"model_state_dict": small, **curve}).profiles
    assert profiles is not None
    assert [(each.grid, each.gmacs, each.top1) for each in profiles.exits] == [
        (2, 0.5, 0.70),
        (2, 1.5, 0.77),
        (4, 3.5, 0.80),
    ]
    assert profiles.confidence == "max_softmax"
    assert [(point.thresholds, round(point.top1, 6), point.mean_gmacs) for point in profiles.frontier] == [
        ((0.2, 0.1), 0.71, 0.6),
        ((0.8, 0.5), 0.785, 1.0),
        ((0.9, 0.7), 0.796, 1.8),
        ((None, None), 0.80, 3.5),
    ]


def test_never_is_null_and_points_that_are_worse_and_dearer_are_left_out(
    tmp_path: Path, small: dict[str, Tensor]
) -> None:
    curve = CURVE | {"budgeted_batch_classification": [[0.6, 1.0, 1.7, 1.8, 3.5], [71.0, 78.5, 78.6, 79.6, 80.0]]}
    profiles = converted(tmp_path, {"model_state_dict": small, **curve}).profiles
    assert profiles is not None
    assert [point.thresholds for point in profiles.frontier] == [
        (0.2, 0.1),
        (0.8, 0.5),
        (None, 0.6),
        (0.9, 0.7),
        (None, None),
    ]


def test_named_profiles_are_the_cheapest_that_lose_no_more_than_they_may(
    tmp_path: Path, small: dict[str, Tensor]
) -> None:
    profiles = converted(tmp_path, {"model_state_dict": small, **CURVE}).profiles
    assert profiles is not None
    assert {name: point.mean_gmacs for name, point in profiles.named.items()} == {
        "fast": 1.0,
        "balanced": 1.8,
        "accurate": 3.5,
        "full": 3.5,
    }
    assert profiles.named["full"] == OperatingPoint((None, None), 0.8, 3.5, (0.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dynamic_threshold": None}, "has a part of its curve but lacks dynamic_threshold"),
        ({"dynamic_threshold": 0.5}, r"`dynamic_threshold` has shape \(\), expected \(1, 3\)"),
        ({"dynamic_threshold": [[0.5, ALL]]}, r"`dynamic_threshold` has shape \(1, 2\), expected \(1, 3\)"),
        ({"dynamic_threshold": [[0.5], [0.5, 0.5, ALL]]}, "`dynamic_threshold` is not an array of numbers"),
        ({"flops": [0.5, 1.5]}, r"`flops` has shape \(2,\), expected \(3,\)"),
        ({"flops": [0.5, 1.5, float("nan")]}, r"`flops` has .* finite numbers"),
        ({"flops": [-0.5, 1.5, 3.5]}, "the checkpoint's curve is no curve: gmacs -0.5"),
        ({"anytime_classification": [70.0, 77.0, 800.0]}, "the checkpoint's curve is no curve: top1 is 8.0"),
        ({"budgeted_batch_classification": [[1.0], [70.0]]}, r"has shape \(2, 1\), expected \(2, 5\)"),
        ({"flops": "cheap"}, "`flops` is not an array of numbers"),
    ],
)
def test_a_curve_that_is_none_is_refused(
    tmp_path: Path, small: dict[str, Tensor], changed: dict[str, object], message: str
) -> None:
    said = refused(tmp_path, {"model_state_dict": small, **CURVE, **changed})
    assert pytest.raises(ConvertError, match=message).matches(ConvertError(said)), said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, a published checkpoint is a dict"),
        ({"state_dict": {}, "epoch": 3}, "has no `model_state_dict` of tensors; it has state_dict, epoch"),
        ({"model_state_dict": {"a": 1}}, "has no `model_state_dict` of tensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: object, message: str) -> None:
    assert message in refused(tmp_path, content)


class Malicious:
    """Unpickled as Python does it, this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch tells of pickles written without its own format
@pytest.mark.parametrize("as_zip", [True, False])
def test_pickled_code_is_refused_and_never_run(tmp_path: Path, small: dict[str, Tensor], as_zip: bool) -> None:
    path, proof = tmp_path / "checkpoint.pth.tar", tmp_path / "was-run"
    torch.save({"model_state_dict": small, "x": Malicious(proof)}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(ConvertError, match=r"it asks for \w+.mkdir to be run, and only tensors, arrays and numbers"):
        convert(path, tmp_path / "bundle", "dvt_t2t_vit_12")
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists(), "the checkpoint was not malicious: the test shows nothing"


def test_arrays_pickled_by_numpy_1_are_read(tmp_path: Path, small: dict[str, Tensor]) -> None:
    written = saved(tmp_path, {"model_state_dict": small, **CURVES["numpy arrays"]})
    old = tmp_path / "numpy-1.pth.tar"
    renamed = 0
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                renamed = data.count(b"cnumpy._core.multiarray\n")
                data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            target.writestr(name, data)
    assert renamed
    profiles = convert(old, tmp_path / "bundle", "dvt_t2t_vit_12").profiles
    assert profiles is not None and len(profiles.frontier) == 4


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"nowhere.pth.tar cannot be read: .*No such file"):
        convert(tmp_path / "nowhere.pth.tar", tmp_path / "bundle", "dvt_t2t_vit_12")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_a_convert_error(tmp_path: Path, data: st.DataObject) -> None:
    path = saved(tmp_path, {"a": np.arange(3.0), "b": [np.float64(3), torch.zeros(2)]})
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "cut off"):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=5)):
            whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    with pytest.raises(ConvertError):
        convert(path, tmp_path / "bundle", "dvt_t2t_vit_12")


def test_the_command_converts_with_labels_one_a_line(
    tmp_path: Path, small: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    path, labels = saved(tmp_path, {"model_state_dict": small, **CURVE}), tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS) + "\n\n", encoding="utf-8")
    arguments = ["--architecture", "dvt_t2t_vit_12", "--labels", str(labels)]
    assert dvt.main(["convert", str(path), str(tmp_path / "bundle"), *arguments]) == 0
    assert read_bundle(tmp_path / "bundle").config.labels == LABELS
    output = capsys.readouterr()
    assert output.out == ""
    assert "5 classes, 3 exits, 4 points on its frontier; `dvt export" in output.err


def test_the_command_takes_labels_as_json(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path, labels = saved(tmp_path, {"model_state_dict": small}), tmp_path / "labels.json"
    labels.write_text(json.dumps([f"{label}, or not" for label in LABELS]), encoding="utf-8")
    arguments = ["--architecture", "dvt_t2t_vit_12", "--labels", str(labels)]
    assert dvt.main(["convert", str(path), str(tmp_path / "bundle"), *arguments]) == 0
    assert read_bundle(tmp_path / "bundle").config.labels[0] == "ant, or not"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("ant\nbee", "2 labels for a checkpoint of 5 classes"),
        ("[1, 2, 3, 4, 5]", "is a JSON list, but not of strings"),
        ("[", "Expecting value"),
        ("ant\nant\ncat\ndog\nelk", "labels must be distinct, these are not: ant"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, small: dict[str, Tensor], capsys: pytest.CaptureFixture[str], labels: str, message: str
) -> None:
    path, file = saved(tmp_path, {"model_state_dict": small}), tmp_path / "labels"
    file.write_text(labels, encoding="utf-8")
    arguments = ["--architecture", "dvt_t2t_vit_12", "--labels", str(file)]
    assert dvt.main(["convert", str(path), str(tmp_path / "bundle"), *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("dvt convert: ") and message in output.err
    assert len(output.err.splitlines()) == 1
    assert not (tmp_path / "bundle").exists()


def test_the_command_knows_its_architectures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, {"model_state_dict": {"a": torch.zeros(1)}})
    assert dvt.main(["convert", str(path), str(tmp_path / "bundle"), "--architecture", "resnet50"]) == 2
    assert "unknown architecture 'resnet50', known are dvt_t2t_vit_7" in capsys.readouterr().err
