"""What `serve run ... name=value`, or `args` in a configuration file, may say of a deployment's size.

What is served, and by which rules, stands in the service's own settings (`DVT_*`), which every replica reads where it
runs. No Ray here.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_SCALE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


@dataclass(frozen=True)
class Scale:
    """Between `least` and `most` replicas; the same number twice is fixed."""

    least: int
    most: int

    @property
    def is_fixed(self) -> bool:
        return self.least == self.most


def parse_scale(text: object) -> Scale:
    """`2` is two replicas, `1-8` as many of them as the load asks for. Raises `ValueError`."""
    if isinstance(text, Scale):
        return text
    match = _SCALE.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{str(text)[:32]!r} is no number of replicas: write 2, or 1-8 to scale between")
    least, most = int(match[1]), int(match[2] or match[1])
    if not 1 <= least <= most:
        raise ValueError(f"{match[0]!r} replicas: the first number must be 1 at least, and no more than the second")
    return Scale(least, most)


def parse_scales(text: object) -> tuple[Scale, ...]:
    """One scale a stage, with commas between; a single one is for all. Raises `ValueError`."""
    parts = text if isinstance(text, list | tuple) else str(text).split(",")
    return tuple(parse_scale(part) for part in parts)


ScaleField = Annotated[Scale, BeforeValidator(parse_scale)]
ScalesField = Annotated[tuple[Scale, ...], BeforeValidator(parse_scales)]


class Options(BaseModel):
    """Of both ways to deploy. `queue_delay_s`: replicas are added until what waits is done within so long.

    `metrics_port`: where the first replica with an HTTP API on a node shows its own metrics, without a key; the next
    one does on the next port. 0: nowhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue_delay_s: Annotated[float, Field(gt=0, le=3600)] = 0.25
    cpus: Annotated[float, Field(gt=0, le=1024)] = 1.0
    drain_s: Annotated[float, Field(gt=0, le=3600)] = 20.0
    metrics_port: Annotated[int, Field(ge=0, le=65000)] = 0


class ReplicasOptions(Options):
    """Of replicas of the whole service, each with so many CPUs and GPUs."""

    replicas: ScaleField = Scale(1, 4)
    gpus: Annotated[float, Field(ge=0, le=64)] = 0.0


class StagesOptions(Options):
    """Of one deployment a stage. `cpus` is for a replica of a stage, `ingress_cpus` for one of the HTTP API.

    `lanes`: batches that an ingress has under way at once; 0: twice as many as there may be replicas of stages.
    """

    stages: ScalesField = (Scale(1, 4),)
    ingress: ScaleField = Scale(1, 1)
    ingress_cpus: Annotated[float, Field(gt=0, le=1024)] = 1.0
    lanes: Annotated[int, Field(ge=0, le=256)] = 0

    def scales(self, stages: int) -> tuple[Scale, ...]:
        """One a stage. Raises `ValueError` for another number of them than the bundle has stages."""
        if len(self.stages) == 1:
            return self.stages * stages
        if len(self.stages) != stages:
            raise ValueError(f"stages has {len(self.stages)} numbers of replicas, the bundle has {stages} stages")
        return self.stages
