"""The bundles that ship keep what they promise: size, what a profile saves beside the static twin, numbers that hold.

The last needs the data sets, each an ImageFolder tree in the folder that DVT_TEST_DATA names (`make verify`).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.bundle import Bundle, read_bundle
from models.profiles import Profiles
from service.engine.catalogue import BudgetRequest, Catalogue
from training.evaluate import evaluate_bundle

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("DVT_TEST_DATA")
ONE_POINT = 0.01


@dataclass(frozen=True)
class Shipped:
    """`data`: its data set's folder under DVT_TEST_DATA. `saving`: times fewer GMACs than its static twin, at least."""

    name: str
    data: str
    limit_bytes: int
    saving: float


SHIPPED = (
    Shipped("imagenette-hybrid", "imagenette", 12_000_000, 2.5),
    Shipped("cifar10-micro", "cifar10", 8_000_000, 2.0),
)
# `balanced` is 0.68 points below the twin and `accurate` saves 1.7 times; what is near enough has no name of its own.
NOT_REACHED_BY_NAME = {"cifar10-micro"}

each_shipped = pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.name)


def cascade(shipped: Shipped) -> Bundle:
    return read_bundle(ROOT / "checkpoints" / shipped.name)


def static_twin(shipped: Shipped) -> Bundle:
    return read_bundle(ROOT / "benchmarks" / "bundles" / f"{shipped.name}-static")


def profiles_of(bundle: Bundle) -> Profiles:
    assert bundle.profiles is not None
    return bundle.profiles


def test_every_folder_of_checkpoints_is_tested_here() -> None:
    assert {path.name for path in (ROOT / "checkpoints").iterdir() if path.is_dir()} == {each.name for each in SHIPPED}


@each_shipped
def test_a_bundle_is_small_and_can_be_served_without_torch(shipped: Shipped) -> None:
    bundle = cascade(shipped)
    assert sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file()) <= shipped.limit_bytes
    assert bundle.onnx is not None
    assert len(bundle.onnx) == bundle.config.exits


@each_shipped
def test_the_first_exit_is_clearly_weaker_and_clearly_cheaper(shipped: Shipped) -> None:
    first, *_, last = profiles_of(cascade(shipped)).exits
    assert first.top1 < last.top1 - 2 * ONE_POINT
    assert first.gmacs < last.gmacs / 4


@pytest.mark.parametrize(
    "shipped",
    [
        pytest.param(
            each,
            id=each.name,
            marks=[pytest.mark.xfail(reason="the points that are near enough have no name", strict=True)]
            if each.name in NOT_REACHED_BY_NAME
            else [],
        )
        for each in SHIPPED
    ],
)
def test_a_named_profile_nearly_has_the_static_twins_accuracy_at_a_fraction_of_its_cost(shipped: Shipped) -> None:
    twin = profiles_of(static_twin(shipped)).exits[-1]
    named = profiles_of(cascade(shipped)).named.values()
    near = [point.mean_gmacs for point in named if point.top1 >= twin.top1 - ONE_POINT / 2]
    assert near
    assert min(near) * shipped.saving <= twin.gmacs
    assert profiles_of(cascade(shipped)).static_gmacs == pytest.approx(twin.gmacs, rel=1e-3)


@each_shipped
def test_a_budget_of_a_fraction_of_the_static_twins_cost_nearly_has_its_accuracy(shipped: Shipped) -> None:
    twin = profiles_of(static_twin(shipped)).exits[-1]
    bundle = cascade(shipped)
    catalogue = Catalogue(bundle.config.exits, profiles_of(bundle))
    resolved = catalogue.resolve(BudgetRequest(gmacs=twin.gmacs / shipped.saving))
    assert resolved.measured is not None
    assert resolved.measured.top1 >= twin.top1 - ONE_POINT / 2


@each_shipped
def test_a_certified_point_nearly_has_the_static_twins_accuracy_at_a_fraction_of_its_cost(shipped: Shipped) -> None:
    twin = profiles_of(static_twin(shipped)).exits[-1]
    points = [each.point for each in profiles_of(cascade(shipped)).certificates]
    near = [point.mean_gmacs for point in points if point.top1 >= twin.top1 - ONE_POINT / 2]
    assert near
    assert min(near) * shipped.saving <= twin.gmacs


@each_shipped
def test_the_model_card_tells_the_measured_exits(shipped: Shipped) -> None:
    bundle = cascade(shipped)
    card = (bundle.path / "README.md").read_text()
    for number, measured in enumerate(profiles_of(bundle).exits, start=1):
        assert f"| {number} | {measured.grid}x{measured.grid} | {measured.gmacs:.3f} | {measured.top1:.2%} |" in card


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="DVT_TEST_DATA does not name the folder of the unpacked data sets")
@each_shipped
def test_run_stage_by_stage_a_bundle_does_what_its_profile_says(shipped: Shipped) -> None:
    assert DATA is not None
    bundle = cascade(shipped)
    expected = profiles_of(bundle).named["balanced"]
    found = evaluate_bundle(bundle.path, Path(DATA) / shipped.data, "balanced").evaluation
    assert found.top1 == pytest.approx(expected.top1, abs=ONE_POINT / 10)
    assert found.mean_gmacs == pytest.approx(expected.mean_gmacs, rel=ONE_POINT)
