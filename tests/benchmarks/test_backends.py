"""Measurements of backends: what is counted as a different decision, and that each measurement runs to its end."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.decisions import Way, decide, measure_decisions
from benchmarks.photos import load_photos
from benchmarks.spinning import Load, measure_spinning
from benchmarks.state_copies import measure_copies
from models.bundle import Bundle
from models.profiles import PROFILE_NAMES, ExitProfile, OperatingPoint, Profiles
from service.backends.base import Capacity
from service.backends.onnx import OnnxBackend
from tests.service.tiny_bundles import write_tiny_bundle


def profiles(bundle: Bundle) -> Profiles:
    half = OperatingPoint((0.5, 0.5), 0.5, 0.5, (0.4, 0.3, 0.3))
    return Profiles(
        weights_sha256=bundle.weights_sha256,
        config_sha256=bundle.config_sha256,
        confidence="max_softmax",
        exits=tuple(ExitProfile(grid, gmacs, 0.5) for grid, gmacs in ((2, 0.1), (3, 0.3), (4, 1.0))),
        splits=(),
        frontier=(half,),
        named=dict.fromkeys(PROFILE_NAMES, half),
        static_gmacs=0.8,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    return replace(made, profiles=profiles(made))


def test_a_photo_leaves_at_the_first_exit_that_reaches_its_threshold_and_is_told_that_exits_label(
    bundle: Bundle,
) -> None:
    first = np.array([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.9, 0.1]])
    second = np.array([[0.1, 0.9], [0.2, 0.8], [0.4, 0.6], [0.4, 0.6]])
    last = np.array([[0.1, 0.9], [0.1, 0.9], [0.7, 0.3], [0.3, 0.7]])
    decided = decide(profiles(bundle), (first, second, last), (0.7, 0.7))
    assert decided.exits.tolist() == [1, 2, 3, 1]
    assert decided.labels.tolist() == [0, 1, 0, 0]
    assert decide(profiles(bundle), (first, second, last), (None, 0.7)).exits.tolist() == [2, 2, 3, 3]


def test_decisions_of_one_backend_are_compared_over_batch_sizes(bundle: Bundle) -> None:
    pixels = list(np.random.default_rng(0).integers(0, 256, (7, 3, 16, 16), dtype=np.uint8))
    backend = OnnxBackend(bundle, 1, Capacity(4, 1 << 20, 4))
    ways = [(Way("onnx", "float32", batch), backend) for batch in (1, 4)]
    document = measure_decisions(bundle, pixels, "noise", ways, lambda way: None)
    found = document.found[0]
    assert [one.profile for one in document.found] == list(PROFILE_NAMES)
    assert (document.images, found.way.batch, found.profile) == (7, 4, PROFILE_NAMES[0])
    assert found.exits_differ == found.labels_differ == 0
    assert found.confidence < 1e-4
    with pytest.raises(ValueError, match="dvt profile"):
        measure_decisions(replace(bundle, profiles=None), pixels, "noise", ways, lambda way: None)


def test_copies_are_a_share_of_every_stage(bundle: Bundle) -> None:
    document = measure_copies(bundle, batch=2, threads=1, rounds=3)
    assert [stage.stage for stage in document.stages] == [1, 2, 3]
    assert all(stage.copies_ms > 0 and stage.share > 0 for stage in document.stages)
    image, one, two = 3 * 16 * 16, 4 * (5 * 16 + 4 * 25), 4 * (10 * 16 + 4 * 100)
    assert [stage.bytes_an_image for stage in document.stages] == [image + one, image + one + two, image + two]


def test_both_ways_to_wait_are_run_in_every_round_in_alternating_order(bundle: Bundle) -> None:
    load = Load("balanced", threads=1, decode_threads=1, batch=2, in_flight=4, seconds=0.1)
    document = measure_spinning(bundle, load_photos(None, 2, 0), load, rounds=2)
    assert [(run.round, run.spinning) for run in document.runs] == [(1, False), (1, True), (2, True), (2, False)]
    assert all(run.images_per_s > 0 for run in document.runs)
    with pytest.raises(ValueError, match="no profile 'fastest'"):
        measure_spinning(bundle, load_photos(None, 2, 0), replace(load, profile="fastest"), rounds=1)
