"""Our own server as the benchmarks start it: `dvt serve` on a free port of the loopback address, with its defaults but
for the cache: the same photos are sent again and again, and what is measured is computing them.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.photos import ROOT
from benchmarks.processes import HOST, Running, ServerCommand, free_port, running

_SETTINGS = {"DVT_CACHE": "off"}


@dataclass(frozen=True)
class OwnServer:
    """`settings` are environment variables (`DVT_*`) that differ from the defaults."""

    bundle: Path
    profile: str = "balanced"
    settings: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Started with a state folder of its own, so that no earlier budget counts. Raises `ServerError`."""
        with TemporaryDirectory(prefix="dvt-bench-") as state:
            port = free_port()
            arguments = (
                *(sys.executable, str(ROOT / "dvt.py"), "serve", str(self.bundle)),
                *("--host", HOST, "--port", str(port), "--profile", self.profile),
                *("--state-dir", state, "--log-format", "json"),
            )
            with running(ServerCommand(arguments, port, {**_SETTINGS, **self.settings}, "/health/ready")) as server:
                yield server
