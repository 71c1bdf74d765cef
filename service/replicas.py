"""One budget for all replicas, in Redis: whoever changes it tells the others, whoever was away catches up.

The revision decides: a replica follows a higher one and offers its own where Redis has a lower one or none, so nothing
ever goes back. Without Redis the last budget stays in force, and changing it is refused.
"""

import asyncio
import logging

from redis.asyncio import Redis
from redis.exceptions import RedisError, WatchError

from models import strict_json
from service.engine.budget import Budget, InForce
from service.engine.budget_file import Stored
from service.engine.catalogue import BudgetRequest
from service.errors import ReplicasUnreachableError

KEY = CHANNEL = "dvt:budget"

_TIMEOUT_S = 2.0
# Changes are told at once; this is for those that were told while nobody listened.
_LOOK_EVERY_S = 5.0
_RETRY_S = 1.0
# Another replica may change the budget at the same moment, and win.
_TRIES = 10


class Replicas:
    """This replica among those that share `url`. Raises `ValueError` for a URL that makes no sense."""

    def __init__(self, url: str, budget: Budget, log: logging.Logger) -> None:
        self._redis = Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
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
                try:
                    return await self._try_to_put(request, by, if_revision)
                except WatchError:
                    continue
        except (RedisError, OSError) as error:
            raise ReplicasUnreachableError(
                "the budget is shared through Redis (DVT_REDIS_URL), which does not answer; it stays as it is"
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
        await self._redis.aclose()

    async def _follow(self) -> None:
        """Keep this replica's budget at what all have, for ever."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    while True:
                        await self._catch_up()
                        self._note(connected=True)
                        await channel.get_message(ignore_subscribe_messages=True, timeout=_LOOK_EVERY_S)
            except (RedisError, OSError) as error:
                self._note(connected=False, why=f"{type(error).__name__}: {error}")
            await asyncio.sleep(_RETRY_S)

    async def _try_to_put(self, request: BudgetRequest, by: str, if_revision: int | None) -> InForce:
        async with self._redis.pipeline() as transaction:
            await transaction.watch(KEY)
            latest = _parse(await transaction.get(KEY))
            changed = self._budget.after(latest, request, by=by, if_revision=if_revision)
            if changed is not None:
                transaction.multi()  # type: ignore[no-untyped-call]  # redis's own
                transaction.set(KEY, strict_json.dumps(changed))
                transaction.publish(CHANNEL, changed.revision)
                await transaction.execute()
        await self._adopt(changed or latest)
        return self._budget.in_force

    async def _catch_up(self) -> None:
        own = self._budget.stored
        async with self._redis.pipeline() as transaction:
            await transaction.watch(KEY)
            try:
                latest = _parse(await transaction.get(KEY))
            except ReplicasUnreachableError as error:
                self._log.warning("shared budget is not followed", extra={"error": error.detail})
                return
            if latest is None or latest.revision < own.revision:
                transaction.multi()  # type: ignore[no-untyped-call]  # redis's own
                transaction.set(KEY, strict_json.dumps(own))
                transaction.publish(CHANNEL, own.revision)
                try:
                    await transaction.execute()
                except WatchError:
                    return  # Another was quicker, and has told us.
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
            self._log.warning("Redis does not answer, the last budget stays in force", extra={"error": why})


def _parse(payload: bytes | str | None) -> Stored | None:
    """Raises `ReplicasUnreachableError` for what this version cannot read, which it must not write over either."""
    if payload is None:
        return None
    try:
        text = payload.decode() if isinstance(payload, bytes) else payload
        return strict_json.loads(Stored, text, f"Redis key {KEY}")
    except (strict_json.SchemaError, UnicodeDecodeError) as error:
        raise ReplicasUnreachableError(f"the shared budget cannot be read by this version: {error}") from error
