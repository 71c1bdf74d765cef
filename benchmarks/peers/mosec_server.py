"""MOSEC (https://mosecorg.github.io/mosec): HTTP and batching in Rust, Python worker processes behind Unix sockets.

Its documentation advises a stage of its own for decoding on the CPU; without decoders one stage does both.
"""

import json
import os
from typing import Any

import mosec

from benchmarks.peers.static_model import PeerSettings, StaticModel
from models.preprocess import Pixels


class Decode(mosec.Worker):  # type: ignore[misc] # MOSEC is not installed where types are checked.
    """First stage: bytes to pixels."""

    def __init__(self) -> None:
        super().__init__()
        settings = PeerSettings.from_environment()
        self.model = StaticModel(settings.bundle, 1)

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Pixels:
        return self.model.decode(data)


class Compute(mosec.Worker):  # type: ignore[misc] # As above.
    """Second stage: a batch of pixels to answers."""

    def __init__(self) -> None:
        super().__init__()
        settings = PeerSettings.from_environment()
        self.model = StaticModel(settings.bundle, settings.threads)

    def serialize(self, data: dict[str, Any]) -> bytes:
        # MOSEC's own indents.
        return json.dumps(data).encode()

    def forward(self, data: list[Pixels]) -> list[dict[str, Any]]:
        return self.model.classify(data)


class DecodeAndCompute(Compute):
    """Both in one: no pixels between processes."""

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[dict[str, Any]]:  # type: ignore[override] # Another stage's input.
        return self.model.classify([self.model.decode(each) for each in data])


def main() -> None:
    """The port, and that access is not logged, are MOSEC's own arguments of the command line."""
    settings = PeerSettings.from_environment()
    server = mosec.Server()
    batching = {"max_batch_size": settings.batch, "max_wait_time": settings.wait_ms, "route": "/classify"}
    if settings.decoders:
        server.append_worker(Decode, num=settings.decoders, route="/classify", env=_environments(settings.decoders))
        server.append_worker(Compute, num=settings.workers, env=_environments(settings.workers), **batching)
    else:
        server.append_worker(DecodeAndCompute, num=settings.workers, env=_environments(settings.workers), **batching)
    server.run()


def _environments(processes: int) -> list[dict[str, str]]:
    """One for each process of a stage."""
    return [{name: value for name, value in os.environ.items() if name.startswith("PEER_")}] * processes


if __name__ == "__main__":
    main()
