"""Photos are decoded as the service decodes them, by one thread and by all."""

import pytest

from benchmarks.gpu import decoding
from benchmarks.photos import load_photos
from models.architectures import IMAGENET_INPUT


def test_one_thread_and_all_cpus_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "available_cpus", lambda: 3)
    found = decoding.decoding(load_photos(None, 6, 0), IMAGENET_INPUT, seconds=0.05)
    assert [rate.threads for rate in found.rates] == [1, 3]
    assert all(rate.images_per_s > 0 for rate in found.rates)
    assert (found.photos, found.size_px) == ("the 6 samples of the repository", 224)
    assert found.mean_bytes > 1000


def test_a_single_cpu_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "available_cpus", lambda: 1)
    assert len(decoding.decoding(load_photos(None, 6, 0), IMAGENET_INPUT, seconds=0.01).rates) == 1
