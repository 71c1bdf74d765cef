"""LitServe (https://lightning.ai/docs/litserve): batching in the worker processes, one API server, ZeroMQ between them.

Its documentation advises as many workers as cores on a CPU, and `fast_queue` for more than a hundred requests a second.
"""

from typing import Annotated, Any

import litserve
from fastapi import Body

from benchmarks.peers.static_model import PeerSettings, StaticModel
from models.preprocess import Pixels

# The body as it comes: cheaper than the form and the JSON that the documentation shows.
RawBody = Annotated[bytes, Body(media_type="application/octet-stream")]


class StaticAPI(litserve.LitAPI):  # type: ignore[misc] # LitServe is not installed where types are checked.
    """Decodes, computes and answers in a worker process."""

    def setup(self, device: str) -> None:
        settings = PeerSettings.from_environment()
        self.model = StaticModel(settings.bundle, settings.threads)

    def decode_request(self, request: RawBody) -> Pixels:
        return self.model.decode(request)

    def batch(self, inputs: list[Pixels]) -> list[Pixels]:
        return inputs

    def predict(self, inputs: list[Pixels]) -> list[dict[str, Any]]:
        return self.model.classify(inputs)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


def main() -> None:
    settings = PeerSettings.from_environment()
    api = StaticAPI(max_batch_size=settings.batch, batch_timeout=settings.wait_ms / 1000, api_path="/classify")
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=settings.workers, fast_queue=True, timeout=60
    )
    server.run(
        host="127.0.0.1",
        port=settings.port,
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
