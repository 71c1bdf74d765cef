"""What every test stands on: one compute thread, no settings from the developer's shell, examples without a clock."""

import logging
import os
from collections.abc import Iterator

import pytest

# Read when PyTorch and numpy are first imported: more threads would fight with the other test process over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    from hypothesis import settings
except ModuleNotFoundError:  # On a machine with a GPU, whose tests need none.
    pass
else:
    # A loaded machine is no failure. CI draws the same examples at every run: red always means the change under test.
    settings.register_profile("here", deadline=None)
    settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
    settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """For tests that configure the service's log: it is put back."""
    loggers = [logging.getLogger(name) for name in ("dvt", "uvicorn", "asyncio", "opentelemetry")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_settings_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `DVT_*` variable that somebody exported must not change what a test sees."""
    for name in [name for name in os.environ if name.startswith("DVT_")]:
        monkeypatch.delenv(name)
