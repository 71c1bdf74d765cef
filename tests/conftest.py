"""What every test stands on: one compute thread, no settings from the developer's shell, examples without a clock."""

import os

import pytest
from hypothesis import settings

# Read when PyTorch and numpy are first imported: more threads would fight with the other test process over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A loaded machine is no failure. CI draws the same examples at every run: red always means the change under test.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def no_settings_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `DVT_*` variable that somebody exported must not change what a test sees."""
    for name in [name for name in os.environ if name.startswith("DVT_")]:
        monkeypatch.delenv(name)
