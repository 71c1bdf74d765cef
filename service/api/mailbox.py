"""Carries news from any thread to one reader in the event loop."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Made in the event loop that reads it. What is posted arrives in order; many letters wake the reader once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._letters: deque[T] = deque()
        self._is_called = False

    def post(self, letter: T) -> None:
        """From any thread, never waits. Of no effect once the loop has ended, and with it everybody who could read."""
        self._letters.append(letter)
        # The reader lowers the flag before it empties the box: whoever finds it raised has put his letter in before.
        if not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._arrived.set)

    async def take(self) -> list[T]:
        """All that has come, once something has; sometimes nothing, where that was taken before."""
        await self._arrived.wait()
        self._arrived.clear()
        self._is_called = False
        taken = []
        while self._letters:
            taken.append(self._letters.popleft())
        return taken
