"""Parts that went through the compiler compute what they do as they are written."""

import pytest
import torch

from models.compiling import compile_parts
from models.dvt import DVT, State
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
