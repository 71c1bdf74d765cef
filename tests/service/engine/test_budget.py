"""The budget in force: what a request resolves to, what outlives a restart, and how far a client may go."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from models.profiles import Profiles
from service.engine.budget import Budget, confidence_rule
from service.engine.budget_file import FILE
from service.engine.catalogue import BudgetRequest, Catalogue
from service.errors import (
    AboveCeilingError,
    InvalidParameterError,
    InvalidThresholdsError,
    NotReadyError,
    RevisionChangedError,
    UnknownProfileError,
)
from tests.service.cascades import quiet_log, small_profiles


def budget_in(
    folder: Path,
    *,
    bundle: str = "bundle-1",
    profiles: Profiles | None = None,
    first_profile: str = "balanced",
    ceiling: str = "",
    bare: bool = False,
) -> Budget:
    catalogue = Catalogue(3, None if bare else profiles or small_profiles())
    return Budget(
        catalogue, bundle=bundle, first_profile=first_profile, ceiling=ceiling, folder=folder, log=quiet_log()
    )


def test_a_profile_resolves_to_its_thresholds_and_its_point_on_the_frontier(tmp_path: Path) -> None:
    resolved = budget_in(tmp_path).in_force.resolved
    assert (resolved.thresholds, resolved.profile, resolved.number) == ((0.8, 0.6), "balanced", 1)
    assert resolved.measured is not None
    assert resolved.measured.mean_gmacs == 0.3


def test_thresholds_of_the_frontier_are_recognised_and_others_are_taken_as_they_are(tmp_path: Path) -> None:
    budget = budget_in(tmp_path)
    known = budget.put(BudgetRequest(thresholds=(0.95, 0.9)), by="me").resolved
    assert (known.number, known.profile) == (2, None)
    new = budget.put(BudgetRequest(thresholds=(0.123, None)), by="me").resolved
    assert (new.thresholds, new.number, new.measured) == ((0.123, None), None, None)


def test_each_change_is_a_revision_that_outlives_a_restart(tmp_path: Path) -> None:
    budget = budget_in(tmp_path)
    assert budget.in_force.revision == 1
    assert budget.put(BudgetRequest(profile="fast"), by="me").revision == 2
    again = budget_in(tmp_path, first_profile="accurate")
    assert (again.in_force.revision, again.in_force.request) == (2, BudgetRequest(profile="fast"))
    assert again.put(BudgetRequest(thresholds=(None, 0.5)), by="me").revision == 3
    assert budget_in(tmp_path).in_force.request == BudgetRequest(thresholds=(None, 0.5))


def test_another_bundle_has_the_same_request_resolved_anew(tmp_path: Path) -> None:
    budget_in(tmp_path, bundle="bundle-1").put(BudgetRequest(gmacs=0.3), by="me")
    other = small_profiles()
    cheaper = replace(other.frontier[1], thresholds=(0.7, 0.5))
    other = replace(other, frontier=(cheaper, *other.frontier[2:]), named={**other.named, "balanced": cheaper})
    in_force = budget_in(tmp_path, bundle="bundle-2", profiles=other).in_force
    assert (in_force.revision, in_force.request) == (2, BudgetRequest(gmacs=0.3))
    assert in_force.resolved.thresholds == (0.7, 0.5)


def test_thresholds_of_another_bundle_are_dropped_and_counted_on(tmp_path: Path) -> None:
    budget_in(tmp_path, bundle="bundle-1").put(BudgetRequest(thresholds=(0.5, 0.5)), by="me")
    other = budget_in(tmp_path, bundle="bundle-2")
    assert (other.in_force.revision, other.in_force.request) == (3, BudgetRequest(profile="balanced"))


def test_what_is_in_force_already_keeps_its_revision(tmp_path: Path) -> None:
    budget = budget_in(tmp_path)
    first = budget.put(BudgetRequest(profile="fast"), by="me")
    assert budget.put(BudgetRequest(profile="fast"), by="me") is first
    assert budget.put(BudgetRequest(profile="fast", ceiling="accurate"), by="me").revision == 3


def test_what_another_process_put_in_force_already_is_found_to_be(tmp_path: Path) -> None:
    one, other = budget_in(tmp_path), budget_in(tmp_path)
    assert one.put(BudgetRequest(profile="fast"), by="me").revision == 2
    assert other.put(BudgetRequest(profile="fast"), by="me").revision == 2
    assert other.in_force.resolved == one.in_force.resolved


@pytest.mark.parametrize("revision", [1, 2])
def test_an_older_budget_of_another_replica_is_not_followed(tmp_path: Path, revision: int) -> None:
    budget = budget_in(tmp_path)
    before = budget.put(BudgetRequest(profile="fast"), by="me")
    assert not budget.adopt(replace(budget.stored, revision=revision, request=BudgetRequest(profile="full")))
    assert budget.in_force is before


def test_a_newer_budget_of_another_replica_is_followed_for_good(tmp_path: Path) -> None:
    budget = budget_in(tmp_path)
    changed = budget.after(None, BudgetRequest(gmacs=0.2), by="ann")
    assert changed is not None
    assert budget.in_force.revision == 1, "nothing has changed yet"
    assert budget.adopt(replace(changed, revision=7))
    assert (budget.in_force.revision, budget.in_force.resolved.thresholds) == (7, (0.4, 0.4))
    again = budget_in(tmp_path)
    assert (again.in_force.revision, again.stored.history[-1].by) == (7, "ann")


def test_a_replica_with_another_bundle_follows_what_is_asked_but_not_its_thresholds(tmp_path: Path) -> None:
    budget = budget_in(tmp_path)
    changed = budget.after(None, BudgetRequest(profile="full"), by="ann")
    assert changed is not None
    assert budget.adopt(replace(changed, bundle="bundle-2", thresholds=(0.1, 0.1)))
    assert budget.in_force.resolved.thresholds == (None, None)
    vector = replace(changed, bundle="bundle-2", revision=9, request=BudgetRequest(thresholds=(0.5, 0.5)))
    assert not budget.adopt(vector)
    assert not budget.adopt(replace(changed, revision=9, request=BudgetRequest(profile="turbo")))
    assert not budget.adopt(replace(changed, revision=9, request=BudgetRequest(thresholds=(0.5, 5.0))))
    assert budget.in_force.revision == 2


def test_who_names_the_revision_changes_that_one_only(tmp_path: Path) -> None:
    budget = budget_in(tmp_path)
    assert budget.put(BudgetRequest(profile="fast"), by="me", if_revision=1).revision == 2
    with pytest.raises(RevisionChangedError, match="revision 1 was expected"):
        budget.put(BudgetRequest(profile="full"), by="me", if_revision=1)
    assert budget.in_force.request == BudgetRequest(profile="fast")


def test_the_budgets_own_ceiling_stands_in_for_the_services(tmp_path: Path) -> None:
    budget = budget_in(tmp_path, ceiling="balanced")
    accurate = budget.catalogue.resolve(BudgetRequest(profile="accurate"))
    with pytest.raises(AboveCeilingError):
        budget.check_ceiling(accurate)
    budget.put(BudgetRequest(profile="fast", ceiling="accurate"), by="me")
    budget.check_ceiling(accurate)


def test_a_budget_of_time_waits_for_the_device_to_be_measured(tmp_path: Path) -> None:
    seconds: list[float] = []
    request = BudgetRequest(latency_ms=2, quantile=0.5)

    def open_budget(bundle: str) -> Budget:
        catalogue = Catalogue(3, small_profiles(), stage_seconds=lambda: seconds)
        return Budget(catalogue, bundle=bundle, first_profile="balanced", ceiling="", folder=tmp_path, log=quiet_log())

    budget = open_budget("bundle-1")
    with pytest.raises(NotReadyError):
        budget.put(request, by="me")
    seconds[:] = [0.001, 0.001, 0.001]
    assert budget.put(request, by="me").resolved.profile is None
    put = budget.in_force.resolved.thresholds
    assert put == (0.95, 0.9)

    seconds.clear()
    again = open_budget("bundle-1")
    assert (again.in_force.revision, again.in_force.resolved.thresholds) == (2, put)
    elsewhere = open_budget("bundle-2")
    assert elsewhere.in_force.resolved.thresholds == (0.8, 0.6), "the first profile's, in the meantime"
    seconds[:] = [0.001, 0.001, 0.001]
    elsewhere.settle()
    assert (elsewhere.in_force.request, elsewhere.in_force.resolved.thresholds) == (request, put)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"revision": 5}', "\x00\xff"])
def test_a_damaged_file_is_replaced_by_the_first_budget(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    assert budget_in(tmp_path).in_force.request == BudgetRequest(profile="balanced")
    assert json.loads((tmp_path / FILE).read_text())["revision"] == 1


def test_a_profile_that_the_bundle_no_longer_has_gives_way_to_the_first_budget(tmp_path: Path) -> None:
    budget_in(tmp_path)
    stored = json.loads((tmp_path / FILE).read_text())
    stored["request"]["profile"] = "gone"
    (tmp_path / FILE).write_text(json.dumps(stored))
    assert budget_in(tmp_path).in_force.request == BudgetRequest(profile="balanced")


def test_two_services_on_one_folder_never_give_the_same_revision(tmp_path: Path) -> None:
    budgets = [budget_in(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        puts = [
            pool.submit(budget.put, BudgetRequest(thresholds=(place / 10, number / 10)), by="me")
            for place, budget in enumerate(budgets)
            for number in range(5)
        ]
        revisions = [put.result().revision for put in puts]
    assert sorted(revisions) == list(range(2, 22))


def test_without_profiles_the_whole_cascade_runs_and_only_thresholds_can_be_asked_for(tmp_path: Path) -> None:
    budget = budget_in(tmp_path, bare=True)
    assert budget.in_force.request == BudgetRequest(thresholds=(None, None))
    assert budget.in_force.resolved.thresholds == (None, None)
    assert budget.put(BudgetRequest(thresholds=(0.5, 0.5)), by="me").resolved.thresholds == (0.5, 0.5)
    with pytest.raises(UnknownProfileError, match="dvt profile"):
        budget.put(BudgetRequest(profile="fast"), by="me")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (BudgetRequest(profile="turbo"), UnknownProfileError),
        (BudgetRequest(thresholds=(0.5,)), InvalidThresholdsError),
        (BudgetRequest(thresholds=(0.5, 1.5)), InvalidThresholdsError),
        (BudgetRequest(thresholds=(0.5, float("nan"))), InvalidThresholdsError),
        (BudgetRequest(profile="fast", thresholds=(0.5, 0.5)), InvalidParameterError),
        (BudgetRequest(), InvalidParameterError),
    ],
)
def test_what_cannot_be_resolved_changes_nothing(
    tmp_path: Path, request_: BudgetRequest, error: type[Exception]
) -> None:
    budget = budget_in(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(error):
        budget.put(request_, by="me")
    assert (budget.in_force.revision, (tmp_path / FILE).read_bytes()) == (1, before)


@pytest.mark.parametrize("setting", ["first_profile", "ceiling"])
def test_a_profile_in_the_settings_that_is_not_there_is_an_error_at_start(tmp_path: Path, setting: str) -> None:
    with pytest.raises(UnknownProfileError, match="'turbo', this bundle has fast, balanced"):
        budget_in(tmp_path, **{setting: "turbo"})  # type: ignore[arg-type]  # one of two text parameters


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        (BudgetRequest(profile="fast"), True),
        (BudgetRequest(profile="balanced"), True),
        (BudgetRequest(profile="accurate"), False),
        (BudgetRequest(profile="full"), False),
        (BudgetRequest(thresholds=(0.8, 0.6)), True),
        (BudgetRequest(thresholds=(0.7, 0.1)), True),
        (BudgetRequest(thresholds=(0.1, 0.7)), False),
        (BudgetRequest(thresholds=(None, 0.1)), False),
        (BudgetRequest(thresholds=confidence_rule(3, 0.6)), True),
        (BudgetRequest(thresholds=confidence_rule(3, 0.61)), False),
    ],
)
def test_a_request_may_be_cheaper_than_the_ceiling_never_dearer(
    tmp_path: Path, asked: BudgetRequest, allowed: bool
) -> None:
    budget = budget_in(tmp_path, first_profile="fast", ceiling="balanced")
    resolved = budget.catalogue.resolve(asked)
    if allowed:
        budget.check_ceiling(resolved)
    else:
        with pytest.raises(AboveCeilingError, match="'balanced'"):
            budget.check_ceiling(resolved)


def test_what_is_in_force_for_all_may_be_asked_for_by_one(tmp_path: Path) -> None:
    budget = budget_in(tmp_path, first_profile="accurate", ceiling="fast")
    budget.check_ceiling(budget.catalogue.resolve(BudgetRequest(profile="accurate")))


def test_without_a_ceiling_everything_may_be_asked_for(tmp_path: Path) -> None:
    budget = budget_in(tmp_path, first_profile="fast")
    budget.check_ceiling(budget.catalogue.resolve(BudgetRequest(profile="full")))
