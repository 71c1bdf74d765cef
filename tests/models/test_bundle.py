"""A bundle is read whole and verified, or not at all; a write that fails leaves what was there."""

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import load_bundle
from models.bundle import Bundle, BundleError, read_bundle, write_bundle, write_graphs, write_profiles
from models.policy import ExitMeasure
from models.profiles import PROFILE_NAMES, ExitProfile, OperatingPoint, Profiles
from tests.models.small_cascades import NOTHING, patch_stage, pixels, small_cascade, small_config, weights_of

CONFIG = small_config([patch_stage(2), patch_stage(4)])
WEIGHTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b.c": np.array([1e-3, 70000], np.float32)}
GRAPHS = (b"first graph", b"second graph")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "small", CONFIG, WEIGHTS, readme="# Small\n", splits="{}", onnx=GRAPHS)


def profiles_of(bundle: Bundle, top1: float = 0.9) -> Profiles:
    point = OperatingPoint((0.5,), top1, 0.2, (0.5, 0.5))
    named = dict.fromkeys(PROFILE_NAMES, point)
    exits = (ExitProfile(2, 0.1, 0.8), ExitProfile(4, 0.4, 0.9))
    return Profiles(bundle.weights_sha256, bundle.config_sha256, "max_softmax", exits, (), (point,), named)


def sums_of(files: dict[str, bytes]) -> str:
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())


def content(folder: Path) -> dict[str, bytes]:
    """Everything under `folder`, what is hidden included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_equal(found: dict[str, NDArray[np.float32]], expected: dict[str, NDArray[np.float32]]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32


def test_what_is_written_is_read_back(bundle: Bundle) -> None:
    found = read_bundle(bundle.path)
    assert found == bundle
    assert (found.name, found.config, found.profiles) == ("small", CONFIG, None)
    assert_equal(found.weights(), WEIGHTS)
    assert found.onnx is not None
    assert [graph.read_bytes() for graph in found.onnx] == list(GRAPHS)
    assert (bundle.path / "README.md").read_text() == "# Small\n"
    assert (bundle.path / "splits.json").read_text() == "{}"


def test_exits_are_measured_as_they_were_profiled_or_as_they_are(bundle: Bundle) -> None:
    assert bundle.measure == ExitMeasure("max_softmax", (1.0, 1.0))
    exits = (ExitProfile(2, 0.1, 0.8, 1.5), ExitProfile(4, 0.4, 0.9, 0.7))
    profiled = replace(bundle, profiles=replace(profiles_of(bundle), confidence="margin", exits=exits))
    assert profiled.measure == ExitMeasure("margin", (1.5, 0.7))


def test_graphs_and_splits_may_be_missing(tmp_path: Path) -> None:
    found = write_bundle(tmp_path / "bare", CONFIG, WEIGHTS, readme="")
    assert found.onnx is None
    assert sorted(content(found.path)) == ["README.md", "SHA256SUMS", "config.json", "model.safetensors"]


def test_weights_stored_in_half_precision_are_read_as_float32(tmp_path: Path) -> None:
    weights = {"a": np.array([0.1, 1.5, -2], np.float32)}
    found = write_bundle(tmp_path / "half", CONFIG, weights, readme="", dtype="float16")
    assert_equal(found.weights(), {"a": weights["a"].astype(np.float16).astype(np.float32)})
    whole = write_bundle(tmp_path / "whole", CONFIG, weights, readme="")
    sizes = [(each.path / "model.safetensors").stat().st_size for each in (found, whole)]
    assert sizes[0] < sizes[1]


def test_weights_need_not_be_contiguous(tmp_path: Path) -> None:
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    assert_equal(write_bundle(tmp_path / "turned", CONFIG, weights, readme="").weights(), weights)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_sha256sum_agrees_with_the_hashes(bundle: Bundle) -> None:
    ran = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=bundle.path, capture_output=True, text=True, check=True)
    assert ran.stdout.count(": OK") == 5


def test_a_folder_that_is_taken_is_not_written_over(bundle: Bundle) -> None:
    before = content(bundle.path)
    with pytest.raises(BundleError, match=r"small exists already: choose another folder or remove it"):
        write_bundle(bundle.path, CONFIG, {}, readme="")
    assert content(bundle.path) == before


def test_a_bundle_is_replaced_whole_where_that_is_asked_for(bundle: Bundle) -> None:
    found = write_bundle(bundle.path, CONFIG, {"a": WEIGHTS["a"]}, readme="new", overwrite=True)
    assert_equal(found.weights(), {"a": WEIGHTS["a"]})
    assert found.onnx is None
    assert [path.name for path in bundle.path.parent.iterdir()] == ["small"]


def test_graphs_come_one_a_stage(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="1 graphs for 2 stages"):
        write_bundle(tmp_path / "small", CONFIG, WEIGHTS, readme="", onnx=GRAPHS[:1])


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "splits.json", "onnx/stage1.onnx", "onnx/stage2.onnx"]
)
def test_a_changed_file_is_named(bundle: Bundle, name: str) -> None:
    data = bytearray((bundle.path / name).read_bytes())
    data[-1] ^= 1
    (bundle.path / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} has SHA-256 .*, SHA256SUMS says .*: the file was changed"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "splits.json", "onnx/stage1.onnx", "SHA256SUMS"])
def test_a_missing_file_is_named(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read"):
        read_bundle(bundle.path)


def test_no_bundle_at_all_is_told_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle at .*nowhere: give a folder made by `dvt train`"):
        read_bundle(tmp_path / "nowhere")


def test_sums_without_weights_are_incomplete(bundle: Bundle) -> None:
    (bundle.path / "SHA256SUMS").write_text(sums_of({"config.json": (bundle.path / "config.json").read_bytes()}))
    with pytest.raises(BundleError, match=r"SHA256SUMS lacks model.safetensors: the bundle is incomplete"):
        read_bundle(bundle.path)


def test_a_graph_too_few_is_named(bundle: Bundle) -> None:
    lines = (bundle.path / "SHA256SUMS").read_text().splitlines(keepends=True)
    (bundle.path / "SHA256SUMS").write_text("".join(line for line in lines if "stage2" not in line))
    with pytest.raises(BundleError, match=r"lacks stage2.onnx: run `dvt export` on it"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", ["../secret", "onnx/../../secret", "{root}/secret", ""])
def test_sums_reach_nothing_outside_the_bundle(bundle: Bundle, name: str) -> None:
    (bundle.path.parent / "secret").write_bytes(b"key")
    line = sums_of({name.format(root=bundle.path.parent): b"key"})
    with (bundle.path / "SHA256SUMS").open("a") as file:
        file.write(line)
    with pytest.raises(BundleError, match="has a line that is not `hash  name`"):
        read_bundle(bundle.path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.booleans(), more=st.text(min_size=1) | st.from_regex(r"[0-9a-f]{64}  [^\n]{0,9}\n", fullmatch=True))
@example(keep=True, more="0" * 64 + "  a\0b\n")
def test_whatever_the_sums_hold_the_error_is_a_bundle_error(bundle: Bundle, keep: bool, more: str) -> None:
    sums = bundle.path / "SHA256SUMS"
    good = sums.read_text()
    sums.write_text(good * keep + more, encoding="utf-8")
    try:
        with pytest.raises(BundleError):
            read_bundle(bundle.path)
    finally:
        sums.write_text(good)


def reseal(path: Path) -> None:
    """Make the hashes those of what is there now: what somebody does who edits a bundle by hand."""
    names = ("config.json", "model.safetensors")
    (path / "SHA256SUMS").write_text(sums_of({name: (path / name).read_bytes() for name in names}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not JSON", "config.json is not JSON"),
        ('{"schema_version": 2}', r"schema_version 2 is not 1, .*`dvt convert` or `dvt train`"),
        ("{}", r"config.json lacks architecture"),
    ],
)
def test_a_config_that_is_none_is_a_bundle_error(bundle: Bundle, text: str, message: str) -> None:
    (bundle.path / "config.json").write_text(text)
    reseal(bundle.path)
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle.path)


def test_weights_that_are_none_are_a_bundle_error(bundle: Bundle) -> None:
    (bundle.path / "model.safetensors").write_bytes(b"no tensors here")
    reseal(bundle.path)
    with pytest.raises(BundleError, match=r"model.safetensors cannot be read"):
        read_bundle(bundle.path).weights()


def test_profiles_are_read_with_their_bundle(bundle: Bundle) -> None:
    profiles = profiles_of(bundle)
    assert write_profiles(bundle, profiles).profiles == profiles
    assert read_bundle(bundle.path).profiles == profiles


def test_profiles_of_other_weights_or_another_config_are_refused(bundle: Bundle) -> None:
    for other, what in (
        (replace(profiles_of(bundle), weights_sha256="0" * 64), "weights"),
        (replace(profiles_of(bundle), config_sha256="0" * 64), "config.json"),
    ):
        with pytest.raises(BundleError, match=rf"was measured on {what} 000000000000.*run `dvt profile` again"):
            write_profiles(bundle, other)
        assert not (bundle.path / "profiles.json").exists()
        (bundle.path / "profiles.json").write_text(other.to_json())
        with pytest.raises(BundleError, match=rf"was measured on {what} 000000000000"):
            read_bundle(bundle.path)
        (bundle.path / "profiles.json").unlink()


def test_profiles_of_another_number_of_exits_are_refused(bundle: Bundle) -> None:
    point = OperatingPoint((), 0.9, 0.2, None)
    one_exit = replace(
        profiles_of(bundle),
        exits=(ExitProfile(4, 0.4, 0.9),),
        frontier=(point,),
        named=dict.fromkeys(PROFILE_NAMES, point),
    )
    with pytest.raises(BundleError, match="has 1 exits, the model has 2"):
        write_profiles(bundle, one_exit)


def test_damaged_profiles_are_a_bundle_error(bundle: Bundle) -> None:
    (bundle.path / "profiles.json").write_text("{")
    with pytest.raises(BundleError, match=r"profiles.json is not JSON"):
        read_bundle(bundle.path)


def test_graphs_are_replaced_and_all_else_is_kept(bundle: Bundle) -> None:
    write_profiles(bundle, profiles_of(bundle))
    (bundle.path / "pictures" / "large").mkdir(parents=True)
    (bundle.path / "pictures" / "large" / "curve.png").write_bytes(b"png")
    before = content(bundle.path)
    found = write_graphs(bundle, (b"new first", b"new second"))
    after = content(bundle.path)
    assert found.onnx is not None and [graph.read_bytes() for graph in found.onnx] == [b"new first", b"new second"]
    assert {name for name in after if after[name] != before[name]} == {
        "SHA256SUMS",
        "onnx/stage1.onnx",
        "onnx/stage2.onnx",
    }
    assert after.keys() == before.keys()


class InterruptedWriteError(Exception):
    """What is thrown in the middle of a write."""


@dataclass
class Interruption:
    """Throws at the `at`-th call (from 1) of any function it was put around; `at` 0 is never."""

    at: int
    calls: int = 0

    def around(self, function: Callable[..., object]) -> Callable[..., object]:
        def interrupted(*args: object, **kwargs: object) -> object:
            self.calls += 1
            if self.calls == self.at:
                raise InterruptedWriteError
            return function(*args, **kwargs)

        return interrupted


WRITES: dict[str, Callable[[Bundle], object]] = {
    "a bundle in place of the old": lambda bundle: write_bundle(
        bundle.path, CONFIG, {"new": WEIGHTS["a"]}, readme="new", onnx=(b"1", b"2"), overwrite=True
    ),
    "a bundle beside": lambda bundle: write_bundle(bundle.path.parent / "new", CONFIG, WEIGHTS, readme="new"),
    "graphs": lambda bundle: write_graphs(bundle, (b"1", b"2")),
    "profiles": lambda bundle: write_profiles(bundle, profiles_of(bundle, top1=0.95)),
}


def write_interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Bundle], object], at: int
) -> Interruption:
    """Make a bundle under `folder`, then `write`, interrupted at its call number `at` of what moves and keeps files."""
    folder.mkdir()
    bundle = write_bundle(folder / "small", CONFIG, WEIGHTS, readme="old", onnx=GRAPHS)
    bundle = write_profiles(bundle, profiles_of(bundle))
    interruption = Interruption(at)
    with monkeypatch.context() as patched:
        for function in (os.fsync, os.replace, os.rename, os.chmod):
            patched.setattr(os, function.__name__, interruption.around(function))
        with contextlib.suppress(InterruptedWriteError):
            write(bundle)
    return interruption


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_that_is_interrupted_anywhere_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Bundle], object]
) -> None:
    write_interrupted(tmp_path / "old", monkeypatch, lambda _: None, at=0)
    steps = write_interrupted(tmp_path / "new", monkeypatch, write, at=0).calls
    old, new = content(tmp_path / "old"), content(tmp_path / "new")
    assert old != new and steps >= 3
    outcomes = []
    for at in range(1, steps + 1):
        folder = tmp_path / str(at)
        write_interrupted(folder, monkeypatch, write, at)
        outcomes.append(content(folder))
        assert outcomes[-1] in (old, new), f"interrupted at step {at} of {steps}"
        assert not list(folder.rglob(".*")), f"leftovers of step {at}"
    assert outcomes[0] == old


def test_a_bundle_is_the_network_it_was_written_from(tmp_path: Path) -> None:
    model = small_cascade(CONFIG)
    write_bundle(tmp_path / "small", CONFIG, weights_of(model), readme="")
    found = load_bundle(tmp_path / "small")
    assert not found.training
    for one, other in zip(found(pixels(2)), model(pixels(2)), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())


def test_weights_of_another_network_are_named_entry_by_entry(tmp_path: Path) -> None:
    weights = weights_of(small_cascade(CONFIG))
    del weights["stages.0.norm.bias"]
    weights["stages.0.norm.bios"] = np.zeros(16, np.float32)
    weights["stages.1.head.bias"] = np.zeros(7, np.float32)
    write_bundle(tmp_path / "small", CONFIG, weights, readme="")
    with pytest.raises(BundleError, match=r"do not fit its config.json; make the bundle anew") as raised:
        load_bundle(tmp_path / "small")
    assert str(raised.value).splitlines()[1:] == [
        "  stages.0.norm.bias is missing, expected (16,)",
        "  stages.0.norm.bios is (16,), expected nothing",
        "  stages.1.head.bias is (7,), expected (5,)",
    ]


def test_weights_with_reuse_do_not_fit_a_cascade_without(tmp_path: Path) -> None:
    without = replace(CONFIG, reuse=NOTHING)
    write_bundle(tmp_path / "small", without, weights_of(small_cascade(CONFIG)), readme="")
    with pytest.raises(BundleError, match=r"stages.1.relation_reuse.fc1.bias is \(8,\), expected nothing"):
        load_bundle(tmp_path / "small")
