"""The network's parts through `torch.compile`."""

import torch._dynamo

from models.conv_tokenizer import ConvTokens
from models.dvt import DVT
from models.layers import Block
from models.reuse import RelationReuse
from models.tokens_to_token import TokensToToken

COMPILER = "inductor"

# What is compiled of one kind of module is kept together: an entry for each shape and device, where PyTorch allows for
# eight. Beyond the limit modules are computed as they are written, with no more than a warning.
_RECOMPILE_LIMIT = 256


def compile_parts(model: DVT, compiler: str = COMPILER, *, any_batch: bool, convolutions: bool = False) -> None:
    """Have layers and tokenisers compiled when they are first used: once a shape, or once for any batch.

    `compiler` is a backend of `torch.compile`. Layers of one shape share what is made of them, which takes seconds;
    the whole network as one takes minutes. `convolutions`: tokenisers of those too, whose normalisation, which folds
    into them when they serve, is in training as much traffic as they are themselves.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILE_LIMIT)
    kinds = (Block, RelationReuse, TokensToToken, *([ConvTokens] if convolutions else []))
    for module in model.modules():
        if isinstance(module, kinds):
            module.compile(backend=compiler, dynamic=any_batch)


def make_room() -> None:
    """For what this thread will compile: since PyTorch 2.12 each has the compiler's settings to itself."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILE_LIMIT)
