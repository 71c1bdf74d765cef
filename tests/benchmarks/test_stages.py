"""What the page on the stages' speed says follows from what was measured, and work is counted from the graphs."""

from pathlib import Path

import pytest

from benchmarks import stages
from benchmarks.graph_cost import graph_gmacs
from benchmarks.stages import EAGER, OURS, TRACED, StagesDocument, StageTimes, page, table
from benchmarks.traced import trace_stage
from models.export import export_graphs
from models.flops import cumulative_gmacs
from models.graph_writer import GraphWriter
from tests.benchmarks.test_plan import ENVIRONMENT
from tests.models.small_cascades import NOTHING, patch_stage, small_cascade, small_config, weights_of


def times(stage: int, batch: int, form: str, ms: float) -> StageTimes:
    return StageTimes(stage, batch, form, 0.5, 0.4, (ms, ms, 10 * ms), (200.0, 200.0, 150.0))


def document() -> StagesDocument:
    measured = tuple(
        times(stage, batch, form, ms * stage)
        for batch in (8, 1)
        for stage in (1, 2)
        for form, ms in ((OURS, 10.0), (TRACED, 15.0), (EAGER, 20.0))
    )
    return StagesDocument(ENVIRONMENT, "2.11", "dvt_t2t_vit_12", 2, 3, 1, measured)


def test_a_share_is_of_the_yardstick_by_medians() -> None:
    # 0.5 GMACs are 1 GFLOP: in 10 ms 100 GFLOP/s, half of 200; the graph does four fifths of it.
    one = document().of(1, 8, OURS)
    assert (one.share, one.done_share) == pytest.approx((0.5, 0.4))
    # Both stages one after another: 2 GFLOP in 10 and 20 ms.
    assert document().full_depth_share(1) == pytest.approx(2 / 0.030 / 200)


def test_the_page_shows_ratios_over_the_other_forms() -> None:
    assert table(document()).rows[0] == ("1", "8", "10.0", "50 %", "40 %", "33 %", "1.50", "2.00")
    text = page(document(), "Why so.\n")
    assert "| 2 | 1 | 20.0 | 25 % |" in text and "1 of 36 turns" in text and text.endswith("Why so.\n")


class _Yardstick:
    """Full speed but for the measurements at the given places."""

    def __init__(self, slow: set[int]) -> None:
        self._slow, self._taken = slow, 0

    def gflops(self) -> float:
        self._taken += 1
        return 50.0 if self._taken - 1 in self._slow else 200.0


def test_a_disturbed_turn_is_not_counted() -> None:
    found, left_out = stages._take_turns({OURS: lambda: None}, _Yardstick({2}), batch=8, turns=5)  # type: ignore[arg-type]
    # The third measurement ends the second turn and begins the third.
    assert left_out == 2 and found[OURS][1] == (200.0, 200.0, 200.0)


def test_without_results_and_graphs_it_says_in_one_line_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "RESULTS", tmp_path)
    assert stages.main(["report"]) == 2
    assert stages.main(["measure", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "run `python -m benchmarks.stages measure DIR` first" in error and "dvt bench geometry" in error


def test_work_is_counted_from_the_graph_and_leaves_out_what_is_folded() -> None:
    graph = GraphWriter({"weight": (4, 6)})
    folded = graph.op("MatMul", graph.weight("weight"), graph.transpose(graph.weight("weight"), 1, 0))  # (4, 4)
    image = graph.input("image", 1, (5, 4))
    graph.output("logits", graph.op("MatMul", image, folded), (5, 4))
    assert graph_gmacs(graph.to_bytes()) == pytest.approx(5 * 4 * 4 / 1e9)


def test_a_stage_that_hands_on_all_it_has_costs_what_eager_does() -> None:
    config = small_config([patch_stage(2), patch_stage(4)])
    model = small_cascade(config)
    first, _ = export_graphs(model)
    assert graph_gmacs(first) == pytest.approx(cumulative_gmacs(model)[0])


def test_of_a_last_block_only_the_class_token_is_computed() -> None:
    config = small_config([patch_stage(2)], NOTHING, depth=1)
    model = small_cascade(config)
    (graph,) = export_graphs(model)
    dim, others = config.backbone.dim, 4
    left_out = others * (2 * dim * dim + 2 * config.backbone.mlp_ratio * dim * dim)  # query, projection, MLP
    left_out += others * 2 * dim * (others + 1)  # logits of five keys, sums of five values
    assert graph_gmacs(graph) == pytest.approx(cumulative_gmacs(model)[0] - left_out / 1e9)


def test_a_traced_graph_takes_the_same_weights() -> None:
    model = small_cascade(small_config([patch_stage(2)], NOTHING, depth=1))
    graph = trace_stage(model, 0)
    assert all(name.encode() in graph for name in weights_of(model))
    assert len(graph) < 100_000
