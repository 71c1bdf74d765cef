"""Ways to run a cascade: every image goes through just the stages that its way promises."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.command_engine import ENGINE, SHRINKING, STATIC, WHOLE, verdict
from benchmarks.engine import (
    Ran,
    StageUse,
    Watched,
    Work,
    run_engine,
    run_shrinking_batches,
    run_whole_batches,
    scripted,
)
from benchmarks.floor import Batches, Direct, Rounded, crowded, open_directly
from benchmarks.machine import Environment
from benchmarks.photos import SAMPLES
from benchmarks.results import EngineDocument, EngineRun
from models.bundle import Bundle, write_profiles
from models.profiles import ExitProfile, OperatingPoint, Profiles
from service.backends.base import Slot, StageBackend, StageOutput
from service.main import Opened
from tests.service.tiny_bundles import tiny_config, write_tiny_bundle

EXITS = (1, 1, 3, 1, 2, 1, 1, 1, 3, 1, 1, 2, 1)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", tiny_config(3))
    early, never = (OperatingPoint(thresholds, 0.9, 0.1, None) for thresholds in ((0.0, 0.0), (None, None)))
    named = {**dict.fromkeys(("fast", "balanced", "accurate"), early), "full": never}
    exits = tuple(ExitProfile(grid, 0.1 * grid, 0.9) for grid in (2, 3, 4))
    profiles = Profiles(bundle.weights_sha256, bundle.config_sha256, "max_softmax", exits, (), (), named)
    write_profiles(bundle, profiles)
    return open_directly(bundle.path)


@pytest.fixture
def backend(opened: Opened) -> StageBackend:
    return opened.backend


@pytest.fixture
def bundle(opened: Opened) -> Bundle:
    return opened.bundle


@pytest.fixture
def work() -> Work:
    return Work(EXITS, scripted((1.0,), 1, 0, 16).pixels)


def images(ran: Ran) -> list[int]:
    return [use.images for use in ran.stages.values()]


def batches(ran: Ran) -> list[int]:
    return [use.batches for use in ran.stages.values()]


def test_a_whole_batch_runs_until_its_last_image_leaves(backend: StageBackend, work: Work) -> None:
    ran = run_whole_batches(backend, work, 4)  # (1,1,3,1) (2,1,1,1) (3,1,1,2) (1)
    assert images(ran) == [13, 12, 8]
    assert batches(ran) == [4, 3, 2]
    assert backend.slots_in_use == 0


def test_a_shrinking_batch_computes_only_who_stays_and_is_never_merged(backend: StageBackend, work: Work) -> None:
    ran = run_shrinking_batches(backend, work, 4)
    assert images(ran) == [13, 4, 2]
    assert batches(ran) == [4, 3, 2]
    assert backend.slots_in_use == 0


def test_the_engine_computes_only_who_stays_in_fuller_batches(
    bundle: Bundle, backend: StageBackend, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, inner = 0.0, backend.run

    def run(stage: int, slots: Sequence[Slot], lane: int = 0) -> StageOutput:
        nonlocal now_s
        now_s += 0.001
        return inner(stage, slots, lane)

    # By the real clock these tiny stages take no longer than a hiccup, which would make small batches right.
    monkeypatch.setattr(backend, "run", run)
    monkeypatch.setattr(backend, "lanes", 1)  # Two would share what waits, by who comes first.
    ran = run_engine(bundle, backend, work, batch=4, in_flight=13, clock=lambda: now_s)
    assert (ran.images, images(ran)) == (13, [13, 4, 2])
    assert batches(ran) == [4, 1, 1]
    assert backend.slots_in_use == 0


class Slow:
    """A backend of two lanes, each of which ends only once both are inside."""

    name, stages, lanes, slots, slot_bytes, buckets, slots_in_use = "slow", 1, 2, 2, 1, (1,), 0

    def __init__(self, lanes_inside: int) -> None:
        self._both = threading.Barrier(lanes_inside)

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> StageOutput:
        self._both.wait(10)
        time.sleep(0.01)
        raise RuntimeError("no output")

    def begin(self, pixels: object) -> Slot:
        return Slot(0)

    def release(self, slot: Slot) -> None: ...


def run_to_its_error(watched: Watched) -> None:
    with pytest.raises(RuntimeError, match="no output"):
        watched.run(1, [Slot(0)])


def test_time_in_which_two_lanes_are_inside_counts_once() -> None:
    watched = Watched(Slow(lanes_inside=2))
    with ThreadPoolExecutor(2) as lanes:
        list(lanes.map(run_to_its_error, [watched, watched]))
    # Both slept at the same time, so each has more than what is theirs alone.
    assert 0.01 <= watched.inside_s <= watched.use()["1"].seconds - 0.005
    watched.forget()
    assert watched.inside_s == 0


def test_time_of_one_lane_after_another_adds_up() -> None:
    watched = Watched(Slow(lanes_inside=1))
    for _ in range(2):
        run_to_its_error(watched)
    assert watched.inside_s == pytest.approx(watched.use()["1"].seconds)


def test_without_prometheus_the_engine_tells_nobody(
    bundle: Bundle, backend: StageBackend, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "service.metrics", None)
    ran = run_engine(bundle, backend, work, batch=4, in_flight=13)
    assert images(ran) == [13, 4, 2]
    assert ran.inside_seconds is not None
    assert 0 < ran.inside_seconds < ran.seconds


def test_exits_are_scripted_in_just_these_shares() -> None:
    work = scripted((0.6, 0.25, 0.15), 240, seed=3, size_px=8)
    assert Counter(work.exits) == {1: 144, 2: 60, 3: 36}
    assert list(work.exits) != sorted(work.exits)
    assert work.exits == scripted((0.6, 0.25, 0.15), 240, seed=3, size_px=8).exits


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.2, -0.2)])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be of 1"):
        scripted(shares, 10, 0, 8)


def test_the_verdict_is_over_all_rounds_and_weighs_the_flops() -> None:
    speeds = {ENGINE: 60.0, WHOLE: 20.0, SHRINKING: 40.0, STATIC: 30.0}
    runs = tuple(
        EngineRun(way, number, Ran(100, 100 / (speed * factor), {"1": StageUse(1.0, 1, 100)}))
        for way, speed in speeds.items()
        for number, factor in ((1, 1.0), (2, 1.0))
    )
    environment = Environment("", "", 2, "", "", {})
    document = EngineDocument(environment, "a", (0.5, 1.5, 3.5), 1.8, (0.6, 0.25, 0.15), 8, 64, 2, runs)
    found = verdict(document)
    assert (found.over_whole, found.over_shrinking, found.over_static) == pytest.approx((3.0, 1.5, 2.0))
    assert found.flop_saving == pytest.approx(1.8 / 1.2)
    assert found.share_of_saving == pytest.approx(2.0 / 1.5)


@pytest.mark.parametrize(("profile", "exit_number"), [("balanced", 1), ("full", 3)])
def test_a_photo_done_directly_leaves_by_its_profile(opened: Opened, profile: str, exit_number: int) -> None:
    direct = Direct(opened, profile)
    assert direct.classify((SAMPLES / "church.jpg").read_bytes()) == exit_number
    assert opened.backend.slots_in_use == 0


def test_the_floor_computes_as_many_images_as_the_server_did(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: Counter[int] = Counter()
    inner = opened.backend.run

    def run(stage: int, slots: list[int]) -> object:
        assert len(slots) <= 3
        ran[stage] += len(slots)
        return inner(stage, slots)  # type: ignore[arg-type] # Slots are opaque.

    monkeypatch.setattr(opened.backend, "run", run)
    direct = Direct(opened, "full")
    photos = [(SAMPLES / "church.jpg").read_bytes()]
    floor = crowded(opened, direct, photos, 40, Batches((2.5, 2.0, 1.0), (1.0, 0.5, 0.25)))
    assert (floor.images, dict(ran)) == (40, {1: 40, 2: 20, 3: 10})
    assert opened.backend.slots_in_use == 0


@given(mean=st.floats(0, 8), count=st.integers(1, 300))
def test_whole_numbers_keep_their_mean(mean: float, count: int) -> None:
    numbers = Rounded(mean)
    total = sum(numbers.next() for _ in range(count))
    assert abs(total - mean * count) <= 1 + 1e-6
