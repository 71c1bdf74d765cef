"""The repository as a whole: names that resolve here, pins and dependencies that agree, nothing of one machine."""

import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A file that holds one of these works, or reads, on one machine only.
OF_ONE_MACHINE = re.compile(
    rb"pythonhosted\.|download\.pytorch\.|(?:extra-)?index-url[ =]|find-links[ =]|file:///|/opt/wheels"
    rb"|(?<![\w.~])/(?:root|work|mnt|tmp|home/\w+|Users/\w+)/\w"
)


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: no list of the repository's own files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in requirements}


def project() -> dict[str, set[str]]:
    """Names of the packages that pyproject.toml asks for: of each extra, and as "" of every installation."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = table["optional-dependencies"]
    return {"": names_of(table["dependencies"])} | {extra: names_of(listed) for extra, listed in extras.items()}


def pinned(name: str) -> set[str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return names_of([line for line in lines if line and not line.lstrip().startswith("#")])


def exact(name: str) -> set[str]:
    return set(re.findall(r"^[a-z0-9-]+==.*$", (ROOT / "requirements" / name).read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("package", ["models", "service", "training", "dvt", "clients/python/dvt_client"])
def test_flat_names_resolve_to_this_repository(package: str) -> None:
    found = importlib.import_module(package.rpartition("/")[2]).__file__
    assert found is not None
    assert Path(found) in {ROOT / package / "__init__.py", ROOT / f"{package}.py"}


def test_the_client_alone_asks_for_httpx_and_nothing_else() -> None:
    project_of_its_own = tomllib.loads((ROOT / "clients" / "python" / "pyproject.toml").read_text())["project"]
    assert names_of(project_of_its_own["dependencies"]) == {"httpx"}
    assert names_of(project_of_its_own["dependencies"]) <= project()["client"]


def test_no_file_tells_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked_files()
        if path != Path(__file__)
        for match in OF_ONE_MACHINE.finditer(path.read_bytes())
    ]
    assert not found, "\n".join(found)


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in tracked_files()
        if page.suffix == ".md"
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if not re.match(r"https?:|#|mailto:", link) and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert not broken, "\n".join(broken)


def test_every_dependency_has_its_reason_and_every_reason_its_dependency() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    explained = re.findall(r"^\| `([^`]+)` \| \S", page, flags=re.MULTILINE)
    assert len(explained) == len(set(explained))
    assert set(explained) == set().union(*project().values())


def test_serving_installs_neither_torch_nor_two_runtimes() -> None:
    asked = project()
    assert asked["cpu"] == {"onnxruntime"}
    assert "onnxruntime-gpu" in asked["gpu"]
    assert pinned("serve.txt") >= asked[""] | asked["cpu"]
    assert pinned("serve.txt").isdisjoint({"torch", "onnx", "onnxruntime-gpu"})


def test_the_development_pins_hold_every_extra_but_the_gpu_runtime_and_ray() -> None:
    asked = project()
    everything = set().union(*(names for extra, names in asked.items() if extra not in ("gpu", "ray")))
    assert pinned("dev.txt") >= everything | pinned("serve.txt")
    assert "onnxruntime-gpu" not in pinned("dev.txt")
    assert not [name for name in pinned("dev.txt") if name == "triton" or name.startswith(("nvidia-", "cuda-"))]


def test_ray_brings_much_and_changes_nothing_of_what_serves() -> None:
    """It has an environment of its own: uvicorn takes another event loop where Ray's extras are installed."""
    assert pinned("ray.txt") >= pinned("serve.txt") | project()["ray"]
    assert exact("serve.txt") <= exact("ray.txt")
    assert pinned("ray.txt").isdisjoint({"torch", "onnx", "onnxruntime-gpu"})
    assert pinned("dev.txt").isdisjoint({"ray", "uvloop"})


@pytest.mark.parametrize("name", ["serve.txt", "serve-gpu.txt", "dev.txt", "ray.txt"])
def test_pins_are_exact(name: str) -> None:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    loose = [line for line in lines if line and not re.match(r"\s*#|[a-z0-9-]+==[\w.]+( ;.*)?$", line)]
    assert not loose


def test_a_gpu_is_served_by_the_same_with_the_other_runtime_and_torch() -> None:
    asked = project()
    assert pinned("serve-gpu.txt") >= asked[""] | asked["gpu"] | asked["replicas"] | {"torch"}
    assert "onnxruntime" not in pinned("serve-gpu.txt")
    assert not [name for name in pinned("serve-gpu.txt") if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_what_is_tested_is_what_is_served() -> None:
    assert exact("serve.txt") <= exact("dev.txt")
    assert {pin for pin in exact("serve.txt") if not pin.startswith("onnxruntime")} <= exact("serve-gpu.txt")
    assert "torch==2.13.0" in exact("dev.txt")
