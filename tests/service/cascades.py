"""Runnable stand-ins for a trained cascade: a backend whose exits follow a script, and a service around it.

The picture says what happens: the red channel of its middle pixel is its `kind`, and a script maps kinds to the
confidence of each exit. No weights, no waiting, and every rule of serving can be seen at work.
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from models.bundle import Bundle
from models.config import BackboneConfig, ConvStep, ConvTokenizer, DVTConfig, InputConfig, StageConfig
from models.policy import ExitMeasure
from models.preprocess import Pixels
from models.profiles import Certificate, Claim, ClaimGrid, ExitProfile, OperatingPoint, Profiles, Split
from service.api.app import create_app
from service.api.deps import Service
from service.backends.base import Brief, Slot, SlotPool
from service.engine.fleet import Fleet
from service.engine.scheduler import Scheduler
from service.main import Opened, build_service
from service.settings import Loaded, Settings
from tests.service.briefs import brief_of

SIZE_PX = 8
LABELS = ("apple", "bell", "cat", "dog")
# What the warm-up computes is all black. The script treats it as a device would, without waiting, failing or telling.
BLACK = 0
GMACS = (0.1, 0.3, 1.0)
# By which a bundle without profiles is judged, and that of `small_profiles`.
MEASURE = ExitMeasure("max_softmax", (1.0,) * 8)
ADMIN_KEY = "let-me-in"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


ADMIN = bearer(ADMIN_KEY)
WEIGHTS_SHA256, CONFIG_SHA256 = "a" * 64, "c" * 64


def small_config(exits: int = 3, labels: tuple[str, ...] = LABELS) -> DVTConfig:
    """A configuration whose network is never built."""
    stages = tuple(StageConfig(grid, ConvTokenizer(grid, (ConvStep(8, 1),))) for grid in range(2, 2 + exits))
    backbone = BackboneConfig(8, 1, 1, mlp_ratio=1, qkv_bias=True, norm_eps=1e-5, position="learned")
    return DVTConfig("fake", backbone, stages, InputConfig(SIZE_PX, SIZE_PX), labels)


def small_profiles() -> Profiles:
    """Four named profiles of a cascade of three exits; `balanced` is point 1 of the frontier."""

    def point(thresholds: tuple[float | None, ...], top1: float, gmacs: float) -> OperatingPoint:
        shares = (0.5, 0.25, 0.25) if any(thresholds) else (0.0, 0.0, 1.0)
        return OperatingPoint(thresholds, top1, gmacs, shares)

    fast, balanced = point((0.4, 0.4), 0.80, 0.15), point((0.8, 0.6), 0.90, 0.3)
    accurate, full = point((0.95, 0.9), 0.95, 0.6), point((None, None), 0.96, 1.0)
    return Profiles(
        weights_sha256=WEIGHTS_SHA256,
        config_sha256=CONFIG_SHA256,
        confidence="max_softmax",
        exits=tuple(ExitProfile(grid, gmacs, 0.9) for grid, gmacs in zip((2, 3, 4), GMACS, strict=True)),
        splits=(),
        frontier=(fast, balanced, accurate, full),
        named={"fast": fast, "balanced": balanced, "accurate": accurate, "full": full},
        static_gmacs=0.8,
    )


def certified_profiles() -> Profiles:
    """The same with certificates: disagreement of 1 and 5 % by vectors of their own, accuracy drop of 5 % by `fast`."""
    profiles = small_profiles()
    points = (
        OperatingPoint((0.9, 0.8), 0.93, 0.5, (0.6, 0.2, 0.2)),
        OperatingPoint((0.6, 0.5), 0.85, 0.2, (0.8, 0.1, 0.1)),
        profiles.named["fast"],
    )
    claims = Claim("disagreement", 0.01), Claim("disagreement", 0.05), Claim("accuracy_drop", 0.05)
    split = Split("certify", 1500, "c" * 64)
    certificates = (
        Certificate(claim, 0.0125, point, split, 3, FakeBackend.name, "float32")
        for claim, point in zip(claims, points, strict=True)
    )
    return replace(profiles, claims=ClaimGrid(0.0375, claims), certificates=tuple(certificates))


Script = Callable[[int, int], float]
"""(kind, stage) -> confidence of the label that is named; NaN for an exit gone wrong."""


def sure_at(exit_of_kind: Mapping[int, int]) -> Script:
    """Confident (0.97) from the given exit on, before that hardly (0.3); kinds not listed are sure at once."""
    return lambda kind, stage: 0.97 if stage >= exit_of_kind.get(kind, 1) else 0.3


def label_of(kind: int, stage: int) -> int:
    """What a scripted exit names, unless a test has its own mind."""
    return kind % len(LABELS)


@dataclass(frozen=True)
class FakeState:
    kind: int
    stage: int


@dataclass(frozen=True)
class FakeOutput:
    logits: NDArray[np.float32]
    slots: tuple[Slot, ...]
    held: dict[Slot, FakeState]
    brief: Brief | None = None

    def keep(self, rows: Sequence[int]) -> None:
        for slot in (self.slots[row] for row in rows):
            state = self.held[slot]
            self.held[slot] = FakeState(state.kind, state.stage + 1)


@dataclass
class FakeBackend:
    """Runs a script instead of a network. `batches` tells what it was asked for: (stage, kinds), and `warmed` what the
    warm-up ran: (stage, images).

    With `brief_classes` its outputs have a brief of so many classes, as those of a device do.
    With a `gate`, the stages from `gate_before` on wait until it is opened; with a `warm_gate`, their warm-up does.
    """

    script: Script
    label_of: Callable[[int, int], int] = label_of
    stages: int = 3
    lanes: int = 1
    slots: int = 1024
    slot_bytes: int = 5000
    buckets: tuple[int, ...] = (1, 2, 4, 8, 1024)
    stage_seconds: float = 0.0
    poison: frozenset[int] = frozenset()
    name: str = "fake"
    labels: tuple[str, ...] = LABELS
    brief_classes: int | None = None
    batches: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    warmed: list[tuple[int, int]] = field(default_factory=list)
    held: dict[Slot, FakeState] = field(default_factory=dict)
    gate: threading.Event | None = None
    gate_before: int = 1
    warm_gate: threading.Event | None = None

    def __post_init__(self) -> None:
        self._pool = SlotPool(self.slots)

    @property
    def slots_in_use(self) -> int:
        return len(self.held)

    def begin(self, pixels: Pixels) -> Slot:
        slot = self._pool.take()
        self.held[slot] = FakeState(int(pixels[0, SIZE_PX // 2, SIZE_PX // 2]), 1)
        return slot

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        batch = tuple(self.held[slot] for slot in slots)
        assert all(state.stage == stage for state in batch), "an image came to the wrong stage"
        assert 0 < len(set(slots)) == len(slots) <= self.buckets[-1], "no batch, or a slot twice in it"
        kinds = tuple(state.kind for state in batch)
        if set(kinds) == {BLACK}:
            if self.warm_gate is not None and stage >= self.gate_before:
                self.warm_gate.wait(10)
            self.warmed.append((stage, len(batch)))
            return self._output(stage, slots, kinds)
        if self.gate is not None and stage >= self.gate_before:
            self.gate.wait(10)
        time.sleep(self.stage_seconds)
        self.batches.append((stage, kinds))
        if self.poison & set(kinds):
            raise RuntimeError(f"scripted failure of {sorted(self.poison & set(kinds))}")
        return self._output(stage, slots, kinds)

    def release(self, slot: Slot) -> None:
        self._pool.give_back(slot)
        del self.held[slot]

    def _output(self, stage: int, slots: Sequence[Slot], kinds: Sequence[int]) -> FakeOutput:
        logits = np.stack([self._logits(kind, stage) for kind in kinds])
        brief = None if self.brief_classes is None else brief_of(logits, MEASURE, stage, self.brief_classes)
        return FakeOutput(logits, tuple(slots), self.held, brief)

    def _logits(self, kind: int, stage: int) -> NDArray[np.float32]:
        confidence = self.script(kind, stage)
        rest = (1 - confidence) / (len(self.labels) - 1)
        probabilities = np.full(len(self.labels), rest, np.float32)
        probabilities[self.label_of(kind, stage)] = confidence
        return np.log(probabilities)


def quiet_log() -> logging.Logger:
    return logging.getLogger("dvt.test")


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Returns as soon as `condition` holds; fails the test when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.002)


def state_folder(path: Path) -> Path:
    folder = path / "state"
    folder.mkdir(exist_ok=True)
    return folder


def make_service(
    folder: Path,
    backend: FakeBackend | None = None,
    *others: FakeBackend,
    profiles: Profiles | None = None,
    secret_files: Mapping[str, Path] | None = None,
    **settings: object,
) -> Service:
    """A whole service around a scripted backend, or several. `settings` are those of `Settings`, by name."""
    backend = backend or FakeBackend(sure_at({}))
    values = {
        "state_dir": state_folder(folder),
        "admin_key": ADMIN_KEY,
        "decode_threads": 2,
        "audit_share": 0.0,  # Chance has no part in a test that does not ask for it, nor has what was before.
        "refine_seconds": 0.0,
        "cache": "off",
        **settings,
    }
    bundle = Bundle(
        folder / "small-bundle",
        small_config(backend.stages, backend.labels),
        CONFIG_SHA256,
        WEIGHTS_SHA256,
        profiles,
        None,
    )
    loaded = Loaded(Settings.model_validate(values), secret_files or {}, ())
    devices = tuple(f"fake:{number}" for number in range(1 + len(others)))
    return build_service(loaded, Opened(bundle, backend, "scripted", devices, others), quiet_log())


def scheduler_of(service: Service, device: int = 0) -> Scheduler:
    """What stands behind its engine."""
    engine = service.scheduler
    scheduler = engine.schedulers[device] if isinstance(engine, Fleet) else engine
    assert isinstance(scheduler, Scheduler)
    return scheduler


@contextmanager
def client_of(service: Service) -> Iterator[TestClient]:
    """Speaks to `service` without a socket, its threads running and its engine warm."""
    with TestClient(create_app(service, "0"), base_url="http://localhost", raise_server_exceptions=False) as client:
        wait_until(lambda: service.scheduler.ready)
        yield client


def picture(kind: int, image_format: str = "PNG", size: tuple[int, int] = (SIZE_PX, SIZE_PX)) -> bytes:
    """A file of one colour that the script knows as `kind`."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (kind, 0, 0)).save(buffer, image_format)
    return buffer.getvalue()
