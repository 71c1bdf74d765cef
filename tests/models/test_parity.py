"""The published DVT: checkpoints converted entry by entry compute what the published code computes, at its cost."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.architectures import ARCHITECTURES, build_config
from models.convert import convert, published_name
from models.dvt import DVT, Stage, State, load_bundle
from models.flops import cumulative_gmacs
from tests.models.published_weights import (
    GOLDEN,
    published_entries,
    published_images,
    published_state_dict,
)

CHECKPOINTS = {
    "DVT_T2t_vit_12": "dvt_t2t_vit_12",
    "DVT_T2t_vit_14": "dvt_t2t_vit_14",
    "DVT_Deit_small": "dvt_deit_small",
}

# Cumulative GMACs of the published code, one 224x224 image, 1000 classes, and its parameters in millions.
PUBLISHED_COST = {
    "DVT_T2t_vit_12": ((0.4677, 1.4461, 3.4550), 22.46),
    "DVT_T2t_vit_14": ((1.2006, 3.8181, 9.2642), 67.88),
    "DVT_Deit_small": ((1.1429, 3.6431, 8.8006), 70.44),
}


@dataclass(frozen=True)
class Ran:
    """A converted checkpoint on two images. `features` and `relations` are those of every stage, the last included."""

    golden: dict[str, NDArray[np.float32]]
    logits: list[Tensor]
    states: list[State | None]
    features: list[Tensor]
    relations: list[Tensor]


@pytest.fixture(scope="module", params=["DVT_T2t_vit_12", "DVT_Deit_small"])
def ran(request: pytest.FixtureRequest) -> Iterator[Ran]:
    name = request.param
    with tempfile.TemporaryDirectory() as folder:  # half a gigabyte: not left behind as pytest's own folders are
        checkpoint = Path(folder) / "published.pth.tar"
        torch.save({"model_state_dict": published_state_dict(published_entries(name))}, checkpoint)
        convert(checkpoint, Path(folder) / "bundle", CHECKPOINTS[name])
        model = load_bundle(Path(folder) / "bundle")
    with np.load(GOLDEN / f"{name}.seed0.npz") as golden:
        yield run(model, dict(golden))


def run(model: DVT, golden: dict[str, NDArray[np.float32]]) -> Ran:
    result = Ran(golden, [], [], [], [])
    images = published_images(2)
    state: State | None = None
    for k, stage in enumerate(model.stages):
        assert isinstance(stage, Stage)
        of_blocks: list[tuple[Tensor, Tensor]] = []
        for block in stage.blocks:
            block.register_forward_hook(lambda _module, _inputs, output, seen=of_blocks: seen.append(output))
        with torch.inference_mode():
            output = model.forward_stage(k, images, state)
        state = output.state
        result.logits.append(output.logits)
        result.states.append(state)
        result.features.append(of_blocks[-1][0])
        result.relations.append(torch.cat([logits for _, logits in of_blocks], dim=1))
    return result


def close(found: Tensor, golden: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found.numpy(), golden, rtol=0, atol=1e-4)


def test_every_exit_has_the_logits_of_the_published_code(ran: Ran) -> None:
    assert len(ran.logits) == 3
    for number, logits in enumerate(ran.logits, start=1):
        close(logits, ran.golden[f"logits_{number}"])


def test_every_stage_has_the_features_and_relations_of_the_published_code(ran: Ran) -> None:
    for number, (features, relations) in enumerate(zip(ran.features, ran.relations, strict=True), start=1):
        close(features[0, :3], ran.golden[f"features_{number}_image0_first_tokens"])
        close(relations[0, 0, 1], ran.golden[f"relations_{number}_image0_layer0_head0_row1"])
        close(relations[0, -1, 0], ran.golden[f"relations_{number}_image0_last_layer_last_head_row0"])


def test_what_is_handed_on_are_those_features_and_relations(ran: Ran) -> None:
    for state, features, relations in zip(ran.states[:-1], ran.features, ran.relations, strict=False):
        assert state is not None and state.features is not None and state.relations is not None
        torch.testing.assert_close(state.features, features, rtol=0, atol=0)
        torch.testing.assert_close(state.relations, relations, rtol=0, atol=0)
    assert ran.states[-1] is None


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_published_entry_has_its_place_in_the_cascade(name: str) -> None:
    config = build_config(CHECKPOINTS[name], tuple(f"class {index}" for index in range(1000)))
    with torch.device("meta"):
        entries = DVT(config).state_dict()
    ours = {published_name(entry, config): tuple(tensor.shape) for entry, tensor in entries.items()}
    assert ours == published_entries(name)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_cost_is_that_of_the_published_code(name: str) -> None:
    gmacs, parameters_millions = PUBLISHED_COST[name]
    model = without_weights(CHECKPOINTS[name])
    assert cumulative_gmacs(model) == pytest.approx(gmacs, rel=0.03)
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    assert count / 1e6 == pytest.approx(parameters_millions, abs=0.005)


def test_leaving_later_costs_more_and_the_static_twin_less_than_the_whole_cascade() -> None:
    cascade = cumulative_gmacs(without_weights("dvt_t2t_vit_7"))
    (static,) = cumulative_gmacs(without_weights("static_t2t_vit_7"))
    assert sorted(set(cascade)) == cascade
    assert cascade[0] < static < cascade[-1]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_registered_architecture_can_be_built(name: str) -> None:
    config = build_config(name, ("cat", "dog"))
    with torch.device("meta"):
        model = DVT(config)
    assert len(model.stages) == config.exits
    assert (config.exits == 1) == name.startswith("static_")


def without_weights(architecture: str) -> DVT:
    """A cascade of zeros: drawing a hundred million values would take longer than counting products."""
    with torch.device("meta"):
        model = DVT(build_config(architecture, tuple(f"class {index}" for index in range(1000))))
    model = model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().zero_()
    return model
