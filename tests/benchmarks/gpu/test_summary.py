"""Goals take the hardest case, each by the backend that is best there."""

from dataclasses import replace

import pytest

from benchmarks.gpu.document import GpuDocument
from benchmarks.gpu.summary import decoding_cpus, goals, quickest_cascade, speed_up, stages_allow
from tests.benchmarks.gpu.measured import CEILINGS, cascade, stage, whole
from tests.benchmarks.test_plan import ENVIRONMENT


def value(document: GpuDocument | None, what: str) -> float | None:
    (goal,) = (goal for goal in goals("it", document) if what in goal.what)
    return goal.value


def document(**parts: object) -> GpuDocument:
    return replace(GpuDocument(ENVIRONMENT, CEILINGS), **parts)  # type: ignore[arg-type] # Any of its fields.


def test_the_cascade_realises_a_share_of_the_flops_that_exits_save() -> None:
    runs = (cascade(280.0), cascade(200.0, is_static=True), cascade(1.0, is_static=True, in_flight=1))
    found = speed_up(runs, runs[0])
    assert (found.measured, found.saved, found.realised) == pytest.approx((1.4, 1.5, 1.4 / 1.5))


def test_stages_allow_what_they_take_one_after_another_at_the_batch_that_can_be_filled() -> None:
    rows = [stage(8, 0.008, number=number) for number in (1, 2, 3)]
    rows += [stage(64, 0.032, number=number) for number in (1, 2, 3)]
    spent = 1.0 + 0.4 + 0.15
    assert stages_allow(rows, cascade(1.0, in_flight=8)) == pytest.approx(1000 / spent)
    assert stages_allow(rows, cascade(1.0, in_flight=64)) == pytest.approx(2000 / spent)
    assert stages_allow(rows, cascade(1.0, in_flight=1)) is None


def test_decoding_threads_are_counted_by_what_each_does_beside_the_others() -> None:
    measured = whole()
    assert measured.decoding is not None
    one, all_of_them = measured.decoding.rates
    assert decoding_cpus(measured, one) == pytest.approx(28_000 / 400)
    assert decoding_cpus(measured, all_of_them) == pytest.approx(28_000 / 350)
    assert decoding_cpus(document(), one) is None


def test_the_quickest_cascade_is_no_twin() -> None:
    runs = (cascade(100.0), cascade(300.0, is_static=True), cascade(200.0, in_flight=64))
    assert quickest_cascade(document(cascades=runs)) == runs[2]


def test_a_stage_counts_by_its_quickest_backend_and_the_worst_stage_is_told() -> None:
    rows = (
        stage(256, 0.010, matrix=0.006),
        stage(256, 0.020, matrix=0.006, backend="eager"),
        stage(256, 0.010, matrix=0.003, memory=0.001, number=2),
        stage(1, 0.0004, matrix=1e-6),
        stage(1, 0.0030, matrix=1e-6, backend="eager"),
        stage(1, 0.0007, matrix=1e-6, number=2),
    )
    assert value(document(stages=rows), "of its roofline") == pytest.approx(40.0)
    assert value(document(stages=rows), "batch 1,") == pytest.approx(0.7)


def test_time_outside_of_stages_is_the_longest_of_any_load() -> None:
    runs = (
        cascade(100.0, inside=0.99),
        cascade(10.0, inside=0.9, in_flight=1),
        cascade(5.0, inside=0.1, in_flight=1, backend="eager"),
        cascade(90.0, is_static=True),
    )
    assert value(document(cascades=runs), "outside") == pytest.approx(10.0)


def test_the_saving_is_asked_for_where_batches_are_full_in_the_worst_architecture() -> None:
    runs = tuple(
        cascade(per_s, architecture=architecture, in_flight=in_flight, is_static=is_static)
        for architecture, in_flight, per_s, is_static in (
            ("a", 64, 1.0, False),
            ("a", 64, 1.0, True),
            ("a", 1024, 150.0, False),
            ("a", 1024, 100.0, True),
            ("b", 1024, 120.0, False),
            ("b", 1024, 100.0, True),
        )
    )
    assert value(document(cascades=runs), "FLOPs saved") == pytest.approx(1.2 / 1.5)


def test_what_was_not_measured_has_no_value() -> None:
    assert {goal.value for goal in goals("it", None)} == {None}
    assert {goal.value for goal in goals("it", document())} == {None}
    assert value(document(stages=(stage(64, 1.0, matrix=0.5),)), "of its roofline") is None
