"""The small shipped bundle, whose answers are pinned: trained weights through the model, the graphs and the service."""

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from models.bundle import read_bundle
from service.backends.base import Capacity
from service.backends.onnx import OnnxBackend
from tests.e2e.micro_answers import BUNDLE, PROFILE, SAMPLES, Answers, computed, pinned, sample_pixels
from tests.integration.processes import running


@pytest.fixture(scope="module")
def answers() -> Answers:
    return pinned()


def test_the_bundle_is_the_one_whose_answers_are_pinned(answers: Answers) -> None:
    assert read_bundle(BUNDLE).weights_sha256 == answers.weights_sha256
    assert set(answers.photos) == {path.name for path in SAMPLES}


def test_the_model_says_what_it_said(answers: Answers) -> None:
    now = computed().photos
    for name, photo in answers.photos.items():
        np.testing.assert_allclose(now[name].logits, photo.logits, rtol=0, atol=1e-4)
        assert (now[name].label, now[name].exit) == (photo.label, photo.exit)


def test_its_graphs_say_the_same_at_every_exit(answers: Answers) -> None:
    backend = OnnxBackend(read_bundle(BUNDLE), 1, Capacity(len(SAMPLES), 1 << 28, len(SAMPLES)))
    slots = [backend.begin(pixels) for pixels in sample_pixels()]
    for stage in range(1, backend.stages + 1):
        output = backend.run(stage, slots)
        expected = [answers.photos[path.name].logits[stage - 1] for path in SAMPLES]
        np.testing.assert_allclose(output.logits, expected, rtol=0, atol=1e-4)
        output.keep(range(len(slots)))


def test_served_every_photo_gets_its_answer(answers: Answers, tmp_path: Path) -> None:
    with running(["dvt.py", "serve", BUNDLE, "--port", "0"], tmp_path) as (_, port, _):
        for path in SAMPLES:
            url = f"http://127.0.0.1:{port}/classify?profile={PROFILE}"
            request = urllib.request.Request(url, data=path.read_bytes())
            with urllib.request.urlopen(request, timeout=30) as response:
                (result,) = json.load(response)["results"]
            photo = answers.photos[path.name]
            assert (result["predictions"][0]["label"], result["exit"]["number"]) == (photo.label, photo.exit)
