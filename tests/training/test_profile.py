"""Profiling: named points keep their promises on samples that were not searched on, and the file says what was done."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dvt
from models.bundle import read_bundle
from models.profiles import PROFILE_NAMES
from tests.training.synthetic_exits import CUMULATIVE_GMACS, logits_of_exits, synthetic_exits
from tests.training.tiny_bundle import TinyBundle, write_tiny_bundle
from training.compare import random_exit
from training.data import DataError
from training.evaluate import ExitLogits, evaluate_bundle
from training.operating_points import FOLDS, choose_named, cross_fitted_top1
from training.probabilities import ExitProbabilities
from training.profile import FRONTIER_POINTS, Findings, find_operating_points, profile_bundle
from training.splits import read_record
from training.thresholds import (
    Calibration,
    Frontier,
    ThresholdRule,
    best_vectors,
    evaluate_many,
    exhaustive_rule,
    genetic_rule,
    quantile_rule,
)
from training.thresholds.rules import RuleName


def find(search: ExitLogits, report: ExitLogits, rule: RuleName = "exhaustive") -> Findings:
    exits = len(search.logits)
    return find_operating_points(search, report, range(4, 4 + exits), CUMULATIVE_GMACS[:exits].tolist(), rule=rule)


@pytest.fixture(scope="module")
def findings() -> Findings:
    return find(logits_of_exits(0, 1_000), logits_of_exits(1, 4_000))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"))


def test_the_named_profiles_are_ordered_by_cost(findings: Findings) -> None:
    costs = [findings.named[name].mean_gmacs for name in PROFILE_NAMES]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_full_sends_every_sample_to_the_last_exit(findings: Findings) -> None:
    full = findings.named["full"]
    assert full.thresholds == (None, None)
    assert full.exit_shares == (0.0, 0.0, 1.0)
    assert (full.top1, full.mean_gmacs) == pytest.approx((findings.exits[-1].top1, findings.exits[-1].gmacs))


def test_the_frontier_is_sorted_short_and_not_dominated(findings: Findings) -> None:
    costs = [point.mean_gmacs for point in findings.frontier]
    top1 = [point.top1 for point in findings.frontier]
    assert 10 < len(costs) <= FRONTIER_POINTS + 1
    assert (np.diff(costs) > 0).all()
    assert (np.diff(top1) > 0).all()


def test_quoted_numbers_come_from_the_report_split_and_thresholds_do_not() -> None:
    search = logits_of_exits(2, 600)
    first, second = (find(search, logits_of_exits(seed, 600)) for seed in (3, 4))
    for name in PROFILE_NAMES:
        assert first.named[name].thresholds == second.named[name].thresholds
    assert [each.temperature for each in first.exits] == [each.temperature for each in second.exits]
    first_balanced, second_balanced = first.named["balanced"], second.named["balanced"]
    assert first_balanced.exit_shares != second_balanced.exit_shares
    assert first.exits[-1].top1 != second.exits[-1].top1


def test_temperatures_make_confidence_honest(findings: Findings) -> None:
    for each in findings.calibration:
        assert each.fit.ece_after < each.fit.ece_before
        assert each.after.ece < each.before.ece


def test_thresholds_hold_for_the_tempered_confidence(findings: Findings) -> None:
    """The quoted shares are those of softmax(logits / temperature), the way serving computes confidence."""
    report = logits_of_exits(1, 4_000)
    point = findings.named["balanced"]
    leaving = []
    for k, threshold in enumerate(point.thresholds):
        scaled = np.exp(report.logits[k] / findings.exits[k].temperature)
        assert threshold is not None
        leaving.append((scaled / scaled.sum(axis=1, keepdims=True)).max(axis=1) >= threshold)
    first = leaving[0].mean()
    second = (~leaving[0] & leaving[1]).mean()
    assert point.exit_shares == pytest.approx((first, second, 1 - first - second), abs=5e-4)


def test_confidence_beats_chance(findings: Findings) -> None:
    """Table 9 of the paper: leaving by confidence is better than leaving at random, at every budget."""
    chance = np.array(findings.comparison.top1["random"])
    for measure in ("max_softmax", "margin", "entropy"):
        assert (np.array(findings.comparison.top1[measure]) > chance + 0.005).all()


def test_random_exit_lies_between_the_exits() -> None:
    budgets = np.array([1.0, 1.5, 2.0])
    assert random_exit(budgets, np.array([0.5, 0.9]), np.array([1.0, 2.0])) == pytest.approx((0.5, 0.7, 0.9), abs=1e-3)


def brief_genetic_rule(calibration: Calibration) -> Frontier:
    return genetic_rule(calibration, population=60, generations=4)


@pytest.mark.parametrize(("rule", "function"), [("quantile", quantile_rule), ("genetic", brief_genetic_rule)])
def test_other_rules_give_whole_profiles_too(
    rule: RuleName, function: ThresholdRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.profile.threshold_rule", {rule: function}.get)
    found = find(logits_of_exits(5, 200, exits=4), logits_of_exits(6, 200, exits=4), rule)
    assert set(found.named) == set(PROFILE_NAMES)
    assert all(len(point.thresholds) == 3 for point in found.frontier)


def test_one_exit_has_one_point_under_every_name() -> None:
    found = find(logits_of_exits(7, 100, exits=1), logits_of_exits(8, 100, exits=1))
    assert len(found.frontier) == 1
    assert set(found.named.values()) == {found.frontier[0]}


def test_cross_fitting_is_less_optimistic_than_the_search_itself() -> None:
    """Over several draws: what the search promises against what its thresholds do on 20,000 fresh samples."""
    fresh = synthetic_exits(99, 20_000)
    promised, expected, kept = [], [], []
    for seed in range(6):
        calibration = synthetic_exits(seed, 300)
        frontier = exhaustive_rule(calibration).thinned(30)
        promised.append(frontier.top1.mean())
        expected.append(cross_fitted_top1(calibration, calibration, exhaustive_rule, frontier.mean_gmacs).mean())
        kept.append(evaluate_many(fresh, frontier.thresholds).top1.mean())
    assert np.mean(promised) > np.mean(kept) + 0.005, "searching on 300 samples is optimistic"
    assert abs(np.mean(expected) - np.mean(kept)) < abs(np.mean(promised) - np.mean(kept)) / 2


def test_thresholds_are_sought_by_harm_so_the_frontier_does_not_stop_where_luck_ran_out() -> None:
    """Over several draws: the dearest early-leaving point on 20,000 fresh samples, found by harm and found by hits."""
    fresh = logits_of_exits(99, 20_000)
    by_harm, by_hits = [], []
    for seed in range(6):
        search = logits_of_exits(seed, 400)
        by_harm.append(max(point.top1 for point in find(search, fresh).frontier if None not in point.thresholds))
        found = ExitProbabilities.of(search, [1.0] * 3).calibration(CUMULATIVE_GMACS[:3], "max_softmax")
        unseen = ExitProbabilities.of(fresh, [1.0] * 3).calibration(CUMULATIVE_GMACS[:3], "max_softmax")
        by_hits.append(evaluate_many(unseen, exhaustive_rule(found).thresholds).top1.max())
    assert np.mean(by_harm) > np.mean(by_hits) + 0.002


def test_each_sample_is_unseen_exactly_once() -> None:
    calibration = synthetic_exits(0, 103)
    seen: list[int] = []

    def spying(part: Calibration) -> Frontier:
        seen.append(part.samples)
        return exhaustive_rule(calibration)

    cross_fitted_top1(calibration, calibration, spying, np.array([0.3, 0.5]))
    assert len(seen) == FOLDS
    assert sum(103 - count for count in seen) == 103


def test_named_points_are_the_cheapest_within_their_tolerance() -> None:
    calibration = synthetic_exits(11, 800)
    frontier = exhaustive_rule(calibration).thinned(60)
    choice = choose_named(calibration, calibration, exhaustive_rule, frontier)
    last = calibration.exit_top1[-1]
    fast = choice.rows["fast"]
    assert choice.expected_top1[fast] >= last - 0.02 - 1e-9
    assert (choice.expected_top1[:fast] < last - 0.02).all()
    assert choice.expected_top1.max() < last - 0.005, "this set is too small to be sure of half a point"
    assert choice.rows["balanced"] == choice.rows["accurate"] == choice.expected_top1.argmax()


def test_a_budget_between_points_is_rounded_down() -> None:
    frontier = exhaustive_rule(synthetic_exits(12, 200))
    middle = (frontier.mean_gmacs[:-1] + frontier.mean_gmacs[1:]) / 2
    np.testing.assert_array_equal(best_vectors(frontier, middle), np.arange(len(middle)))


def test_a_profiled_bundle_says_what_it_was_measured_on(tiny: TinyBundle) -> None:
    run = profile_bundle(tiny.path, tiny.data)
    written = read_bundle(tiny.path).profiles
    assert written == run.profiles
    record = read_record(tiny.path)
    assert [(split.name, split.size, split.sha256) for split in run.profiles.splits] == [
        ("search", record.search.size, record.search.sha256),
        ("report", record.report.size, record.report.sha256),
    ]
    assert not run.report_differs


def test_a_profiled_bundle_tells_the_cost_of_its_static_twin(tiny: TinyBundle, tmp_path: Path) -> None:
    twin = write_tiny_bundle(tmp_path, "static_micro")
    cost = profile_bundle(tiny.path, tiny.data).profiles.static_gmacs
    alone = profile_bundle(twin.path, twin.data).profiles
    assert cost == pytest.approx(alone.exits[0].gmacs)
    assert alone.static_gmacs == alone.exits[0].gmacs


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_running_the_cascade_gives_what_the_profile_quotes(tiny: TinyBundle, name: str) -> None:
    quoted = profile_bundle(tiny.path, tiny.data).profiles
    evaluation = evaluate_bundle(tiny.path, tiny.data, name).evaluation
    assert evaluation.profile == name
    assert evaluation.exit_shares == pytest.approx(quoted.named[name].exit_shares)
    assert evaluation.top1 == pytest.approx(quoted.named[name].top1)
    assert evaluation.mean_gmacs == pytest.approx(quoted.named[name].mean_gmacs)
    assert [each.top1 for each in evaluation.exits] == pytest.approx([each.top1 for each in quoted.exits])


def test_search_images_that_changed_are_refused(tiny: TinyBundle, tmp_path: Path) -> None:
    shutil.copytree(tiny.data, tmp_path / "data")
    changed = next(iter(read_record(tiny.path).search.files))
    (tmp_path / "data" / changed).write_bytes((tmp_path / "data" / "test" / "red" / "0.png").read_bytes())
    with pytest.raises(DataError, match=changed):
        profile_bundle(tiny.path, tmp_path / "data")


def test_other_report_images_are_used_and_recorded(tiny: TinyBundle, tmp_path: Path) -> None:
    shutil.copytree(tiny.data, tmp_path / "data")
    (tmp_path / "data" / "test" / "red" / "0.png").unlink()
    run = profile_bundle(tiny.path, tmp_path / "data")
    assert run.report_differs
    assert run.profiles.splits[1].size == 29
    assert run.profiles.splits[1].sha256 != read_record(tiny.path).report.sha256


def test_a_limit_is_recorded_as_what_it_is(tiny: TinyBundle) -> None:
    run = profile_bundle(tiny.path, tiny.data, limit=12)
    assert [split.size for split in run.profiles.splits] == [12, 12]
    assert run.profiles.splits[0].sha256 != read_record(tiny.path).search.sha256


def test_the_command_writes_tables_profiles_and_picture(
    tiny: TinyBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny.path, tmp_path / "bundle")
    png = tmp_path / "frontier.png"
    arguments = ["profile", str(tmp_path / "bundle"), "--data", str(tiny.data), "--confidence", "margin"]
    assert dvt.main([*arguments, "--rule", "quantile", "--plot", str(png)]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(word in printed.err for word in ("max_softmax", "margin", "entropy", "random", "balanced"))
    assert json.loads((tmp_path / "bundle" / "profiles.json").read_text())["confidence"] == "margin"
    assert png.read_bytes().startswith(b"\x89PNG")


def test_too_much_work_is_one_line_with_the_way_out(
    tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.thresholds.exhaustive.STEP_LIMIT", 10)
    assert dvt.main(["profile", str(tiny.path), "--data", str(tiny.data)]) == 2
    assert "genetic" in capsys.readouterr().err.splitlines()[-1]


def test_logits_that_are_not_numbers_are_refused() -> None:
    search = logits_of_exits(0, 50)
    broken = replace(search, logits=np.full_like(search.logits, np.nan))
    with pytest.raises(ValueError, match="weights are damaged"):
        find(broken, search)
