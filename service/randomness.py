"""Random bytes of the system's, for names that nobody may guess and for draws that nobody may foresee."""

import os
import threading
from collections.abc import Callable

# Each call to the system lets go of the interpreter's lock, for which the event loop then stands in line with all
# threads that decode: dearer by far than the bytes are.
_FETCHED_BYTES = 4096
# What a float has room for.
_CHANCE_BITS = 53


class Randomness:
    """Fetched so many bytes at a time, each given out once. Thread-safe. Made by the process that uses it: two that
    shared what one of them had fetched would make the same names."""

    def __init__(self, fetch: Callable[[int], bytes] = os.urandom) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._bytes = b""
        self._given = 0

    def take(self, size_bytes: int) -> bytes:
        """So many, at most 4096."""
        assert size_bytes <= _FETCHED_BYTES
        with self._lock:
            start, end = self._given, self._given + size_bytes
            if end > len(self._bytes):
                self._bytes = self._fetch(_FETCHED_BYTES)
                start, end = 0, size_bytes
            self._given = end
            return self._bytes[start:end]

    def name(self, size_bytes: int) -> str:
        """So many bytes, in hexadecimal."""
        return self.take(size_bytes).hex()

    def chance(self) -> float:
        """Uniform in [0, 1)."""
        return (int.from_bytes(self.take(7)) >> (7 * 8 - _CHANCE_BITS)) * 2.0**-_CHANCE_BITS
