"""One budget for all replicas, where they meet: whoever changes it tells the others, whoever was away catches up.

The revision decides: a replica follows a higher one and offers its own where there is a lower one or none, so nothing
ever goes back. While the place where they meet is out of reach, the last budget stays in force and changing it is
refused.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from models import strict_json
from service.engine.budget import Budget, InForce
from service.engine.budget_file import Stored
from service.engine.catalogue import BudgetRequest
from service.errors import ReplicasUnreachableError

# Changes are told at once; this is for those that were told while nobody listened.
_LOOK_EVERY_S = 5.0
_RETRY_S = 1.0
# Another replica may change the budget at the same moment, and win.
_TRIES = 10


class ChannelError(Exception):
    """The place where replicas meet does not answer; the message says why."""


class BudgetChannel(Protocol):
    """Where replicas meet: it holds one text for all of them. All of it raises `ChannelError`."""

    @property
    def name(self) -> str:
        """What a user reads of it, with the setting that chose it."""
        ...

    async def read(self) -> bytes | None:
        """The text; None where nobody has written one."""
        ...

    async def write(self, text: bytes, *, over: bytes | None) -> bool:
        """Replace the text that was read, and tell who listens. False where it is another one by now."""
        ...

    def listening(self) -> AbstractAsyncContextManager[Callable[[float], Awaitable[None]]]:
        """Gives what waits for a change since the last wait (or since listening began), at most so many seconds."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


class Replicas:
    """This replica among those that meet at `channel`."""

    def __init__(self, channel: BudgetChannel, budget: Budget, log: logging.Logger) -> None:
        self._channel = channel
        self._budget = budget
        self._log = log
        self._is_connected: bool | None = None
        self._following: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether it follows the budget of all just now."""
        return self._is_connected is True

    async def put(self, request: BudgetRequest, *, by: str, if_revision: int | None = None) -> InForce:
        """As `Budget.put`, for all replicas. Raises `ReplicasUnreachableError` too."""
        try:
            for _ in range(_TRIES):
                if await self._try_to_put(request, by, if_revision):
                    return self._budget.in_force
        except ChannelError as error:
            raise ReplicasUnreachableError(
                f"the budget is shared through {self._channel.name}, which does not answer; it stays as it is"
            ) from error
        raise ReplicasUnreachableError("other replicas change the budget all the time; try again")

    def start(self) -> None:
        """Follow from now on, in the running event loop."""
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Follow no more, and hang up."""
        while self._following is not None and not self._following.done():
            # Again, if need be: a timeout of the client that comes at the same moment swallows it.
            self._following.cancel()
            await asyncio.wait([self._following], timeout=_RETRY_S / 10)
        await self._channel.close()

    async def _follow(self) -> None:
        """Keep this replica's budget at what all have, for ever."""
        while True:
            try:
                async with self._channel.listening() as wait:
                    while True:
                        await self._catch_up()
                        self._note(connected=True)
                        await wait(_LOOK_EVERY_S)
            except ChannelError as error:
                self._note(connected=False, why=str(error))
            await asyncio.sleep(_RETRY_S)

    async def _try_to_put(self, request: BudgetRequest, by: str, if_revision: int | None) -> bool:
        """Says whether it was done; False where another replica was quicker."""
        text = await self._channel.read()
        latest = _parse(text, self._channel.name)
        changed = self._budget.after(latest, request, by=by, if_revision=if_revision)
        if changed is not None and not await self._channel.write(_text(changed), over=text):
            return False
        await self._adopt(changed or latest)
        return True

    async def _catch_up(self) -> None:
        text = await self._channel.read()
        try:
            latest = _parse(text, self._channel.name)
        except ReplicasUnreachableError as error:
            self._log.warning("shared budget is not followed", extra={"error": error.detail})
            return
        own = self._budget.stored
        if latest is None or latest.revision < own.revision:
            await self._channel.write(_text(own), over=text)  # Where another was quicker, it has told us.
        else:
            await self._adopt(latest)

    async def _adopt(self, stored: Stored | None) -> None:
        if stored is not None and await asyncio.to_thread(self._budget.adopt, stored):
            self._log.info("budget of all replicas followed", extra={"revision": stored.revision})

    def _note(self, *, connected: bool, why: str = "") -> None:
        if connected == self._is_connected:
            return
        self._is_connected = connected
        if connected:
            self._log.info("the replicas' budget is followed")
        else:
            self._log.warning(
                "replicas do not meet, the last budget stays in force",
                extra={"through": self._channel.name, "error": why},
            )


def _text(stored: Stored) -> bytes:
    return strict_json.dumps(stored).encode()


def _parse(text: bytes | None, channel: str) -> Stored | None:
    """Raises `ReplicasUnreachableError` for what this version cannot read, which it must not write over either."""
    if text is None:
        return None
    try:
        return strict_json.loads(Stored, text.decode(), f"the budget shared through {channel}")
    except (strict_json.SchemaError, UnicodeDecodeError) as error:
        raise ReplicasUnreachableError(f"the shared budget cannot be read by this version: {error}") from error
