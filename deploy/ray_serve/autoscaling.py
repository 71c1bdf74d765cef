"""How many replicas a deployment should have: by how long what waits in them will take, not by how many wait.

Ray runs this file in its controller, pickled by value: it imports nothing of ours. Replicas report `work_s`, seconds
until what is inside each is done, and `busy`, the share of them that computes (0..1).
"""

from collections.abc import Mapping
from typing import Any

WORK, BUSY = "work_s", "busy"
# Beyond this share queues grow long by chance alone; and a deployment that just keeps up has no queue to be seen by.
_BUSY_AT_MOST = 0.8


def replicas_wanted(work_s: float, busy: float, queue_delay_s: float) -> float:
    """So many that all the work (seconds of one replica) is done within `queue_delay_s`, and that the load (in busy
    replicas) leaves them some air."""
    return max(work_s / queue_delay_s, busy / _BUSY_AT_MOST)


class ByQueueDelay:
    """A policy of Ray Serve. Its bounds, factors and delays are applied by Ray to what this says."""

    def __init__(self, queue_delay_s: float) -> None:
        self._queue_delay_s = queue_delay_s

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """`context` is Ray's `AutoscalingContext`: metrics by name and replica, averaged over its look-back."""
        metrics: Mapping[str, Mapping[object, float]] = context.aggregated_metrics or {}
        work, busy = metrics.get(WORK, {}), metrics.get(BUSY, {})
        if not work:
            # Nothing is known of new replicas: nothing is changed for them.
            return float(context.target_num_replicas), {}
        return replicas_wanted(sum(work.values()), sum(busy.values()), self._queue_delay_s), {}
