"""Renders the chart by helm, and looks at what comes out."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "deploy" / "helm" / "dvt"
HELM = ROOT / "scripts" / "helm.sh"

Manifest = dict[str, Any]


class RefusedError(Exception):
    """What helm says of values that it does not render."""


def helm(*arguments: str) -> str:
    """What it prints. Raises `RefusedError`."""
    ran = subprocess.run(
        [str(HELM), *arguments], capture_output=True, text=True, env=os.environ | {"PYTHON": sys.executable}
    )
    if ran.returncode:
        raise RefusedError(ran.stderr)
    return ran.stdout


def render(values: dict[str, Any], folder: Path, *arguments: str, release: str = "photos") -> list[Manifest]:
    """All manifests of the chart with these values; `folder` for the file of them."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    text = helm("template", release, str(CHART), "--namespace", "vision", "--values", str(file), *arguments)
    return [document for document in yaml.safe_load_all(text) if document]


def only(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def environment(container: Manifest, secrets: Path) -> dict[str, str]:
    """The container's variables, with its mounted secrets in a folder of this machine."""
    variables = {}
    for entry in container["env"]:
        value = entry["value"]
        assert isinstance(value, str), f"{entry['name']} is no text: Kubernetes would refuse it"
        if value.startswith("/secrets/"):
            file = secrets / value.removeprefix("/secrets/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("secret-of-this-test\n")
            value = str(file)
        variables[entry["name"]] = value
    return variables
