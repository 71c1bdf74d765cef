"""Bundles of random weights with a published geometry: what computation costs does not depend on what it was taught."""

from dataclasses import dataclass
from pathlib import Path

from models import strict_json
from models.architectures import build_config
from models.bundle import Bundle, read_bundle, write_bundle, write_file_atomically

CASCADE, STATIC, COSTS = "cascade", "static", "costs.json"
# As many classes as the published models have.
CLASSES = 1000


@dataclass(frozen=True)
class Costs:
    """GMACs of one image: cumulative, one an exit of the cascade, and of the static twin. By `models.flops`."""

    architecture: str
    exit_gmacs: tuple[float, ...]
    static_gmacs: float


@dataclass(frozen=True)
class Geometry:
    """A cascade, its static twin, and their costs."""

    cascade: Bundle
    static: Bundle
    costs: Costs


def write_geometry(out: Path, architecture: str, *, with_graphs: bool = True) -> Geometry:
    """Needs torch. `with_graphs`: for the `onnx` backend, whose export takes a minute.

    Raises `ValueError` for an unknown architecture, `BundleError` where `out` has bundles already."""
    import torch

    from models.dvt import DVT
    from models.export import export_graphs
    from models.flops import cumulative_gmacs

    labels = tuple(f"class {index}" for index in range(CLASSES))
    gmacs = []
    for folder, name in ((CASCADE, architecture), (STATIC, architecture.replace("dvt_", "static_", 1))):
        torch.manual_seed(0)
        model = DVT(build_config(name, labels)).eval()
        weights = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
        readme = f"Random weights with the geometry of {name}, to measure speed; its answers mean nothing.\n"
        write_bundle(
            out / folder, model.config, weights, readme=readme, onnx=export_graphs(model) if with_graphs else None
        )
        gmacs.append(tuple(cumulative_gmacs(model)))
    costs = Costs(architecture, gmacs[0], gmacs[1][-1])
    write_file_atomically(out / COSTS, strict_json.dumps(costs).encode())
    return read_geometry(out)


def read_geometry(folder: Path) -> Geometry:
    """Raises `ValueError` where it was not made by `write_geometry`."""
    try:
        text = (folder / COSTS).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{folder} has no {COSTS}: make it with `dvt bench geometry {folder}`") from error
    costs = strict_json.loads(Costs, text, str(folder / COSTS))
    return Geometry(read_bundle(folder / CASCADE), read_bundle(folder / STATIC), costs)
