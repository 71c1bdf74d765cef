"""`dvt bench auto`: scripted shares are those that leave, and both commands run from end to end on something tiny."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dvt
from benchmarks.command_auto_load import late_share
from benchmarks.floor import Direct, open_directly
from benchmarks.geometry import CASCADE, COSTS, STATIC, Costs
from benchmarks.load import Recorded, Sample
from benchmarks.photos import cropped, load_photos
from benchmarks.scripted import confidences_of, scripted_profiles, thresholds_for
from models import policy, strict_json
from models.bundle import write_profiles
from tests.service.tiny_bundles import tiny_config, write_tiny_bundle

FLOOR, CEILING = (0.9, 0.05, 0.05), (0.5, 0.25, 0.25)


@pytest.fixture(scope="module")
def geometry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `dvt bench geometry` makes it, but tiny."""
    folder = tmp_path_factory.mktemp("geometry")
    write_tiny_bundle(folder / CASCADE, tiny_config(3))
    write_tiny_bundle(folder / STATIC, tiny_config(1))
    (folder / COSTS).write_text(strict_json.dumps(Costs("tiny", (0.1, 0.3, 1.0), 0.8)))
    return folder


@given(st.integers(0, 1000), st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10)).filter(any))
def test_thresholds_let_the_scripted_shares_leave(seed: int, parts: tuple[int, int, int]) -> None:
    confidences = np.random.default_rng(seed).random((100, 2))
    shares = [part / sum(parts) for part in parts]
    thresholds, told = thresholds_for(confidences, shares)
    first = policy.leaves(confidences[:, 0], thresholds[0])
    second = ~first & policy.leaves(confidences[:, 1], thresholds[1])
    leave = (first.mean(), second.mean(), (~first & ~second).mean())
    assert leave == pytest.approx(told)
    assert leave == pytest.approx(shares, abs=0.011)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.6, -0.1), (0.5, 0.4, 0.2)])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be 3 and of 1 altogether"):
        thresholds_for(np.random.default_rng(0).random((10, 2)), shares)


def test_photos_that_are_all_alike_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="too much alike"):
        thresholds_for(np.full((10, 2), 0.5), FLOOR)


def test_crops_are_different_photos_and_the_same_for_the_same_seed() -> None:
    samples = load_photos(None, 1, 0)
    crops = cropped(samples, 14, seed=1)
    assert len(set(crops.files)) == 14
    assert crops == cropped(samples, 14, seed=1)
    assert crops.files != cropped(samples, 14, seed=2).files


def test_a_bundle_with_scripted_profiles_lets_its_photos_leave_in_their_shares(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", tiny_config(3))
    photos = cropped(load_photos(None, 1, 0), 20, seed=0)
    confidences = confidences_of(open_directly(bundle.path), photos)
    profiles = scripted_profiles(bundle, confidences, (0.1, 0.3, 1.0), FLOOR, CEILING)
    write_profiles(bundle, profiles)
    for name, shares in (("fast", FLOOR), ("accurate", CEILING)):
        direct = Direct(open_directly(bundle.path), name)
        exits = [direct.classify(photo) for photo in photos.files]
        assert [exits.count(number) / 20 for number in (1, 2, 3)] == pytest.approx(shares)
        assert profiles.named[name].exit_shares == pytest.approx(shares)
    costs = [point.mean_gmacs for point in profiles.frontier]
    assert costs == sorted(costs)


def test_late_are_answers_that_took_longer_than_the_objective_from_when_they_were_due() -> None:
    samples = (Sample(0.0, 0.5, 1.0, 200), Sample(1.0, 1.0, 1.5, 200), Sample(2.0, 2.0, 9.0, 503))
    assert late_share(Recorded(samples, 3.0), 0.8) == 0.5


def test_simulated_runs_come_as_json_table_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png = tmp_path / "auto.png"
    arguments = ["--seconds", "4", "--ceiling", "accurate", "--json", "--results", str(tmp_path), "--png", str(png)]
    assert dvt.main(["bench", "auto", "simulate", "checkpoints/cifar10-micro", *arguments]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document == json.loads((tmp_path / "auto-simulation-cifar10-micro.json").read_text())
    assert len(document["runs"]) == 10
    fixed, auto = document["runs"][:2]
    assert (fixed["traffic"], fixed["offered"]) == (auto["traffic"], auto["offered"])
    assert fixed["switches"] == 0
    assert 0.84 < auto["top1"] <= fixed["top1"]
    assert document["floor_capacity"] > 1
    assert "cifar10-micro" in err
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_server_is_loaded_under_both_budgets(
    geometry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in (geometry / CASCADE).iterdir())
    png = tmp_path / "auto.png"
    arguments = [*("--seconds", "1.2", "--warmup", "0.3", "--photos", "20", "--clients", "2", "--times", "0.2")]
    arguments += ["--floor-shares", "90,5,5", "--ceiling-shares", "50,25,25", "--p99-ms", "10000"]
    arguments += ["--json", "--results", str(tmp_path), "--png", str(png)]
    assert dvt.main(["bench", "auto", "load", str(geometry), *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "auto-load.json").read_text())
    assert [run["budget"] for run in document["runs"]] == ["fixed `accurate`", "auto"]
    for run in document["runs"]:
        assert run["load"]["requests"] > 0
        assert run["load"]["errors"] == {}
        assert sum(run["points"].values()) == run["load"]["requests"]
        assert set(run["points"]) == {"8"}, "so little load leaves it at the ceiling"
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (geometry / CASCADE).iterdir()) == before, "the geometry is left as it was"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("load", "nowhere"), "make it with `dvt bench geometry nowhere`"),
        (("simulate", "nowhere"), "there is no bundle at"),
        (("simulate", "--floor", "full", "--ceiling", "fast"), "swap them"),
        (("simulate", "--floor", "turbo"), "this bundle has fast"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dvt.main(["bench", "auto", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dvt bench auto {arguments[0]}: ")
    assert says in line
