"""The comparison with other servers goes on where it stopped, in alternating order, with each peer's best settings."""

from dataclasses import replace

import pytest

from benchmarks.machine import Environment
from benchmarks.measure import LoadResult
from benchmarks.peers.catalogue import OURS, OURS_STATIC, PEERS, peer_named
from benchmarks.peers.plan import Next, Piece, best_peer, best_variant, capacity, next_piece
from benchmarks.result_files import read_results, write_results
from benchmarks.results import PeersDocument

ENVIRONMENT = Environment("2000-01-01 00:00", "a CPU", 2, "Linux", "3.11", {})
SPEED = {OURS: 100.0, OURS_STATIC: 50.0, "litserve": 30.0, "mosec": 40.0, "ray": 20.0}


def result(throughput_per_s: float) -> LoadResult:
    return LoadResult(
        seconds=10.0,
        requests=round(10 * throughput_per_s),
        throughput_per_s=throughput_per_s,
        latency=None,
        by_exit={},
        exit_shares={},
        mean_gmacs=None,
        errors={},
        generator_cpu_ms=0.1,
        server_cpu_ms=10.0,
        server_rss_bytes=1,
    )


def measured(coming: Next) -> Piece:
    """The piece as a machine would measure it on which the second settings of each peer are the best."""
    peer = next((peer for peer in PEERS if peer.name == coming.server), None)
    settings = "defaults" if peer is None else peer.variants[coming.variant].title
    speed = SPEED[coming.server] + (5.0 if coming.variant == 1 else 0.0)
    return Piece(coming.phase, coming.round, coming.server, settings, ENVIRONMENT, result(speed))


def whole_comparison() -> tuple[list[Next], list[Piece]]:
    plans: list[Next] = []
    pieces: list[Piece] = []
    while (coming := next_piece(pieces)) is not None:
        assert len(plans) < 100, "it never ends"
        plans.append(coming)
        pieces.append(measured(coming))
    return plans, pieces


def test_every_setting_is_tried_first() -> None:
    plans, _ = whole_comparison()
    tuning = [(plan.server, plan.variant) for plan in plans if plan.phase == "tuning"]
    assert tuning == [(peer.name, index) for peer in PEERS for index in range(len(peer.variants))]
    assert [plan.phase for plan in plans[: len(tuning)]] == ["tuning"] * len(tuning)


def test_two_rounds_of_all_servers_in_alternating_order_with_the_best_settings() -> None:
    plans, _ = whole_comparison()
    rounds = [(plan.round, plan.server, plan.variant) for plan in plans if plan.phase == "capacity"]
    servers = [OURS, OURS_STATIC, *(peer.name for peer in PEERS)]
    assert [server for _, server, _ in rounds] == servers + servers[::-1]
    assert [number for number, _, _ in rounds] == [1] * len(servers) + [2] * len(servers)
    assert {variant for _, server, variant in rounds if server not in (OURS, OURS_STATIC)} == {1}


def test_the_tail_is_measured_at_half_of_the_best_peers_capacity() -> None:
    plans, pieces = whole_comparison()
    assert best_peer(pieces) == "mosec"
    tail = [(plan.round, plan.server, plan.rate_per_s) for plan in plans if plan.phase == "tail"]
    assert tail == [(1, OURS, 22.5), (1, "mosec", 22.5), (2, "mosec", 22.5), (2, OURS, 22.5)]


def test_each_server_has_its_own_best_settings() -> None:
    _, pieces = whole_comparison()
    assert best_variant(pieces, OURS) == 0
    title = peer_named("ray").variants[1].title
    slower = [
        replace(piece, result=result(1.0)) if (piece.server, piece.settings) == ("ray", title) else piece
        for piece in pieces
    ]
    assert best_variant(slower, "ray") == 0
    assert best_variant(slower, "mosec") == 1


def test_capacity_is_over_all_rounds() -> None:
    pieces = [
        Piece("capacity", number, OURS, "defaults", ENVIRONMENT, result(speed))
        for number, speed in ((1, 10.0), (2, 30.0))
    ]
    assert capacity(pieces, OURS) == 20.0
    with pytest.raises(ValueError, match="not measured yet"):
        capacity(pieces, "mosec")


def test_pieces_survive_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    _, pieces = whole_comparison()
    path = tmp_path_factory.mktemp("results") / "deeper" / "peers.json"
    assert read_results(PeersDocument, path) is None
    document = PeersDocument("photos", "ours", "balanced", 0.93, "static", 0.94, tuple(pieces))
    write_results(document, path)
    assert read_results(PeersDocument, path) == document
