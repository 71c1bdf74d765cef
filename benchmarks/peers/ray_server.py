"""Ray Serve (https://docs.ray.io/en/latest/serve): an HTTP proxy and replicas as actors, batching in each replica.

As its page on performance advises: `RAY_SERVE_THROUGHPUT_OPTIMIZED=1`, asynchronous handlers with whatever blocks in
threads, `max_ongoing_requests` above its default, no access log. Batches are formed by `serve.batch`.
"""

import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request

from benchmarks.peers.static_model import PeerSettings, StaticModel
from models.preprocess import Pixels

MAX_ONGOING = 1000
_OBJECT_STORE_BYTES = 100 * 1024 * 1024


class Static:
    """One replica. Decoding and computing each have their threads, so that the event loop is never held up."""

    def __init__(self, settings: PeerSettings) -> None:
        self.model = StaticModel(settings.bundle, settings.threads)
        self.decoders = ThreadPoolExecutor(max(1, settings.decoders))
        self.computer = ThreadPoolExecutor(1)
        self.classify_batch.set_max_batch_size(settings.batch)
        self.classify_batch.set_batch_wait_timeout_s(settings.wait_ms / 1000)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005)  # type: ignore[untyped-decorator] # Ray has no types here.
    async def classify_batch(self, pixels: list[Pixels]) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.computer, self.model.classify, pixels)

    async def __call__(self, request: Request) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(self.decoders, self.model.decode, await request.body())
        answer: dict[str, Any] = await self.classify_batch(pixels)
        return answer


def main() -> None:
    settings = PeerSettings.from_environment()
    ray.init(
        num_cpus=max(2, settings.workers),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        configure_logging=True,
        logging_level="warning",
    )
    logging = LoggingConfig(enable_access_log=False, log_level="WARNING")
    serve.start(http_options={"host": "127.0.0.1", "port": settings.port}, logging_config=logging)
    deployment = serve.deployment(
        num_replicas=settings.workers,
        max_ongoing_requests=MAX_ONGOING,
        ray_actor_options={"num_cpus": 1},
        logging_config=logging,
    )(Static)
    serve.run(deployment.bind(settings), name="classify", route_prefix="/classify")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
