"""`make gpu-test` on a machine that has PyTorch, the formats of bundles and pytest, but nothing that serving takes."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ABSENT = ("fastapi", "httpx", "hypothesis", "matplotlib", "prometheus_client", "pydantic", "pymoo", "rich", "uvicorn")
# A name that stands for None among the modules can neither be imported nor found.
COLLECT = (
    f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); import pytest; "
    "sys.exit(pytest.main(['-q', '-m', 'gpu', '--collect-only', *sys.argv[1:]]))"
)


def test_they_are_found_there() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    named = makefile.partition("GPU_TESTS :=")[2].partition("\n\n")[0].replace("\\", " ").split()
    files = [word for word in named if word.endswith(".py")]
    assert len(files) >= 5
    command = [sys.executable, "-c", COLLECT, *files]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    found = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    for file in files:
        assert file in found.stdout
