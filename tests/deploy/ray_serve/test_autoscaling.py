"""How many replicas a deployment is given, by what waits in them and how busy they are."""

from types import SimpleNamespace

import pytest

from deploy.ray_serve.autoscaling import BUSY, WORK, ByQueueDelay, replicas_wanted


@pytest.mark.parametrize(
    ("work_s", "busy", "wanted"),
    [
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 4.0),  # A second of work is done by four within a quarter.
        (0.1, 1.6, 2.0),  # Hardly anything waits, but two that are busy need some air.
    ],
)
def test_there_are_enough_for_what_waits_and_for_the_load(work_s: float, busy: float, wanted: float) -> None:
    assert replicas_wanted(work_s, busy, 0.25) == pytest.approx(wanted)


def test_the_policy_adds_up_what_all_replicas_report() -> None:
    metrics = {WORK: {"a": 0.5, "b": 1.0}, BUSY: {"a": 1.0, "b": 1.0}}
    context = SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=2)
    assert ByQueueDelay(queue_delay_s=0.5)(context) == (3.0, {})


@pytest.mark.parametrize("metrics", [None, {}, {WORK: {}}])
def test_nothing_is_changed_while_nothing_is_known(metrics: object) -> None:
    context = SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=3)
    assert ByQueueDelay(queue_delay_s=0.5)(context) == (3.0, {})
