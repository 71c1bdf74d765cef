"""Ray as the cluster of `RemoteStages`: arrays are objects of Ray, a call to a stage goes to one of its replicas.

Everything a stage gives back belongs to who asked (Ray's owner of an object is the caller of what returned it), and
lies in the shared memory of the node where it was made. So it outlives the replica that made it, another replica on
that node reads it without a copy, and one elsewhere fetches it once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import ObjectLostError, RayActorError

from deploy.ray_serve.remote_stages import ImageRefs, Ref, ReplicaLostError, StateLostError
from models.preprocess import Pixels


class RayAnswered:
    """The stream that a replica answers with: the logits, then a state an image."""

    def __init__(self, logits: NDArray[np.float32], rest: Iterator[Ref]) -> None:
        # A copy: what came is read-only, and keeps its place in the shared memory.
        self.logits = np.array(logits)
        self._rest = rest

    def states(self) -> list[Ref]:
        with translated():
            states = list(self._rest)
        if len(states) != len(self.logits):
            raise ReplicaLostError(f"{len(states)} states came of {len(self.logits)}")
        return states


class RayCluster:
    """`handles[k - 1]` is that of stage k, `served` the hashes of the bundle that they must have too."""

    def __init__(self, handles: Sequence[Any], served: str) -> None:
        self._served = served
        self._compute: tuple[Callable[..., Any], ...] = tuple(
            handle.options(stream=True).compute.remote for handle in handles
        )

    def put(self, pixels: Pixels) -> Ref:
        return ray.put(pixels)

    def compute(self, stage: int, images: Sequence[ImageRefs]) -> RayAnswered:
        with translated():
            # Not the stream itself, which would fetch what only the next stage needs.
            answers = self._compute[stage - 1](self._served, list(images))._to_object_ref_gen_sync()
            try:
                logits = ray.get(next(answers))
            except StopIteration:
                raise ReplicaLostError(f"stage {stage} answered nothing") from None
        return RayAnswered(logits, answers)


@contextmanager
def translated() -> Iterator[None]:
    """Ray's errors as those of `RemoteStages`; what a stage raised itself stays as it is."""
    try:
        yield
    except (StateLostError, ReplicaLostError) as error:
        # Raised by a replica, in Ray's own class: without that.
        kind = StateLostError if isinstance(error, StateLostError) else ReplicaLostError
        raise kind(str(error)) from None
    except ObjectLostError as error:
        raise ReplicaLostError(f"{type(error).__name__}: {error}") from error
    except RayActorError as error:
        raise ReplicaLostError(f"{type(error).__name__}: {error}") from error


def fetch(images: Sequence[ImageRefs]) -> tuple[list[Pixels], list[Any]]:
    """The arrays behind the references, where they are: in shared memory, read-only. For a replica of a stage.

    Raises `StateLostError`.
    """
    try:
        pixels = ray.get([image.pixels for image in images])
        held = iter(ray.get([image.state for image in images if image.state is not None]))
    except (ObjectLostError, RayActorError) as error:
        raise StateLostError(f"{type(error).__name__}: {error}") from error
    return pixels, [{} if image.state is None else next(held) for image in images]
