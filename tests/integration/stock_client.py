"""The Open Inference Protocol's own client, sync or asyncio, behind one way to call it. Both are used as installed."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.http as sync_client
import tritonclient.http.aio as async_client
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stock:
    """`call("infer", ...)` has the client do that, and waits for it."""

    call: Callable[..., Any]


@contextmanager
def blocking(port: int) -> Iterator[Stock]:
    """tritonclient.http."""
    with sync_client.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield Stock(lambda name, *args, **options: getattr(client, name)(*args, **options))


@contextmanager
def awaiting(port: int) -> Iterator[Stock]:
    """tritonclient.http.aio, in an event loop of its own."""
    with asyncio.Runner() as runner:

        async def opened() -> async_client.InferenceServerClient:
            return async_client.InferenceServerClient(f"127.0.0.1:{port}")

        client = runner.run(opened())

        def call(name: str, *args: Any, **options: Any) -> Any:
            async def wait() -> Any:
                return await getattr(client, name)(*args, **options)

            return runner.run(wait())

        yield Stock(call)
        runner.run(client.close())
    gc.collect()  # What the client has not closed is reported here, and not in somebody else's test.


CLIENTS = {"sync": blocking, "asyncio": awaiting}


def files(*images: bytes, is_binary: bool = True) -> list[sync_client.InferInput]:
    """The input `image`; without binary data it takes base64."""
    tensor = sync_client.InferInput("image", [len(images), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[image] for image in images], object), binary_data=is_binary)
    return [tensor]


def pixels(array: NDArray[Any], *, is_binary: bool = True) -> list[sync_client.InferInput]:
    """The input `pixels` (n, 3, S, S), UINT8 or FP32 as the array is."""
    tensor = sync_client.InferInput("pixels", list(array.shape), "UINT8" if array.dtype == np.uint8 else "FP32")
    tensor.set_data_from_numpy(array, binary_data=is_binary)
    return [tensor]
