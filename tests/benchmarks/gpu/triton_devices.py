"""Where a Triton kernel can run: on a CUDA device, and by Triton's interpreter on a CPU.

The CPU build of PyTorch comes without Triton, 200 MB of wheel and 700 MB when installed. To run these tests without a
GPU: `pip install --no-deps --target DIR triton==3.7.0`, then `TRITON_INTERPRET=1 PYTHONPATH=DIR python -m pytest ...`.
"""

import importlib.util
import os

import pytest

_interpreted = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="a Triton kernel runs on a CPU where Triton is installed, with TRITON_INTERPRET=1",
)
# The interpreter has no products in bfloat16.
PLACES = [
    *(
        pytest.param("cpu", precision, marks=_interpreted, id=f"cpu-{precision}")
        for precision in ("float32", "float16")
    ),
    *(
        pytest.param("cuda", precision, marks=pytest.mark.gpu, id=f"cuda-{precision}")
        for precision in ("float32", "float16", "bfloat16")
    ),
]
