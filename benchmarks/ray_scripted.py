"""A scripted cascade on Ray Serve: its stages sleep instead of computing, so that scaling shows on any two cores.

`serve run benchmarks.ray_scripted:replicas` or `:stages`, with the options of the real ones. The picture says what
happens: the red of its middle pixel is the exit at which it is sure (1 to 3), and `SCRIPTED_SECONDS` (`0.02,0.04,0.08`)
what an image takes in each stage. What a stage hands on names the image and the stage, and the next one checks it.

Runs in the environment that has Ray, which has nothing else of the benchmarks.
"""

import hashlib
import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deploy.ray_serve.compute import Computed, StageComputer, State
from deploy.ray_serve.options import ReplicasOptions, StagesOptions
from deploy.ray_serve.remote_stages import ImageRefs, RemoteStages
from models.bundle import Bundle
from models.config import BackboneConfig, ConvStep, ConvTokenizer, DVTConfig, InputConfig, StageConfig
from models.preprocess import Pixels
from models.profiles import ExitProfile, OperatingPoint, Profiles
from service.backends.layout import state_layout
from service.main import Opened, capacity_of
from service.settings import Settings

SECONDS = "SCRIPTED_SECONDS"
SIZE_PX = 8
GRIDS = (2, 3, 4)
LABELS = ("apple", "bell", "cat", "dog")
# A picture that no stage can compute.
BROKEN = 66
_SURE, _UNSURE = 0.97, 0.3
_HASHES = tuple(hashlib.sha256(part).hexdigest() for part in (b"scripted weights", b"scripted configuration"))


def picture(kind: int) -> bytes:
    """A PNG that is sure at exit `kind`, or one of those that break."""
    buffer = io.BytesIO()
    Image.new("RGB", (SIZE_PX, SIZE_PX), (kind, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def bundle(_: Settings) -> Bundle:
    """Nothing on a disk, and a network that is never built. `fast` leaves at the first exit, `full` at the last."""
    stages = tuple(StageConfig(grid, ConvTokenizer(grid, (ConvStep(8, 1),))) for grid in GRIDS)
    backbone = BackboneConfig(8, 1, 1, mlp_ratio=1, qkv_bias=True, norm_eps=1e-5, position="learned")
    config = DVTConfig("scripted", backbone, stages, InputConfig(SIZE_PX, SIZE_PX), LABELS)
    weights_sha256, config_sha256 = _HASHES
    fast, balanced, full = (
        OperatingPoint(thresholds, top1, gmacs, (0.0, 0.0, 1.0))
        for thresholds, top1, gmacs in (((0.2, 0.2), 0.8, 0.1), ((0.8, 0.8), 0.9, 0.5), ((None, None), 0.95, 1.0))
    )
    profiles = Profiles(
        weights_sha256,
        config_sha256,
        "max_softmax",
        tuple(ExitProfile(grid, gmacs, 0.9) for grid, gmacs in zip(GRIDS, (0.1, 0.3, 1.0), strict=True)),
        (),
        (fast, balanced, full),
        {"fast": fast, "balanced": balanced, "accurate": full, "full": full},
    )
    return Bundle(Path("scripted"), config, config_sha256, weights_sha256, profiles, None)


class ScriptedStage:
    """One stage. Raises `ValueError` for a state that belongs to another image, or to another stage."""

    def __init__(self, served: Bundle, stage: int, image_s: float) -> None:
        layout = state_layout(served.config)
        self._stage = stage
        self._image_s = image_s
        self._taken = {part.name: part.shape for part in layout.taken[stage - 1]}
        self._handed_on = {part.name: part.shape for part in layout.handed_on(stage)}

    def run(self, images: Sequence[Pixels], states: Sequence[State]) -> Computed:
        kinds = [int(image[0, SIZE_PX // 2, SIZE_PX // 2]) for image in images]
        for kind, state in zip(kinds, states, strict=True):
            self._check(kind, state)
        # All black is the warm-up, which nobody has to wait for.
        time.sleep(self._image_s * sum(kind != 0 for kind in kinds))
        if BROKEN in kinds:
            raise RuntimeError("scripted failure")
        logits = np.log(np.stack([self._probabilities(kind) for kind in kinds]))
        states = tuple(self._state(kind) for kind in kinds) if self._handed_on else ()
        return Computed(logits, states)

    def _check(self, kind: int, state: State) -> None:
        if kind == 0:
            return
        for name, shape in self._taken.items():
            if state[name].shape != shape or (state[name] != 10 * kind + self._stage - 1).any():
                raise ValueError(f"stage {self._stage} got the state of another image")

    def _state(self, kind: int) -> State:
        return {name: np.full(shape, 10 * kind + self._stage, np.float32) for name, shape in self._handed_on.items()}

    def _probabilities(self, kind: int) -> Any:
        sure = _SURE if self._stage >= kind else _UNSURE
        probabilities = np.full(len(LABELS), (1 - sure) / (len(LABELS) - 1), np.float32)
        probabilities[kind % len(LABELS)] = sure
        return probabilities


def open_stage(_: Settings, served: Bundle, stage: int, __: float) -> ScriptedStage:
    """As the environment says."""
    seconds = [float(word) for word in os.environ.get(SECONDS, "0,0,0").split(",")]
    return ScriptedStage(served, stage, seconds[stage - 1])


class Answered:
    """What `InProcess` answers."""

    def __init__(self, computed: Computed) -> None:
        self.logits = computed.logits
        self._states = computed.states

    def states(self) -> Sequence[State]:
        return self._states


class InProcess:
    """A cluster that is this process: references are the arrays themselves."""

    def __init__(self, stages: Sequence[StageComputer]) -> None:
        self._stages = stages

    def put(self, pixels: Pixels) -> Pixels:
        return pixels

    def compute(self, stage: int, images: Sequence[ImageRefs]) -> Answered:
        pixels = [image.pixels for image in images]
        return Answered(self._stages[stage - 1].run(pixels, [image.state or {} for image in images]))


def open_scripted(settings: Settings, _: tuple[Any, ...]) -> Opened:
    """All stages in one process, one batch at a time."""
    served = bundle(settings)
    stages = [open_stage(settings, served, number, 1.0) for number in range(1, len(GRIDS) + 1)]
    layout = state_layout(served.config)
    return Opened(served, RemoteStages("scripted", layout, InProcess(stages), capacity_of(settings), 1), "scripted")


def replicas(options: ReplicasOptions) -> Any:
    """The application of `deploy.ray_serve.replicas`, scripted."""
    from deploy.ray_serve.replicas import build

    return build(options, open_scripted)


def stages(options: StagesOptions) -> Any:
    """The application of `deploy.ray_serve.stages`, scripted."""
    from deploy.ray_serve.stage import StageSource
    from deploy.ray_serve.stages import build

    return build(options, StageSource("scripted", bundle, open_stage))
