"""What every backend does alike, measured against the model itself in float32."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.bundle import Bundle
from models.dvt import load_bundle
from service.backends.base import BRIEF_CLASSES, Slot, StageBackend
from tests.service.backends.kinds import (
    BOUNDS,
    CAPACITY,
    FLOAT32,
    HALF,
    TORCH,
    BrokenRuntimeError,
    Kind,
    break_once,
    images,
)
from tests.service.briefs import brief_of

Pixels = Sequence[NDArray[np.uint8]]
Logits = list[NDArray[np.float32]]

every_backend = pytest.mark.parametrize("kind", [*FLOAT32, *HALF])


def expected(bundle: Bundle, pixels: Pixels) -> Logits:
    """Every exit's logits (B, C), by the model."""
    with torch.inference_mode():
        return [logits.numpy() for logits in load_bundle(bundle.path)(torch.from_numpy(np.stack(pixels)))]


def through(backend: StageBackend, slots: Sequence[Slot], stages: range) -> Logits:
    """Every image through these stages, in one batch."""
    collected = []
    for stage in stages:
        output = backend.run(stage, slots)
        collected.append(output.logits)
        output.keep(range(len(slots)))
    return collected


def alone(backend: StageBackend, pixels: Pixels) -> Logits:
    slots = [backend.begin(image) for image in pixels]
    collected = through(backend, slots, range(1, backend.stages + 1))
    for slot in slots:
        backend.release(slot)
    return collected


def assert_close(kind: Kind, ours: Sequence[NDArray[np.float32]], theirs: Sequence[NDArray[np.float32]]) -> None:
    assert len(ours) == len(theirs)
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.dtype == np.float32
        largest = max(1.0, float(np.abs(reference).max()))
        np.testing.assert_allclose(mine, reference, rtol=0, atol=BOUNDS[kind.precision] * largest)


@every_backend
def test_every_batch_size_gives_the_models_logits_at_every_exit(kind: Kind, bundle: Bundle) -> None:
    backend = kind.open(bundle, CAPACITY)
    for size in range(1, CAPACITY.max_batch + 1):
        pixels = images(size, seed=size)
        assert_close(kind, alone(backend, pixels), expected(bundle, pixels))


@pytest.mark.parametrize("kind", FLOAT32)
@pytest.mark.parametrize("reuse", ["features_only", "relations_only"])
def test_what_is_not_reused_is_not_handed_on(kind: Kind, reuse: str, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(reuse)
    assert_close(kind, alone(kind.open(bundle, CAPACITY), images(3)), expected(bundle, images(3)))


@every_backend
def test_a_state_that_rests_while_others_come_and_go_is_gone_on_with_as_if_it_had_not(
    kind: Kind, bundle: Bundle
) -> None:
    backend, pixels = kind.open(bundle, CAPACITY), images(1)
    for size in (1, 2):
        alone(backend, images(size))  # As the warm-up does: a compiler makes another graph when it meets another size.
    slots = [backend.begin(image) for image in pixels]
    logits: Logits = []
    for stage in range(1, backend.stages + 1):
        logits += through(backend, slots, range(stage, stage + 1))
        alone(backend, images(2, seed=stage))
    for slot in slots:
        backend.release(slot)
    for mine, uninterrupted in zip(logits, alone(backend, pixels), strict=True):
        np.testing.assert_array_equal(mine, uninterrupted)


@pytest.mark.parametrize("kind", HALF)
def test_half_precision_agrees_on_the_label(kind: Kind, bundle: Bundle) -> None:
    backend, same, count = kind.open(bundle, CAPACITY), 0, 0
    for seed in range(20):
        pixels = images(6, seed)
        for ours, theirs in zip(alone(backend, pixels), expected(bundle, pixels), strict=True):
            same += int((ours.argmax(1) == theirs.argmax(1)).sum())
            count += len(pixels)
    assert same / count >= 0.98


@every_backend
def test_images_of_different_batches_go_on_together_in_any_order(kind: Kind, bundle: Bundle) -> None:
    backend = kind.open(bundle, CAPACITY)
    pixels = images(5)
    slots = [backend.begin(image) for image in pixels]
    backend.run(1, slots[:3]).keep([2, 1])
    backend.run(1, slots[3:]).keep([1])
    order = [4, 1, 2]
    output = backend.run(2, [slots[number] for number in order])
    assert_close(kind, [output.logits], [expected(bundle, pixels)[1][order]])
    output.keep([0, 2])
    last = backend.run(3, [slots[2], slots[4]])
    assert_close(kind, [last.logits], [expected(bundle, pixels)[2][[2, 4]]])


@every_backend
def test_only_the_slots_of_kept_rows_are_written(kind: Kind, bundle: Bundle) -> None:
    backend = kind.open(bundle, CAPACITY)
    slots = [backend.begin(image) for image in images(4)]
    backend.run(1, slots).keep(range(4))
    before = backend.run(2, slots)
    logits = before.logits
    before.keep([1])
    again = backend.run(2, [slots[0], slots[2], slots[3]])
    assert_close(kind, [again.logits], [logits[[0, 2, 3]]])
    assert_close(kind, [backend.run(3, [slots[1]]).logits], [expected(bundle, images(4))[2][1:2]])


@every_backend
def test_slots_are_used_again_and_again_and_logits_once_given_stay(kind: Kind, bundle: Bundle) -> None:
    backend = kind.open(bundle, CAPACITY)
    given = [alone(backend, images(3, seed)) for seed in range(4)]
    for seed, ours in enumerate(given):
        assert_close(kind, ours, expected(bundle, images(3, seed)))
    assert backend.slots_in_use == 0


@pytest.mark.parametrize("kind", TORCH)
def test_a_brief_is_what_the_policy_says_of_the_logits(kind: Kind, many_classes: Bundle) -> None:
    backend, measure = kind.open(many_classes, CAPACITY), many_classes.measure
    for seed, size in enumerate((5, 5, 1)):
        slots = [backend.begin(image) for image in images(size, seed)]
        for stage in range(1, backend.stages + 1):
            output = backend.run(stage, slots)
            ours, theirs = output.brief, brief_of(output.logits, measure, stage, BRIEF_CLASSES)
            assert ours is not None
            assert (ours.of, ours.classes.shape) == (40, (size, BRIEF_CLASSES))
            np.testing.assert_array_equal(ours.classes, theirs.classes)
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=1e-12)
            np.testing.assert_allclose(ours.confidences, theirs.confidences, rtol=1e-12)
            output.keep(range(size))
        for slot in slots:
            backend.release(slot)


@pytest.mark.parametrize("kind", TORCH)
def test_a_brief_once_given_stays(kind: Kind, bundle: Bundle) -> None:
    backend = kind.open(bundle, CAPACITY)
    slots = [backend.begin(image) for image in images(3)]
    brief = backend.run(1, slots).brief
    assert brief is not None
    before = brief_of(backend.run(1, slots).logits, bundle.measure, 1, BRIEF_CLASSES)
    for seed in range(3):
        alone(backend, images(3, seed))
    np.testing.assert_array_equal(brief.classes, before.classes)
    np.testing.assert_allclose(brief.probabilities, before.probabilities, rtol=1e-12)
    np.testing.assert_allclose(brief.confidences, before.confidences, rtol=1e-12)


@every_backend
def test_two_models_at_once_do_not_disturb_each_other(kind: Kind, bundle: Bundle, features_only: Bundle) -> None:
    first, second = kind.open(bundle, CAPACITY), kind.open(features_only, CAPACITY)
    of_first = [first.begin(image) for image in images(3, seed=1)]
    of_second = [second.begin(image) for image in images(2, seed=2)]
    ours = [*through(first, of_first, range(1, 2))]
    theirs = [*through(second, of_second, range(1, 2))]
    ours += through(first, of_first, range(2, 4))
    theirs += through(second, of_second, range(2, 3))
    assert_close(kind, ours, expected(bundle, images(3, seed=1)))
    assert_close(kind, theirs, expected(features_only, images(2, seed=2)))


@every_backend
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_batch_that_failed_can_be_run_again_in_parts(
    kind: Kind, stage: int, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = kind.open(bundle, CAPACITY)
    slots = [backend.begin(image) for image in images(5)]
    through(backend, slots, range(1, stage))
    break_once(backend, stage, monkeypatch)
    with pytest.raises(BrokenRuntimeError):
        backend.run(stage, slots)
    reference = expected(bundle, images(5))
    for part in (slice(0, 2), slice(2, 5)):
        output = backend.run(stage, slots[part])
        assert_close(kind, [output.logits], [reference[stage - 1][part]])
        output.keep(range(len(slots[part])))
    assert_close(kind, through(backend, slots, range(stage + 1, 4)), reference[stage:])


@every_backend
def test_an_image_that_does_not_fit_takes_no_slot(kind: Kind, bundle: Bundle) -> None:
    backend = kind.open(bundle, CAPACITY)
    with pytest.raises(ValueError, match="shape"):
        backend.begin(np.zeros((3, 7, 7), np.uint8))
    assert backend.slots_in_use == 0
    slots = [backend.begin(image) for image in images(backend.slots)]
    assert len(set(slots)) == backend.slots == backend.slots_in_use == CAPACITY.images


@every_backend
def test_it_tells_its_stages_and_the_batches_that_it_computes(kind: Kind, bundle: Bundle) -> None:
    backend = kind.open(bundle, CAPACITY)
    assert (backend.stages, backend.buckets) == (3, (1, 2, 4, 6))
    element_bytes = 4 if kind.precision == "float32" else 2
    image, width, maps = 3 * 16 * 16, 16, 4
    handed_on = [(n + 1) * width + maps * (n + 1) ** 2 for n in (4, 9)]
    assert backend.slot_bytes == image + element_bytes * sum(handed_on)


@every_backend
def test_what_one_lane_hands_on_another_goes_on_with_while_all_compute_at_once(kind: Kind, bundle: Bundle) -> None:
    backend, in_turn = kind.open(bundle, CAPACITY), kind.open(bundle, CAPACITY)
    turn, together = threading.Lock(), threading.Barrier(backend.lanes, timeout=60)
    rounds = [[images(3, seed=7 * number + lane) for lane in range(backend.lanes)] for number in range(6)]
    references = [[alone(in_turn, pixels) for pixels in each] for each in rounds]
    slots: dict[int, list[Slot]] = {}

    def work(lane: int) -> None:
        for pixels, reference in zip(rounds, references, strict=True):
            with turn:
                slots[lane] = [backend.begin(image) for image in pixels[lane]]
            for stage in range(1, backend.stages + 1):
                together.wait()  # Each stage of a batch by the next lane.
                batch = (lane + stage) % backend.lanes
                output = backend.run(stage, slots[batch], lane)
                difference = np.abs(output.logits - reference[batch][stage - 1]).max()
                assert difference <= 1e-4 * np.abs(reference[batch][stage - 1]).max()
                together.wait()  # What all have computed is there until each is kept.
                output.keep(range(len(slots[batch])))
            together.wait()
            with turn:  # Others come and go meanwhile.
                for slot in slots[lane]:
                    backend.release(slot)

    with ThreadPoolExecutor(backend.lanes) as threads:
        for done in [threads.submit(work, lane) for lane in range(backend.lanes)]:
            done.result()
