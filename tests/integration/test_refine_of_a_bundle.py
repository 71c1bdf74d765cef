"""Refining and remembering with a real bundle: the same numbers as without, to the last bit."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.main import build_service, open_bundle
from service.settings import Loaded, Settings
from tests.service.cascades import ADMIN_KEY, client_of, quiet_log

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "checkpoints" / "cifar10-micro"
NEVER = "?thresholds=null,null"


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[TestClient]:
    values = {"refine_seconds": 60.0, "cache": "off", "audit_share": 0.0, **settings}
    opened = open_bundle(
        wanted := Settings(bundle=BUNDLE, state_dir=folder / "state", admin_key=SecretStr(ADMIN_KEY), **values)
    )
    with client_of(build_service(Loaded(wanted, {}, ()), opened, quiet_log())) as client:
        yield client


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Images of noise, coarse and fine."""
    random, made = np.random.default_rng(0), []
    for side in (2, 4, 8, 32):
        file = io.BytesIO()
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR).save(file, "PNG")
        made.append(file.getvalue())
    return made


def one(client: TestClient, path: str, **options: Any) -> Mapping[str, Any]:
    response = client.post(path, **options)
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return dict(result)


def test_refined_answers_are_those_of_an_uninterrupted_run(tmp_path: Path, files: list[bytes]) -> None:
    with serving(tmp_path) as client:
        exits = client.get("/model").json()["exits"]
        whole = [one(client, f"/classify{NEVER}", content=file) for file in files]
        begun = [one(client, "/classify?max_exit=1", content=file) for file in files]
        for depth in range(2, len(exits) + 1):
            # One after the other: in between, slots and buffers are used for others.
            refined = [one(client, f"/classify/{each['id']}/refine", json={"to": depth}, headers={}) for each in begun]
            assert {each["exit"]["number"] for each in refined} == {depth}
            assert {len(each["timing_ms"]["stages"]) for each in refined} == {1}
    for ours, uninterrupted in zip(refined, whole, strict=True):
        for name in ("predictions", "exit", "compute"):
            assert ours[name] == uninterrupted[name]


def test_an_image_that_is_known_has_the_answers_of_one_that_is_not(tmp_path: Path, files: list[bytes]) -> None:
    answers = {}
    for cache in ("off", "key"):
        with serving(tmp_path, cache=cache) as client:
            answers[cache] = [
                {name: value for name, value in each.items() if name not in ("id", "timing_ms")}
                for wish in ("?max_exit=1", "", "?profile=fast", NEVER, "?min_confidence=0.5")
                for file in files
                for each in [one(client, f"/classify{wish}", content=file)]
            ]
    assert answers["key"] == answers["off"]
