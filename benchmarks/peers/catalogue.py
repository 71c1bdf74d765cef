"""The servers that are compared: how each is started, and the settings that are tried for it on two cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.static_model import PeerSettings
from benchmarks.photos import ROOT
from benchmarks.processes import Running, ServerCommand, free_port, running
from benchmarks.servers import OwnServer

STATIC_BUNDLE = ROOT / "benchmarks" / "bundles" / "imagenette-hybrid-static"
OURS, OURS_STATIC = "dvt", "dvt, static twin"


@dataclass(frozen=True)
class Variant:
    """Processes that compute, threads of each, and processes (MOSEC) or threads a replica (Ray) that decode."""

    workers: int
    threads: int
    decoders: int = 0

    @property
    def title(self) -> str:
        decoders = f", {self.decoders} to decode" if self.decoders else ""
        return f"{self.workers} x {self.threads} thread{'s' if self.threads > 1 else ''}{decoders}"


@dataclass(frozen=True)
class Peer:
    """`requirements` is the file of its environment, `fixed` its settings in words (they stand in its module)."""

    name: str
    version: str
    module: str
    variants: tuple[Variant, ...]
    fixed: str
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def venv(self) -> Path:
        return ROOT / f".venv-{self.name}"

    @property
    def requirements(self) -> Path:
        return ROOT / "benchmarks" / "peers" / "requirements" / f"{self.name}.txt"

    @contextmanager
    def running(self, bundle: Path, variant: Variant, probe: bytes) -> Iterator[Running]:
        """The server, once it classifies the photo `probe`. Raises `ServerError`."""
        settings = PeerSettings(str(bundle), free_port(), variant.workers, variant.threads, variant.decoders)
        python = self.venv / "bin" / "python"
        arguments = tuple(argument.format(port=settings.port) for argument in self.arguments)
        environment = {
            **settings.to_environment(),
            **dict(self.environment),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        command = ServerCommand((str(python), "-m", self.module, *arguments), settings.port, environment, probe=probe)
        with running(command) as server:
            yield server


PEERS = (
    Peer(
        "litserve",
        "0.2.19",
        "benchmarks.peers.litserve_server",
        (Variant(1, 2), Variant(2, 1)),
        "max_batch_size 8, batch_timeout 5 ms, fast_queue, 1 API server, raw body, no access log",
    ),
    Peer(
        "mosec",
        "0.9.8",
        "benchmarks.peers.mosec_server",
        (Variant(1, 2), Variant(2, 1), Variant(1, 2, decoders=1), Variant(1, 2, decoders=2)),
        "max_batch_size 8, max_wait_time 5 ms, raw body",
        arguments=("--address", "127.0.0.1", "--port", "{port}", "--timeout", "60000", "--log-level", "warning"),
    ),
    Peer(
        "ray",
        "2.60.0",
        "benchmarks.peers.ray_server",
        (Variant(1, 2, decoders=2), Variant(2, 1, decoders=1)),
        "serve.batch of 8, batch_wait_timeout 5 ms, RAY_SERVE_THROUGHPUT_OPTIMIZED=1, max_ongoing_requests 1000, "
        "decoding and computing in threads, raw body, no access log, no dashboard",
        environment=(
            ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1"),
            ("RAY_USAGE_STATS_ENABLED", "0"),
            ("RAY_AUTH_MODE", "disabled"),
            ("RAY_raylet_start_wait_time_s", "100"),
        ),
    ),
)


def peer_named(name: str) -> Peer:
    return next(peer for peer in PEERS if peer.name == name)


def own_server(name: str, bundle: Path, static_bundle: Path, profile: str) -> OwnServer:
    """Ours with its defaults: the cascade under `profile`, or the same twin that the peers serve."""
    return OwnServer(bundle, profile) if name == OURS else OwnServer(static_bundle, "full")
