"""Both clients behind the calls of one, so that every test is of both."""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Self, cast

from dvt_client import AsyncClient, Client


class Waiting:
    """An `AsyncClient` on an event loop in a thread, called like a `Client`."""

    def __init__(self, *arguments: Any, sleep: Callable[[float], None] | None = None, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        if sleep is not None:

            async def pause(seconds: float) -> None:
                sleep(seconds)

            options["sleep"] = pause
        try:
            self._client = self._run(self._made(*arguments, **options))
        except BaseException:
            self._stop()
            raise

    async def _made(self, *arguments: Any, **options: Any) -> AsyncClient:
        return AsyncClient(*arguments, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._client.aclose())
        self._stop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            answer = method(*arguments, **options)
            return self._stepped(cast(Any, answer)) if inspect.isasyncgen(answer) else self._run(answer)

        return call

    def _stepped(self, events: AsyncGenerator[Any, None]) -> Generator[Any, None, None]:
        try:
            while True:
                yield self._run(anext(events))
        except StopAsyncIteration:
            return
        finally:
            self._run(events.aclose())

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(self._awaited(coroutine), self._loop).result(60)

    async def _awaited(self, awaitable: Any) -> Any:
        return await awaitable

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


Make = Callable[..., Client]
KINDS: dict[str, Make] = {"sync": Client, "async": cast(Make, Waiting)}
