"""What kernels are measured on: the sizes that published cascades have, each once, the most telling first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, Literal

import torch

from benchmarks.gpu import pointwise, relation_network, relations
from benchmarks.gpu.document import GpuDocument
from benchmarks.gpu.ways import Case, measure
from models.architectures import build_config
from models.config import DVTConfig
from service.backends.base import Precision

Field = Literal["relations", "relation_networks", "pointwise"]


@dataclass(frozen=True)
class KernelCase:
    """A case, and the field of the document that it goes to."""

    field: Field
    case: Case[Any]

    @property
    def note(self) -> str:
        return f"{self.field.replace('_', ' ')}: {self.case.name}, batch {self.case.images}"

    def is_in(self, document: GpuDocument) -> bool:
        rows = getattr(document, self.field)
        key = (self.case.name, self.case.images, self.case.precision)
        return key in [(row.case, row.images, row.precision) for row in rows]

    def add_to(self, document: GpuDocument, device: torch.device) -> GpuDocument:
        measured = measure(self.case, document.ceilings, device)
        with_these: dict[str, Any] = {self.field: (*getattr(document, self.field), *measured)}
        return replace(document, **with_these)


def kernel_cases(
    architectures: Sequence[str], batches: Sequence[int], precision: Precision, device: torch.device
) -> Iterator[KernelCase]:
    """The largest batch of every architecture first. Raises `ValueError` for an unknown architecture."""
    configs = [build_config(architecture, ("a", "b")) for architecture in architectures]
    seen: set[tuple[object, ...]] = set()
    for images, config in product(sorted(set(batches), reverse=True), configs):
        for each in _of(config, images, images == max(batches), precision, device):
            key = (each.field, each.case.name, images)
            if key not in seen:
                seen.add(key)
                yield each


def _of(
    config: DVTConfig, images: int, is_largest: bool, precision: Precision, device: torch.device
) -> Iterator[KernelCase]:
    backbone, grids = config.backbone, [stage.grid for stage in config.stages]
    handing = list(pairwise(grids)) if config.reuse.relations else []
    for number, (upstream, grid) in enumerate(handing, start=2):
        last = number == len(grids)
        # A stage in the middle both ways: the difference is what handing on costs.
        for hands_on in (False,) if last else (True, False):
            geometry = relations.Geometry(upstream, grid, backbone.heads, backbone.head_dim, hands_on)
            yield KernelCase("relations", relations.case(geometry, images, device, precision))
    for upstream, _ in handing:
        network = relation_network.Geometry(upstream, backbone.relation_maps, config.reuse.relation_expansion)
        yield KernelCase("relation_networks", relation_network.case(network, images, device, precision))
    for number, grid in enumerate(grids, start=1):
        taken = backbone.dim + (config.reuse.feature_dim if config.reuse.features and number > 1 else 0)
        mlp = pointwise.Geometry(grid**2 + 1, taken, backbone.mlp_ratio * backbone.dim, backbone.dim, backbone.norm_eps)
        # Where Inductor chooses products too it takes long: once a size.
        yield KernelCase("pointwise", pointwise.case(mlp, images, device, precision, tuned=is_largest))
