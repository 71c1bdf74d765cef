"""What a plan is made from: seconds of a batch of each stage on one replica's device.

The file is any JSON object that has the three keys of `DeviceCosts`: the result of `dvt bench auto simulate`, or of
`dvt plan --json` itself, so that what was measured on one machine is planned with on another.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from models import strict_json
from service.backends.base import StageBackend
from service.engine.costs import StageCosts
from service.engine.warmup import batch_sizes, warm_up

_KEYS = ("batch_s", "lanes", "max_batch")


@dataclass(frozen=True)
class DeviceCosts:
    """`batch_s[k - 1]`: seconds of a batch of stage k, by its size; so many batches at once in `lanes`.

    Raises `ValueError` for what no device can have.
    """

    batch_s: tuple[dict[str, float], ...]
    lanes: int
    max_batch: int

    def __post_init__(self) -> None:
        if self.lanes < 1 or self.max_batch < 1:
            raise ValueError(f"lanes {self.lanes} and max_batch {self.max_batch} must be 1 or more")
        if not self.batch_s:
            raise ValueError("batch_s is empty, it must hold the seconds of at least one stage")
        for stage, seconds in enumerate(self.batch_s, start=1):
            wrong = [
                f"{size}: {each}"
                for size, each in seconds.items()
                if not (size.isascii() and size.isdigit() and int(size) >= 1 and each > 0)
            ]
            if wrong or not seconds:
                raise ValueError(
                    f"batch_s of stage {stage} holds {', '.join(wrong) or 'nothing'}; expected batch sizes of 1 "
                    "or more with seconds above 0"
                )

    @property
    def stages(self) -> int:
        return len(self.batch_s)

    def stage_costs(self, first: int, last: int) -> StageCosts:
        """Of stages `first` to `last`, as the engine keeps them; the first becomes number 1."""
        costs = StageCosts(last - first + 1, self.max_batch)
        for number, seconds in enumerate(self.batch_s[first - 1 : last], start=1):
            costs.seed(number, {int(size): each for size, each in seconds.items()})
        return costs

    def with_front(self, front_s: float) -> "DeviceCosts":
        """With so much more of each image in stage 1: decoding and HTTP, where they run on the stages' cores."""
        first = {size: each + int(size) * front_s for size, each in self.batch_s[0].items()}
        return DeviceCosts((first, *self.batch_s[1:]), self.lanes, self.max_batch)


def read_costs(path: Path) -> DeviceCosts:
    """Raises `ValueError` that names the file and what is wrong with it, and `OSError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or any(key not in document for key in _KEYS):
        raise ValueError(f"{path} holds no costs: it must be an object with {', '.join(_KEYS)}")
    return strict_json.decode(DeviceCosts, {key: document[key] for key in _KEYS}, str(path))


def measured_costs(backend: StageBackend, size_px: int, max_batch: int) -> DeviceCosts:
    """What this machine takes for each stage at each batch size, as the service's own warm-up measures it."""
    costs = StageCosts(backend.stages, max_batch)
    warm_up(backend, costs, size_px, clock=time.perf_counter, began=lambda _: True)
    sizes = batch_sizes(backend, max_batch)
    batch_s = tuple(
        {str(images): costs.seconds(stage, images) for images in sizes} for stage in range(1, backend.stages + 1)
    )
    return DeviceCosts(batch_s, backend.lanes, max_batch)
