"""Random bytes, fetched many at a time: each is given out once, and draws are spread as the system's are."""

import itertools
from concurrent.futures import ThreadPoolExecutor

from service.randomness import Randomness


def counting_bytes() -> Randomness:
    """0, 1, 2 and so on, of two bytes each: whatever is given out tells which it was."""
    numbers = itertools.count()
    return Randomness(lambda size: b"".join(next(numbers).to_bytes(2) for _ in range(size // 2)))


def test_nothing_is_given_out_twice_by_however_many_threads() -> None:
    randomness = counting_bytes()
    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda _: randomness.name(8), range(4000)))
    assert len(names) == len(set(names)) == 4000
    assert {len(name) for name in names} == {16}


def test_the_system_is_asked_once_for_many_names() -> None:
    asked: list[int] = []

    def fetch(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    randomness = Randomness(fetch)
    randomness.name(16)
    for _ in range(2 * asked[0] // 16):
        randomness.name(16)
    assert len(asked) == 3


def test_a_chance_is_from_0_to_below_1_and_evenly_spread() -> None:
    assert Randomness(bytes).chance() == 0.0
    assert 0.999_999 < Randomness(lambda size: b"\xff" * size).chance() < 1.0
    randomness = Randomness()
    below = sum(randomness.chance() < 0.25 for _ in range(10_000))
    assert 2_200 < below < 2_800
