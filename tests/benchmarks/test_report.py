"""docs/performance.md says what was measured, what was missed, and nothing that was not measured."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import dvt
from benchmarks.floor import Floor
from benchmarks.goals import Goal
from benchmarks.measure import Latency
from benchmarks.peers.catalogue import OURS
from benchmarks.peers.plan import Piece
from benchmarks.photos import ROOT
from benchmarks.plan_check import Compared
from benchmarks.report import PAGE, Kept, goals, render
from benchmarks.result_files import write_results
from benchmarks.results import (
    CPU_FILE,
    MEMORY_FILE,
    PEERS_FILE,
    AloneDocument,
    AutoLoadDocument,
    AutoLoadRun,
    AutoSimulationDocument,
    CacheDocument,
    CpuDocument,
    MemoryDocument,
    MemoryPoint,
    PeersDocument,
    PlanDocument,
    RayDocument,
    RayRun,
    SimulatedRun,
)
from tests.benchmarks.test_plan import ENVIRONMENT, result, whole_comparison

NOTHING = Kept(None, None, None, None, None)


def cpu() -> CpuDocument:
    load = replace(result(100.0), clients=16, server_cpu_ms=12.5)
    floors = (Floor(300, 11.0), Floor(100, 12.0))
    return CpuDocument(ENVIRONMENT, "photos", "ours", "balanced", load, 1.5, (4.0, 2.0), floors)


def memory() -> MemoryDocument:
    points = tuple(MemoryPoint(1000 * step, 100_000_000 + 100_000 * step) for step in range(1, 21))
    return MemoryDocument(ENVIRONMENT, "photos", "ours", "balanced", 16, points)


def comparison() -> PeersDocument:
    _, pieces = whole_comparison()

    def with_latency(piece: Piece) -> Piece:
        latency = Latency(100, 10.0, 8.0, 15.0, 20.0 if piece.server == OURS else 40.0, 99.0)
        return replace(piece, result=replace(piece.result, latency=latency, offered_per_s=1.0))

    pieces = list(map(with_latency, pieces))
    return PeersDocument("photos", "ours", "balanced", 0.93, "static", 0.94, tuple(pieces))


def value(kept: Kept, what: str) -> float | None:
    (goal,) = (goal for goal in goals(kept) if what in goal.what)
    return goal.value


def test_without_results_nothing_is_claimed() -> None:
    assert {goal.reached for goal in goals(NOTHING)} == {None}
    assert render(NOTHING, "").count("not measured") == len(goals(NOTHING))


@pytest.mark.parametrize(
    ("bound", "kind", "reached"),
    [(2.0, "at least", True), (2.1, "at least", False), (2.0, "at most", True), (1.9, "at most", False)],
)
def test_a_goal_is_reached_at_its_bound(bound: float, kind: str, reached: bool) -> None:
    assert Goal("it", bound, kind, 2.0).reached is reached  # type: ignore[arg-type] # A parameter's text is not a literal.


def test_cpu_beyond_is_what_the_server_took_more_than_the_floor_over_all_its_rounds() -> None:
    assert value(replace(NOTHING, cpu=cpu()), "server CPU") == pytest.approx(12.5 - 11.25)


def test_one_client_is_compared_by_medians() -> None:
    alone = AloneDocument(ENVIRONMENT, "photos", "ours", "balanced", (9.0, 10.0, 99.0), (7.0, 8.5, 8.0))
    assert value(replace(NOTHING, alone=alone), "one client") == 2.0


def test_memory_is_compared_between_the_first_thousand_and_the_end() -> None:
    assert value(replace(NOTHING, memory=memory()), "memory") == pytest.approx(102.0 / 100.1)


def test_requests_and_tail_are_compared_with_the_best_peer() -> None:
    kept = replace(NOTHING, peers=comparison())
    assert value(kept, "best peer's") == pytest.approx(100 / 45)
    assert value(kept, "p99") == 0.5
    page = render(kept, "")
    assert "mosec 0.9.8" in page
    assert "93.00 % top-1" in page


def test_the_page_is_made_from_the_files_and_says_what_was_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(cpu(), tmp_path / CPU_FILE)
    write_results(memory(), tmp_path / MEMORY_FILE)
    (tmp_path / "notes.md").write_text("## Missed\nBecause.\n")
    page = tmp_path / "performance.md"
    assert dvt.main(["bench", "report", "--results", str(tmp_path), "--out", str(page)]) == 0
    assert "1 numbers missed; server CPU a request" in capsys.readouterr().err
    text = page.read_text()
    assert "| server CPU a request beyond decoding and stages | at most 1 ms | 1.25 ms | **no** |" in text
    assert text.endswith("## Missed\nBecause.\n")


def test_the_page_is_made_without_torch(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    code = "import sys; sys.modules['torch'] = None; import dvt; sys.exit(dvt.main(['bench', 'report', *sys.argv[1:]]))"
    subprocess.run([sys.executable, "-c", code, "--out", str(page)], cwd=ROOT, check=True, capture_output=True)
    assert "## On a GPU: " in page.read_text()


def test_the_page_in_the_repository_is_the_one_that_its_results_make(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    assert dvt.main(["bench", "report", "--out", str(page)]) == 0
    assert page.read_text() == PAGE.read_text()


def test_a_comparison_that_is_not_complete_compares_nothing(tmp_path: Path) -> None:
    whole = comparison()
    write_results(replace(whole, pieces=whole.pieces[:-1]), tmp_path / PEERS_FILE)
    assert Kept.read(tmp_path).peers is None
    write_results(whole, tmp_path / PEERS_FILE)
    assert Kept.read(tmp_path).peers == whole


def test_a_budget_by_load_is_told_as_it_was_loaded_and_simulated() -> None:
    load = replace(result(90.0), offered_per_s=97.5, requests=900, errors={"503": 100})
    runs = (AutoLoadRun("fixed `accurate`", load, 0.25, {"8": 900}),)
    loaded = AutoLoadDocument(ENVIRONMENT, "dvt_t2t_vit_12", "10 crops", (0.9, 0.1), (0.6, 0.4), 1000.0, 65.0, runs)
    run = SimulatedRun("step", "auto, 9 points", 1000, 20, 5.0, 40.0, 0.005, 0.2, 0.951, 3, 1)
    simulated = AutoSimulationDocument(
        ENVIRONMENT, "ours", "fast", "full", 100.0, ({"1": 0.002},), 2, 8, 256, 190.0, 6.0, 600.0, 0, (run,)
    )
    page = render(replace(NOTHING, auto_load=loaded, auto_simulated=(simulated,)), "")
    assert "shares of 90/10 to 60/40 %" in page
    assert "| fixed `accurate` | 97.5 | 1,000 | 10.0 % |" in page
    assert "| step: auto, 9 points | 1,000 | 2.0 % | 5 | 40 | 0.50 % | 0.2000 | 95.10 % | 3 (1) |" in page


def test_the_cache_stands_beside_computing_with_their_ratio() -> None:
    computed, cached = (replace(result(rate), clients=16, server_cpu_ms=9.0) for rate in (100.0, 350.0))
    document = CacheDocument(ENVIRONMENT, "photos", "ours", "balanced", 1000, 10_000, 0.9, computed, cached)
    page = " ".join(render(replace(NOTHING, cache=document), "").split())
    assert "3.50 times the requests/s" in page
    assert "90 % of them for one that was asked for before" in page
    assert "| off | 100.0 |" in page
    assert "| key | 350.0 |" in page
    assert "The same images again" not in render(NOTHING, "")


def test_forecasts_of_the_planner_stand_beside_the_simulation() -> None:
    near = Compared("a GPU", "60/25/15", "whole", 0.5, (3,), 10.0, 5.0, (4.9, 5.1), 21.0, 20.0, 8.0, 8.0, 0.5, 0.5)
    text = render(replace(NOTHING, plan=PlanDocument(1000, 0, (near, replace(near, load=0.3, p99_ms=26.0)))), "")
    assert "all within 10 % in 1 of 2 cases" in " ".join(text.split())
    assert "| a GPU | 60/25/15 | whole | +0.0 % | +30.0 % | +0.0 % | +0.0 % |" in text
    assert "Capacity planner" not in render(NOTHING, "")


def test_replicas_on_ray_are_told_beside_what_their_stages_allow() -> None:
    sizes: tuple[tuple[str, tuple[int, ...], float], ...] = (
        ("replicas", (1,), 7.0),
        ("replicas", (2,), 13.9),
        ("stages", (1, 1, 1), 12.0),
        ("stages", (1, 2, 2), 24.0),
        ("stages", (2, 2, 2), 24.1),
    )
    runs = tuple(RayRun(topology, replicas, result(per_s)) for topology, replicas, per_s in sizes)
    kept = replace(NOTHING, ray=RayDocument(ENVIRONMENT, "2.60.0", (0.02, 0.04, 0.08), 4, 32, runs))
    assert value(kept, "whole service over one") == pytest.approx(13.9 / 7.0)
    assert value(kept, "over one replica each") == pytest.approx(2.0)
    assert value(kept, "over every stage doubled") == pytest.approx(24.0 / 24.1)
    page = render(kept, "")
    assert "| a deployment a stage | 1 / 2 / 2 | 25.0 | 24.0 | 2.00 | 0 |" in page
    assert "| whole service | 2 | 14.3 | 13.9 | 1.99 | 0 |" in page
