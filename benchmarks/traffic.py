"""Shapes of offered load, in multiples of a capacity: steady, step, ramp, flash crowd, on and off."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """`load(t)` at second t, as a multiple of a capacity; never above `peak`."""

    name: str
    seconds: float
    peak: float
    load: Callable[[float], float]

    def arrivals(self, capacity_per_s: float, seed: int) -> Iterator[float]:
        """Times of a Poisson process of this intensity, by thinning one of the peak's. Same seed, same times."""
        numbers = random.Random(seed)
        now_s = 0.0
        while True:
            now_s += numbers.expovariate(self.peak * capacity_per_s)
            if now_s >= self.seconds:
                return
            if numbers.random() * self.peak < self.load(now_s):
                yield now_s


def steady(load: float, seconds: float) -> Traffic:
    return Traffic(f"steady at {load:g}", seconds, load, lambda _: load)


def step(seconds: float) -> Traffic:
    """Half of capacity; from the first quarter on one and a half times as much as it, for half of the time."""
    return Traffic("step", seconds, 1.5, lambda at: 1.5 if 0.25 <= at / seconds < 0.75 else 0.5)


def ramp(seconds: float) -> Traffic:
    """From a third up to one and a half times the capacity, and down again."""
    return Traffic("ramp", seconds, 1.5, lambda at: 0.3 + 1.2 * (1 - abs(2 * at / seconds - 1)))


def flash_crowd(seconds: float) -> Traffic:
    """Five times as many as before within a moment, for a tenth of the time."""
    return Traffic("flash crowd", seconds, 1.5, lambda at: 1.5 if 0.3 <= at / seconds < 0.4 else 0.3)


def on_off(seconds: float, period_s: float = 40.0) -> Traffic:
    """One and a half times the capacity and a fifth of it, in turn."""
    return Traffic("on and off", seconds, 1.5, lambda at: 1.5 if at % period_s < period_s / 2 else 0.2)


def shapes(seconds: float) -> tuple[Traffic, ...]:
    return (steady(1.5, seconds), step(seconds), ramp(seconds), flash_crowd(seconds), on_off(seconds))
