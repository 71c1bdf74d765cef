"""Parts that went through the compiler compute what they do as they are written."""

import threading

import pytest
import torch
import torch._dynamo

from models.compiling import compile_parts, make_room
from models.config import StageConfig
from models.dvt import DVT, State
from tests.models.small_cascades import CONV_STAGES, T2T_STAGES, small_config
from tests.service.tiny_bundles import tiny_config


# Dynamo looks at it by itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_parts_compiled_one_by_one_compute_what_the_network_does() -> None:
    torch.manual_seed(0)
    model = DVT(tiny_config())
    images = torch.randn(2, 3, 16, 16)
    expected = [logits.detach() for logits in model(images)]
    compile_parts(model, "aot_eager", any_batch=False)
    for ours, theirs in zip(model(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_compiled_for_any_batch_they_are_compiled_again_for_none() -> None:
    torch.manual_seed(0)
    model = DVT(tiny_config()).eval()
    written = DVT(tiny_config()).eval()
    written.load_state_dict(model.state_dict())
    compile_parts(model, "aot_eager", any_batch=True)
    state: State | None = None
    with torch.inference_mode():
        # One image is a case of its own to the compiler; what comes after two is as many as it likes.
        for count in (1, 2, 3, 5):
            images = torch.randn(count, 3, 16, 16)
            state = None
            reference: State | None = None
            with torch.compiler.set_stance("fail_on_recompile" if count > 2 else "default"):
                for stage in range(model.config.exits):
                    ours = model.forward_stage(stage, images, state)
                    theirs = written.forward_stage(stage, images, reference)
                    torch.testing.assert_close(ours.logits, theirs.logits)
                    state, reference = ours.state, theirs.state


# Dynamo looks at it by itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("stages", [T2T_STAGES, CONV_STAGES], ids=["t2t", "conv"])
def test_in_training_their_gradients_are_those_of_the_network_too(stages: tuple[StageConfig, ...]) -> None:
    """And so is what normalisation has seen of the batch."""
    networks = []
    images = torch.randn(2, 3, 32, 32)
    for compiled in (False, True):
        torch.manual_seed(0)
        network = DVT(small_config(stages)).train()
        if compiled:
            compile_parts(network, "aot_eager", any_batch=False, convolutions=True)
        torch.stack([logits.square().mean() for logits in network(images)]).sum().backward()  # type: ignore[no-untyped-call]
        networks.append(network)
    plain, parts = networks
    for (name, ours), theirs in zip(parts.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    for mine, other in zip(parts.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, other)


def test_every_thread_that_compiles_has_room_for_many_shapes() -> None:
    limits = []

    def compiling() -> None:
        make_room()
        limits.append(torch._dynamo.config.recompile_limit)

    thread = threading.Thread(target=compiling)
    thread.start()
    thread.join()
    assert limits == [256]
