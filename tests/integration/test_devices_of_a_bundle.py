"""Two backends that really compute, side by side in one process: the answers of one."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.bundle import Bundle
from service.backends.base import Capacity, Slot, StageBackend, StageOutput
from service.backends.eager import EagerBackend
from service.backends.onnx import OnnxBackend
from service.main import Opened, build_service
from service.settings import Loaded, Settings
from tests.service.cascades import client_of, quiet_log
from tests.service.tiny_bundles import write_tiny_bundle

OpenBackend = Callable[[Bundle, Capacity], StageBackend]
# Few slots on each, so that what is kept has to make way now and then.
CAPACITY = Capacity(images=6, state_bytes=1 << 20, max_batch=4)
RULES = ("thresholds=0.3,0.6", "thresholds=0.6,null", "thresholds=null,null", "max_exit=2")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def files(count: int) -> list[bytes]:
    random, made = np.random.default_rng(3), []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "PNG")
        made.append(file.getvalue())
    return made


def answers_of(backends: list[StageBackend], bundle: Bundle, folder: Path) -> list[dict[str, Any]]:
    """Of images by different rules, eight at a time, each refined to the end afterwards where its state is left."""
    devices = tuple(f"cpu-{number}" for number in range(len(backends)))
    settings = Settings(bundle=bundle.path, state_dir=folder, audit_share=0.2, refine_seconds=60.0, queue_limit=6)
    opened = Opened(bundle, backends[0], "given", devices, tuple(backends[1:]))
    service = build_service(Loaded(settings, {}, ()), opened, quiet_log())
    with client_of(service) as client, ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda asked: answer(client, *asked), enumerate(files(40))))


def answer(client: TestClient, number: int, file: bytes) -> dict[str, Any]:
    result = client.post(f"/classify?{RULES[number % len(RULES)]}", content=file).json()["results"][0]
    refined = client.post(f"/classify/{result['id']}/refine", json={"to": "final"})
    assert refined.status_code in (200, 410), refined.text
    if refined.status_code == 200:
        result["final"] = refined.json()["results"][0]["predictions"]
    return dict(result)


@pytest.mark.parametrize(
    "open_backend",
    [
        lambda bundle, capacity: OnnxBackend(bundle, 1, capacity),
        lambda bundle, capacity: EagerBackend(bundle, "cpu", 1, capacity),
    ],
    ids=["onnx", "eager"],
)
def test_two_backends_give_the_answers_of_one(
    open_backend: OpenBackend, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = answers_of([open_backend(bundle, CAPACITY)], bundle, tmp_path / "one")
    backends = [open_backend(bundle, CAPACITY) for _ in range(2)]
    ran = [count_runs(backend, monkeypatch) for backend in backends]
    several = answers_of(backends, bundle, tmp_path / "several")
    deepest = 0
    for alone, beside in zip(one, several, strict=True):
        assert alone["exit"]["number"] == beside["exit"]["number"]
        assert scores(alone["predictions"]) == pytest.approx(scores(beside["predictions"]), abs=1e-5)
        if "final" in alone and "final" in beside:
            deepest += 1
            assert scores(alone["final"]) == pytest.approx(scores(beside["final"]), abs=1e-5)
    assert all(len(stages) > 20 for stages in ran), "one of them had hardly anything to do"
    assert deepest > 10, "hardly any was refined in both"
    assert {each["exit"]["number"] for each in several} == {1, 2, 3}


def count_runs(backend: StageBackend, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The stages of its batches, as they come."""
    stages: list[int] = []
    run = backend.run

    def counted(stage: int, slots: Sequence[Slot], lane: int = 0) -> StageOutput:
        stages.append(stage)
        return run(stage, slots, lane)

    monkeypatch.setattr(backend, "run", counted)
    return stages


def scores(predictions: list[dict[str, Any]]) -> dict[str, float]:
    return {each["label"]: each["probability"] for each in predictions}
