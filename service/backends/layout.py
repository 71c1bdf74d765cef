"""What a slot has to hold, computed from the configuration before anything is allocated. No torch, no runtime.

Shapes: S input side in px; n = g * g tokens of a stage's grid; D width; C = L * H relation maps.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from models.config import DVTConfig


@dataclass(frozen=True)
class Part:
    """A tensor that a stage hands on: its name, its shape for one image, where it begins in the slot's flat region."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class StateLayout:
    """`image` is (3, S, S), uint8. `taken[k - 1]` is what stage k takes from the one before; nothing for stage 1.

    Parts of one hand-over lie one after the other from the start of the region, which the next hand-over overwrites.
    """

    image: tuple[int, int, int]
    taken: tuple[tuple[Part, ...], ...]

    @property
    def stages(self) -> int:
        return len(self.taken)

    def handed_on(self, stage: int) -> tuple[Part, ...]:
        """What stage `stage` (from 1) writes for the next; nothing after the last."""
        return self.taken[stage] if stage < self.stages else ()

    @property
    def width(self) -> int:
        """Elements of the widest hand-over."""
        return max(map(_width, self.taken))

    def slot_bytes(self, element_bytes: int) -> int:
        """An image's peak: its pixels, and the old and the new state at its costliest hand-over."""
        costliest = max((old + new for old, new in pairwise(map(_width, self.taken))), default=0)
        return math.prod(self.image) + element_bytes * costliest


def state_layout(config: DVTConfig) -> StateLayout:
    """Features (n + 1, D) and relations (C, n + 1, n + 1) of the stage before, as far as they are reused."""
    backbone, size_px = config.backbone, config.input.size_px
    taken: list[tuple[Part, ...]] = [()]
    for upstream in config.stages[:-1]:
        tokens = upstream.grid**2 + 1
        parts: list[Part] = []
        if config.reuse.features:
            parts.append(Part("features", (tokens, backbone.dim), 0))
        if config.reuse.relations:
            start = parts[-1].end if parts else 0
            parts.append(Part("relations", (backbone.relation_maps, tokens, tokens), start))
        taken.append(tuple(parts))
    return StateLayout((3, size_px, size_px), tuple(taken))


def _width(parts: tuple[Part, ...]) -> int:
    return sum(part.size for part in parts)
