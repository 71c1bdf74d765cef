"""Stages that are computed elsewhere: what is lost with a replica is computed again, and nothing else is."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.ray_scripted import GRIDS, SIZE_PX, InProcess, ScriptedStage, bundle
from deploy.ray_serve.remote_stages import (
    PAUSES_S,
    Answered,
    ImageRefs,
    Ref,
    RemoteStages,
    ReplicaLostError,
    StateLostError,
)
from service.backends.base import Capacity, Slot
from service.backends.layout import state_layout
from service.settings import Settings

EASY, MEDIUM, HARD = 1, 2, 3


@dataclass
class Stream:
    """An answer whose states never come."""

    logits: NDArray[np.float32]

    def states(self) -> Sequence[Ref]:
        raise ReplicaLostError("died between the logits and the states")


@dataclass
class Flaky(InProcess):
    """Fails as `script` says, call by call: "lost", "mute" (no states), "state" (lost), "broken", or well."""

    def __init__(self, script: Sequence[str] = ()) -> None:
        self.script = list(script)
        self.calls: list[tuple[int, int]] = []
        served = bundle(Settings())
        super().__init__([ScriptedStage(served, number, 0.0) for number in range(1, len(GRIDS) + 1)])

    def compute(self, stage: int, images: Sequence[ImageRefs]) -> Answered:  # type: ignore[override] # Other answers too.
        self.calls.append((stage, len(images)))
        how = self.script.pop(0) if self.script else "well"
        if how == "lost":
            raise ReplicaLostError("scripted")
        if how == "state":
            raise StateLostError("scripted")
        if how == "broken":
            raise RuntimeError("scripted")
        answered = super().compute(stage, images)
        return Stream(answered.logits) if how == "mute" else answered


def backend_of(cluster: Flaky, pauses_s: list[float] | None = None) -> RemoteStages:
    layout = state_layout(bundle(Settings()).config)
    capacity = Capacity(images=8, state_bytes=1 << 20, max_batch=4)
    pause = ([] if pauses_s is None else pauses_s).append
    return RemoteStages("scripted", layout, cluster, capacity, 2, pause=pause)


def begin(backend: RemoteStages, *kinds: int) -> list[Slot]:
    return [backend.begin(np.full((3, SIZE_PX, SIZE_PX), kind, np.uint8)) for kind in kinds]


def sure(logits: NDArray[np.float32]) -> list[bool]:
    return [bool(row.max() > 0.9) for row in np.exp(logits)]


def through(backend: RemoteStages, slots: Sequence[Slot]) -> list[list[bool]]:
    """Whether each exit is sure of each image; each stage checks that states belong to their images."""
    found = []
    for stage in range(1, backend.stages + 1):
        output = backend.run(stage, slots)
        found.append(sure(output.logits))
        output.keep(range(len(slots)))
    return found


ANSWERS = [[True, False], [True, False], [True, True]]


@pytest.mark.parametrize(
    ("script", "calls"),
    [
        ([], [1, 2, 3]),
        (["lost"], [1, 1, 2, 3]),
        (["well", "lost", "lost"], [1, 2, 2, 2, 3]),
        (["mute"], [1, 1, 2, 3]),
        (["mute", "mute", "lost"], [1, 1, 1, 1, 2, 3]),
        (["well", "state"], [1, 2, 1, 2, 3]),
        (["well", "well", "state"], [1, 2, 3, 1, 2, 3]),
        (["well", "well", "state", "lost", "state"], [1, 2, 3, 1, 3, 1, 2, 3]),
        (["well", "well", "mute"], [1, 2, 3]),  # The last stage hands nothing on.
    ],
)
def test_answers_are_the_same_whatever_is_lost_on_the_way(script: list[str], calls: list[int]) -> None:
    cluster = Flaky(script)
    backend = backend_of(cluster)
    assert through(backend, begin(backend, EASY, HARD)) == ANSWERS
    assert [stage for stage, _ in cluster.calls] == calls


def test_who_leaves_frees_its_state_and_who_stays_is_batched_with_others() -> None:
    backend = backend_of(Flaky())
    first, second = begin(backend, EASY, HARD, HARD), begin(backend, MEDIUM)
    for slots in (first, second):
        backend.run(1, slots).keep(range(len(slots)))
    output = backend.run(2, [first[2], second[0], first[1]])
    output.keep([0, 2])
    for slot in (first[0], second[0]):
        backend.release(slot)
    assert backend.slots_in_use == 2
    assert sure(backend.run(3, [first[1], first[2]]).logits) == [True, True]


def test_an_image_that_is_done_with_is_held_by_nobody() -> None:
    backend = backend_of(Flaky())
    image = np.full((3, SIZE_PX, SIZE_PX), HARD, np.uint8)
    is_held = weakref.ref(image)
    slot = backend.begin(image)
    del image
    backend.run(1, [slot]).keep([0])
    assert is_held() is not None
    backend.release(slot)
    assert is_held() is None
    assert backend.slots_in_use == 0


def test_what_a_stage_raises_is_the_batchs_own_failure_and_changes_nothing() -> None:
    cluster = Flaky(["well", "broken"])
    backend = backend_of(cluster)
    slots = begin(backend, EASY, HARD)
    backend.run(1, slots).keep([0, 1])
    with pytest.raises(RuntimeError, match="scripted"):
        backend.run(2, slots)
    assert backend.run(2, slots[:1]).logits.shape == (1, 4)
    assert len(cluster.calls) == 3, "it is for the engine to try again, with fewer images"


@pytest.mark.parametrize(("kind", "error"), [("lost", ReplicaLostError), ("state", StateLostError)])
def test_an_image_that_takes_its_replica_with_it_does_not_take_them_all(kind: str, error: type[Exception]) -> None:
    pauses_s: list[float] = []
    cluster = Flaky([kind] * 100)
    backend = backend_of(cluster, pauses_s)
    slots = begin(backend, EASY)
    with pytest.raises(error):
        backend.run(1, slots)
    assert pauses_s == list(PAUSES_S)
    assert len(cluster.calls) == len(PAUSES_S) + 1
