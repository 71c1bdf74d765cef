"""Dashboards against Grafana's own types: each panel's options and fields are those that its kind has.

`@grafana/schema` and the TypeScript compiler come from npm, in the versions below, into a folder of the test's own.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.test_dashboards import NAMES, panels, read

pytestmark = pytest.mark.slow

# The schema of the Grafana that docker-compose.yml starts.
GRAFANA = "12.2.0"
TYPESCRIPT = "5.9.3"

KINDS = ("stat", "timeseries", "heatmap", "xychart", "table")

# TypeScript takes no string for an enum of strings; JSON has nothing else. An index signature takes any key, so where
# there is one it is taken away: a key that nobody reads is a mistake.
_PRELUDE = """
import type { Dashboard } from '@grafana/schema';
type Known<T> = { [K in keyof T as string extends K ? never : number extends K ? never : K]: T[K] };
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends Array<infer E> ? Array<Plain<E>> : T extends object ? { [K in keyof Known<T>]: Plain<T[K]> } : T;
"""


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("types")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    packages = (f"@grafana/schema@{GRAFANA}", f"typescript@{TYPESCRIPT}")
    installed = subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", *packages],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm has no registry to install from: {installed.stderr[-200:]}")
    return folder


def faults(types: Path, program: str) -> str:
    """What the compiler has to say."""
    (types / "dashboards.ts").write_text(_PRELUDE + program)
    options = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022")
    compiled = subprocess.run(
        [types / "node_modules" / ".bin" / "tsc", *options, "dashboards.ts"],
        cwd=types,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return compiled.stdout + compiled.stderr


def imports(types: Path) -> str:
    """The options and the fields of each kind of panel. A table's fields are of no interface of their own."""
    lines = []
    for kind in KINDS:
        (file,) = (types / "node_modules/@grafana/schema/dist/types/raw/composable" / kind).rglob("*.gen.d.ts")
        fields = "FieldConfig" if "interface FieldConfig " in file.read_text() else "Options"
        # Read as it lies there: the package does not export its types of panels under names that last.
        path = f"./{file.relative_to(types).as_posix().removesuffix('.d.ts')}.js"
        lines.append(f"import type {{ Options as {kind}_options, {fields} as {kind}_fields }} from '{path}';")
    return "\n".join(lines)


def program(types: Path) -> str:
    lines = [imports(types)]
    for name in NAMES:
        title = name.removesuffix(".json")
        dashboard = read(name)
        for variable in dashboard["templating"]["list"]:
            # Grafana's own export has it, its schema has not: what the query was when it was last run.
            variable.pop("definition", None)
        for annotation in dashboard["annotations"]["list"]:
            # What Prometheus's plugin reads of an annotation, beside what all have.
            for own in ("expr", "interval"):
                annotation["target"].pop(own)
            for own in ("titleFormat", "textFormat"):
                annotation.pop(own)
        lines.append(f"const {title}: Plain<Dashboard> = {json.dumps(dashboard)};")
        for panel in panels(name):
            kind, at = panel["type"], f"{title}_{panel['id']}"
            lines.append(f"const {at}_options: Plain<{kind}_options> = {json.dumps(panel['options'])};")
            fields = panel["fieldConfig"]["defaults"].get("custom", {})
            lines.append(f"const {at}_fields: Plain<Partial<{kind}_fields>> = {json.dumps(fields)};")
    return "\n".join(lines)


def test_every_panel_is_of_a_kind_that_is_looked_at() -> None:
    assert {panel["type"] for name in NAMES for panel in panels(name)} == set(KINDS)


def test_dashboards_and_panels_are_of_their_types(types: Path) -> None:
    assert faults(types, program(types)) == ""


def test_the_compiler_would_have_seen_a_mistake(types: Path) -> None:
    for wrong in ('"colorMode": "colourful"', '"colorMode": "value", "nonsense": 1'):
        found = faults(types, program(types).replace('"colorMode": "value"', wrong))
        assert "error TS" in found, wrong
