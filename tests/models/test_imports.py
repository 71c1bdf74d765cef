"""What serving on a CPU needs of models does not bring torch with it, and importing does nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WITHOUT_TORCH = (
    "models",
    "models.architectures",
    "models.bundle",
    "models.cli",
    "models.config",
    "models.graphs",
    "models.policy",
    "models.preprocess",
    "models.profiles",
    "models.strict_json",
)


def python(program: str) -> str:
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout


def test_the_torch_free_modules_leave_torch_out() -> None:
    imports = "; ".join(f"import {name}" for name in WITHOUT_TORCH)
    loaded = python(f"import sys; {imports}; print(*sys.modules)").split()
    assert set(WITHOUT_TORCH) <= set(loaded)
    assert not {"torch", "onnx", "matplotlib", "training", "service"} & set(loaded)


def test_the_network_is_there_for_who_asks() -> None:
    assert python("import models; print(models.DVT.__name__, models.load_bundle.__module__)").split() == [
        "DVT",
        "models.dvt",
    ]


def test_what_is_not_there_is_an_attribute_error() -> None:
    import models

    with pytest.raises(AttributeError, match="no attribute 'ViT'"):
        models.ViT  # noqa: B018  # looked up for its error
