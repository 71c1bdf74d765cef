"""The controller in its service: what it is told, and what a switch changes and does not."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.engine.admission import Admission, AdmissionLimits
from service.engine.budget import Budget
from service.engine.budget_file import FILE
from service.engine.catalogue import AutoGoal, BudgetRequest, Catalogue, Resolved
from service.engine.costs import Lanes, StageCosts
from service.engine.steering import LOOK_EVERY_S, Steering
from service.errors import AboveCeilingError, OverloadedError
from service.metrics import Metrics
from tests.service.cascades import quiet_log, small_profiles

AUTO = BudgetRequest(auto=AutoGoal(200, "fast", "full"))


def open_budget(folder: Path, *, ceiling: str = "") -> Budget:
    return Budget(
        Catalogue(3, small_profiles()),
        bundle="bundle-1",
        first_profile="balanced",
        ceiling=ceiling,
        folder=folder,
        log=quiet_log(),
    )


@dataclass
class Site:
    """A budget that is steered, with a clock and a load set by hand."""

    folder: Path
    now_s: float = 0.0
    work_s: float = 0.0
    metrics: Metrics = field(default_factory=lambda: Metrics("fake", "0", 3))

    def __post_init__(self) -> None:
        self.budget = open_budget(self.folder)
        self.admission = Admission(AdmissionLimits(8, 8, 1, 1), lambda images: 1.0)
        costs = StageCosts(3, 8)
        for stage in (1, 2, 3):
            costs.seed(stage, {1: 0.01})
        self.steering = Steering(
            self.budget,
            self.admission,
            lambda images: self.work_s,
            (Lanes(costs, 1),),
            clock=lambda: self.now_s,
            metrics=self.metrics,
            log=quiet_log(),
        )

    def look(self, times: int = 1) -> Resolved:
        for _ in range(times):
            self.now_s += LOOK_EVERY_S
            self.steering.look()
        return self.budget.in_force.resolved

    def switches(self, direction: str) -> float:
        value = self.metrics.registry.get_sample_value("dvt_auto_switches_total", {"direction": direction})
        assert value is not None
        return value


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_other_forms_of_budget_are_left_alone(site: Site) -> None:
    site.work_s = 100.0
    site.steering.answered(100.0)
    assert site.look(50).profile == "balanced"


def test_a_switch_is_another_point_under_the_same_revision(site: Site) -> None:
    put = site.budget.put(AUTO, by="me")
    assert (put.revision, put.resolved.profile) == (2, "full")
    before = (site.folder / FILE).read_bytes()
    site.look()
    site.work_s = 10.0
    assert site.look().profile == "fast"
    assert site.budget.in_force.revision == 2
    assert (site.folder / FILE).read_bytes() == before, "what was asked for has not changed"
    assert (site.switches("down"), site.switches("up")) == (1, 0)
    assert site.budget.put(AUTO, by="me", if_revision=2).resolved.profile == "fast"
    site.work_s = 0.0
    assert site.look(700).profile == "full"
    assert (site.switches("down"), site.switches("up")) == (1, 1)


def test_another_objective_begins_anew_at_its_ceiling(site: Site) -> None:
    site.budget.put(AUTO, by="me")
    site.work_s = 10.0
    assert site.look(2).profile == "fast"
    site.budget.put(BudgetRequest(auto=AutoGoal(60_000, "fast", "accurate")), by="me")
    assert site.look(5).profile == "accurate"


def test_a_restart_begins_at_the_ceiling_of_what_was_asked(site: Site) -> None:
    site.budget.put(AUTO, by="me")
    site.work_s = 10.0
    site.look(2)
    again = open_budget(site.folder)
    assert (again.in_force.revision, again.in_force.request) == (2, AUTO)
    assert (again.in_force.resolved.profile, len(again.in_force.points)) == ("full", 4)
    assert json.loads((site.folder / FILE).read_text())["request"]["auto"]["p99_ms"] == 200


def test_answers_from_before_a_switch_do_not_count_against_the_point_after_it(site: Site) -> None:
    site.budget.put(BudgetRequest(auto=AutoGoal(200, "fast", "accurate")), by="me")
    site.look(10)
    for _ in range(100):
        site.steering.answered(5.0)
    assert site.look().profile == "accurate"
    site.now_s += 10
    for _ in range(100):
        site.steering.answered(5.0)
    assert site.look().profile != "accurate"


def test_images_from_before_a_range_was_asked_for_do_not_excuse_late_answers(site: Site) -> None:
    for _ in range(5000):
        site.admission.acquire(1)
        site.admission.release()
    site.budget.put(BudgetRequest(auto=AutoGoal(200, "fast", "accurate")), by="me")
    site.look()
    site.now_s += 10
    for _ in range(20):
        site.steering.answered(5.0)
    assert site.look().profile != "accurate"


def test_refused_images_are_offered_all_the_same(site: Site) -> None:
    site.admission.acquire(8)
    with pytest.raises(OverloadedError):
        site.admission.acquire(2)
    with pytest.raises(OverloadedError), site.admission.request():
        pass
    assert (site.admission.inside, site.admission.offered) == (8, 11)


def test_a_switch_that_comes_too_late_changes_nothing(site: Site) -> None:
    points = site.budget.put(AUTO, by="me").points
    site.budget.put(BudgetRequest(profile="balanced"), by="me")
    assert not site.budget.operate(2, points[0])
    assert site.budget.in_force.resolved.profile == "balanced"


def test_a_switch_does_not_wait_for_a_change_that_is_being_written(site: Site) -> None:
    points = site.budget.put(AUTO, by="me").points
    with site.budget._lock:
        assert not site.budget.operate(2, points[0])
    assert site.budget.operate(2, points[0])


def test_what_requests_may_ask_for_does_not_change_with_the_load(tmp_path: Path) -> None:
    budget = open_budget(tmp_path, ceiling="fast")
    put = budget.put(BudgetRequest(auto=AutoGoal(200, "fast", "accurate")), by="me")
    accurate, full = (budget.catalogue.resolve(BudgetRequest(profile=name)) for name in ("accurate", "full"))
    for point in put.points:
        budget.operate(put.revision, point)
        budget.check_ceiling(accurate)
        with pytest.raises(AboveCeilingError):
            budget.check_ceiling(full)
