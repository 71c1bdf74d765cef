"""The board of an application of Ray as the place where its replicas meet."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from deploy.ray_serve.board import Board
from service.replicas import ChannelError

# An actor that is being started anew does not answer meanwhile.
_TIMEOUT_S = 5.0


class BoardChannel:
    """The board of the application `name`, made by the first replica that asks for it; it outlives them all."""

    name = "Ray (an actor of the application)"

    def __init__(self, application: str) -> None:
        # No processor of its own: it hardly ever has anything to do.
        actor: Any = ray.remote(Board)
        self._board = actor.options(
            name=f"dvt-budget:{application}",
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=0,
        ).remote()

    async def read(self) -> bytes | None:
        with _told():
            text: bytes | None = await asyncio.wait_for(self._board.read.remote(), _TIMEOUT_S)
            return text

    async def write(self, text: bytes, *, over: bytes | None) -> bool:
        with _told():
            return bool(await asyncio.wait_for(self._board.write.remote(text, over), _TIMEOUT_S))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        with _told():
            seen: int = await asyncio.wait_for(self._board.changes.remote(-1, 0), _TIMEOUT_S)

            async def wait(at_most_s: float) -> None:
                nonlocal seen
                with _told():
                    asked = self._board.changes.remote(seen, at_most_s)
                    seen = await asyncio.wait_for(asked, at_most_s + _TIMEOUT_S)

            yield wait

    async def close(self) -> None:
        """Of no effect: the actor is for the others too."""


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (RayError, TimeoutError) as error:
        raise ChannelError(f"{type(error).__name__}: {error}") from error
