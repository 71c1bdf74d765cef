"""`dvt plan`: a table for people, JSON for machines, a picture; and one line for what cannot be planned."""

import json
from pathlib import Path

import pytest

import dvt
from models import strict_json
from service.planner.costs import DeviceCosts, read_costs
from service.planner.document import PlanDocument
from tests.service.tiny_bundles import tiny_config, write_tiny_bundle

COSTS = DeviceCosts(({"1": 0.002, "8": 0.012}, {"1": 0.004, "8": 0.024}, {"1": 0.006}), lanes=2, max_batch=8)
SHIPPED = ("--shares", "90,8,2")


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    file = tmp_path / "costs.json"
    file.write_text(strict_json.dumps(COSTS))
    return file


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> PlanDocument:
    assert dvt.main(["plan", "--json", *arguments]) == 0
    return strict_json.loads(PlanDocument, capsys.readouterr().out, "plan")


def test_both_topologies_are_planned_from_one_machine_to_internet_scale(
    costs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = planned(capsys, "--costs", str(costs))
    assert [plan.topology for plan in document.plans] == ["whole"] * 6 + ["stages"] * 6
    assert [plan.rate_per_s for plan in document.plans[:6]] == [10.0**power for power in range(1, 7)]
    assert document.plans[0].replicas == 1
    assert 1_000 < document.plans[5].replicas < 20_000
    assert all(plan.p99_ms <= document.p99_ms for plan in document.plans)
    assert sum(document.exit_shares) == pytest.approx(1)


def test_what_it_prints_can_be_planned_from_again(
    costs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = planned(capsys, "--costs", str(costs), "--rate", "500")
    kept = tmp_path / "plan.json"
    kept.write_text(strict_json.dumps(first))
    assert read_costs(kept) == COSTS
    assert planned(capsys, "--costs", str(kept), "--rate", "500") == first


def test_costs_are_measured_here_where_none_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", tiny_config(3))
    document = planned(capsys, str(bundle.path), *SHIPPED, "--rate", "10", "--topology", "whole")
    assert document.bundle == "tiny"
    assert len(document.batch_s) == 3
    assert "1" in document.batch_s[0]


def test_prices_and_spare_replicas_are_counted(costs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = planned(capsys, "--costs", str(costs), "--rate", "2000", "--price", "2,3,4")
    spare = planned(capsys, "--costs", str(costs), "--rate", "2000", "--price", "2,3,4", "--spare", "2")
    whole, stages = plain.plans
    assert whole.price_an_hour == 2 * whole.replicas
    assert stages.price_an_hour == sum(
        pool.replicas * price for pool, price in zip(stages.pools, (2, 3, 4), strict=True)
    )
    assert [plan.replicas for plan in spare.plans] == [whole.replicas + 2, stages.replicas + 6]
    assert [plan.p99_ms for plan in spare.plans] == [whole.p99_ms, stages.p99_ms]


def test_a_table_and_a_picture_are_for_people(costs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png = tmp_path / "plan.png"
    assert dvt.main(["plan", "--costs", str(costs), "--rate", "100,1000", "--png", str(png)]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "1,000" in printed.err
    assert png.read_bytes().startswith(b"\x89PNG")


def test_an_objective_out_of_reach_is_named_and_the_exit_code_says_so(
    costs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dvt.main(["plan", "--json", "--costs", str(costs), "--rate", "10", "--p99-ms", "1"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["plans"] == []
    assert "out of reach" in printed.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--profile", "none"), "no profile 'none'; it has fast, balanced"),
        (("--shares", "50,50"), "--shares must be 3 and 100 altogether"),
        (("--shares", "50,40,20"), "--shares must be 3 and 100 altogether"),
        (("--price", "1,2"), "2 prices for 3 stages"),
        (("--costs", "missing.json"), "missing.json"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], reason: str, costs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments if "--costs" in arguments else ("--costs", str(costs), *arguments)
    assert dvt.main(["plan", *given]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("dvt plan: ")
    assert reason in printed
    assert printed.count("\n") == 1
