"""Which piece of the comparison comes next: a pure function of the pieces that are there.

Tuning first: each peer's settings, shortly. Then two rounds of capacity in alternating order, with each peer's best
settings. Last the tail of latency at half of the best peer's capacity, ours and that peer's, two rounds too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.machine import Environment
from benchmarks.measure import LoadResult
from benchmarks.peers.catalogue import OURS, OURS_STATIC, PEERS

Phase = Literal["tuning", "capacity", "tail"]
ROUNDS = (1, 2)
# Tuning only has to tell settings apart.
TUNING_SHARE = 0.5
# The tail needs requests: a hundredth of them decides.
TAIL_FACTOR = 2.0
LOAD_OF_TAIL = 0.5


@dataclass(frozen=True)
class Piece:
    """One server, one short run. `settings` are those of a peer's `Variant`, in words."""

    phase: Phase
    round: int
    server: str
    settings: str
    environment: Environment
    result: LoadResult


@dataclass(frozen=True)
class Next:
    """`variant` is an index into a peer's variants; `rate_per_s` is None for the closed loop."""

    phase: Phase
    round: int
    server: str
    variant: int = 0
    rate_per_s: float | None = None


def next_piece(done: Sequence[Piece]) -> Next | None:
    """None when all is measured."""
    made = {(piece.phase, piece.round, piece.server, piece.settings) for piece in done}
    for peer in PEERS:
        for index, variant in enumerate(peer.variants):
            if ("tuning", 1, peer.name, variant.title) not in made:
                return Next("tuning", 1, peer.name, index)
    servers = (OURS, OURS_STATIC, *(peer.name for peer in PEERS))
    for number in ROUNDS:
        for server in servers if number % 2 else reversed(servers):
            if not any(
                piece.phase == "capacity" and piece.round == number and piece.server == server for piece in done
            ):
                return Next("capacity", number, server, best_variant(done, server))
    best = best_peer(done)
    rate = LOAD_OF_TAIL * capacity(done, best)
    for number in ROUNDS:
        for server in (OURS, best) if number % 2 else (best, OURS):
            if not any(piece.phase == "tail" and piece.round == number and piece.server == server for piece in done):
                return Next("tail", number, server, best_variant(done, server), rate)
    return None


def best_variant(done: Sequence[Piece], server: str) -> int:
    """The settings with which a peer did most in the tuning phase; 0 for ours, which has nothing to tune."""
    peer = next((peer for peer in PEERS if peer.name == server), None)
    if peer is None:
        return 0
    tuned = {
        piece.settings: piece.result.throughput_per_s
        for piece in done
        if piece.phase == "tuning" and piece.server == server
    }
    return max(range(len(peer.variants)), key=lambda index: tuned[peer.variants[index].title])


def capacity(done: Sequence[Piece], server: str) -> float:
    """Requests/s of a server over all its rounds of the closed loop. Raises `ValueError` for none."""
    found = [piece.result for piece in done if piece.phase == "capacity" and piece.server == server]
    if not found:
        raise ValueError(f"the capacity of {server} is not measured yet")
    return sum(result.requests for result in found) / sum(result.seconds for result in found)


def best_peer(done: Sequence[Piece]) -> str:
    return max((peer.name for peer in PEERS), key=lambda name: capacity(done, name))
