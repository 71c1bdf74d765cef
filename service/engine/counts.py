"""What the engine tells of itself while it works: to the service's metrics, or, where nobody asks, to nobody."""

from typing import Literal, Protocol


class EngineCounts(Protocol):
    """Stages are numbered from 1. `service.metrics.Metrics` is one."""

    def batch(self, stage: int, images: int, seconds: float) -> None:
        """One was computed."""
        ...

    def image_at(self, stage: int, seconds: float) -> None:
        """An image was computed there, so long after it had come to it."""
        ...

    def batch_failed(self, stage: int) -> None: ...

    def dropped(self) -> None:
        """An image was let go of before a stage: nobody wants it any more."""
        ...

    def kept_evicted(self, what: Literal["state", "answer"], why: Literal["needed", "full", "old"]) -> None:
        """What was kept for whoever comes back made room."""
        ...
