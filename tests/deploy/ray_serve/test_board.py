"""Where replicas meet without Redis: one text, compared before it is swapped, and a word to who waits."""

import asyncio

from deploy.ray_serve.board import Board


def test_of_two_that_read_the_same_one_writes() -> None:
    async def run() -> None:
        board = Board()
        assert await board.read() is None
        written = await asyncio.gather(board.write(b"one", None), board.write(b"two", None))
        assert list(written) == [True, False]
        assert await board.read() == b"one"
        assert await board.write(b"two", b"one")
        assert not await board.write(b"three", None)
        assert await board.read() == b"two"

    asyncio.run(run())


def test_who_waits_is_told_at_once_and_who_was_late_too() -> None:
    async def run() -> None:
        board = Board()
        seen = await board.changes(-1, 0)
        waiting = asyncio.create_task(board.changes(seen, 600))
        await asyncio.sleep(0)
        assert not waiting.done()
        await board.write(b"one", None)
        assert await asyncio.wait_for(waiting, 10) == seen + 1
        assert await board.changes(seen, 600) == seen + 1

    asyncio.run(run())


def test_when_nothing_happens_a_wait_ends_all_the_same() -> None:
    async def run() -> None:
        board = Board()
        assert await board.changes(0, 0.01) == 0

    asyncio.run(run())
