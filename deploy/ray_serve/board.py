"""Where the replicas of one application meet when there is no Redis: an actor of Ray that holds one text.

An actor rather than Ray's own store of configuration, since any replica may change the budget, and what it changes it
must have read: compare and swap, in one place. It keeps nothing on a disk: when it is started anew, the replicas offer
what they have, and the highest revision wins. No Ray here: what is an actor there is a class.
"""

import asyncio


class Board:
    """The actor. `changes` counts writes, so that whoever asks what has happened since misses none."""

    def __init__(self) -> None:
        self._text: bytes | None = None
        self._changes = 0
        self._changed = asyncio.Condition()

    async def read(self) -> bytes | None:
        return self._text

    async def write(self, text: bytes, over: bytes | None) -> bool:
        """Replace `over`; False where something else stands there by now."""
        async with self._changed:
            if self._text != over:
                return False
            self._text = text
            self._changes += 1
            self._changed.notify_all()
        return True

    async def changes(self, seen: int, at_most_s: float) -> int:
        """How many there were; waits until they are not `seen`, at most so long."""
        try:
            async with asyncio.timeout(at_most_s), self._changed:
                await self._changed.wait_for(lambda: self._changes != seen)
        except TimeoutError:
            pass  # Nothing has happened, which is an answer too.
        return self._changes
