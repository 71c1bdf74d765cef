"""Redis as the place where replicas meet: the text under one key, and a message to all whenever it changes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError, WatchError

from service.replicas import ChannelError

KEY = CHANNEL = "dvt:budget"

_TIMEOUT_S = 2.0


class RedisChannel:
    """Of the Redis at `url`. Raises `ValueError` for a URL that makes no sense."""

    name = "Redis (DVT_REDIS_URL)"

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)

    async def read(self) -> bytes | None:
        with _told():
            return _as_bytes(await self._redis.get(KEY))

    async def write(self, text: bytes, *, over: bytes | None) -> bool:
        with _told():
            async with self._redis.pipeline() as transaction:
                await transaction.watch(KEY)
                if _as_bytes(await transaction.get(KEY)) != over:
                    return False
                transaction.multi()  # type: ignore[no-untyped-call]  # redis's own
                transaction.set(KEY, text)
                transaction.publish(CHANNEL, "changed")
                try:
                    await transaction.execute()
                except WatchError:
                    return False
                return True

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        with _told():
            async with self._redis.pubsub() as channel:
                await channel.subscribe(CHANNEL)

                async def wait(at_most_s: float) -> None:
                    with _told():
                        await channel.get_message(ignore_subscribe_messages=True, timeout=at_most_s)

                yield wait

    async def close(self) -> None:
        await self._redis.aclose()


@contextmanager
def _told() -> Iterator[None]:
    """Whatever the client or the network raises, as `ChannelError`."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise ChannelError(f"{type(error).__name__}: {error}") from error


def _as_bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
