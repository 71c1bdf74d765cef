"""A shipped bundle under audit, over HTTP: images that break its certificate are noticed, the same uncorrupted are not.

Nothing here knows the weights. Which images the certificate holds for, and which corruption breaks it, is computed with
the bundle's own graphs; the service has to find out by itself.
"""

import base64
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import SecretStr
from starlette.testclient import TestClient

from models import policy
from models.bundle import Bundle, read_bundle
from models.profiles import Certificate, Profiles
from service.api.deps import Service
from service.backends.base import Capacity, StageBackend
from service.backends.onnx import OnnxBackend
from service.decode import ImageLimits, decode
from service.main import build_service, open_bundle
from service.settings import Loaded, Settings
from tests.service.cascades import ADMIN, ADMIN_KEY, client_of, quiet_log, wait_until
from training.folders import ImageFolder

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "checkpoints" / "cifar10-micro"
SAMPLES = sorted((ROOT / "samples").glob("*.jpg"))
DATA = os.environ.get("DVT_TEST_DATA")
SIDE_PX = 32
A_REQUEST = 16
# Less takes too many samples.
LEAST_EPSILON = 0.01
_BATCH = 64
_LIMITS = ImageLimits(1 << 24, 4096)

Pixels = NDArray[np.float64]
Logits = NDArray[np.float32]
Corruption = Callable[[Pixels, np.random.Generator], Pixels]

CORRUPTIONS: dict[str, Corruption] = {
    "noise": lambda image, random: image + random.normal(0, 40, image.shape),
    "strong noise": lambda image, random: image + random.normal(0, 80, image.shape),
    "little contrast": lambda image, random: (image - 128) * 0.3 + 128,
    "coarse pixels": lambda image, random: image[::8, ::8].repeat(8, 0).repeat(8, 1),
    "upside down": lambda image, random: image[::-1],
    "inverted": lambda image, random: 255 - image,
}


@dataclass(frozen=True)
class Case:
    """A certificate, images that it holds for, and the same corrupted, so that it does not: PNG files."""

    certificate: Certificate
    originals: Sequence[bytes]
    corrupted: Sequence[bytes]
    risk: float


def crops(number: int) -> Iterator[Image.Image]:
    random = np.random.default_rng(0)
    photos = [Image.open(path).convert("RGB") for path in SAMPLES]
    for index in range(number):
        photo = photos[index % len(photos)]
        side = int(min(photo.size) * random.uniform(0.5, 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in photo.size)
        yield photo.crop((left, top, left + side, top + side)).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def exits_of(bundle: Bundle, backend: StageBackend, files: Sequence[bytes]) -> Logits:
    """The logits (K, n, C) of every exit, nobody leaving."""
    parts = []
    for at in range(0, len(files), _BATCH):
        slots = [backend.begin(decode(file, bundle.config.input, _LIMITS)) for file in files[at : at + _BATCH]]
        exits = []
        for stage in range(1, backend.stages + 1):
            output = backend.run(stage, slots)
            exits.append(output.logits)
            output.keep(range(len(slots)))
        for slot in slots:
            backend.release(slot)
        parts.append(np.stack(exits))
    return np.concatenate(parts, axis=1)


def disagrees(profiles: Profiles, certificate: Certificate, logits: Logits) -> NDArray[np.bool_]:
    """Which images (n,) leave by the certificate's thresholds with another label than the last exit's."""
    label = logits.argmax(-1)
    left_with = label[-1].copy()
    for place in reversed(range(len(logits) - 1)):
        probabilities = policy.softmax(logits[place].astype(np.float64), profiles.exits[place].temperature)
        confident = policy.confidence(probabilities, profiles.confidence)
        leaves = policy.leaves(confident, certificate.point.thresholds[place])
        left_with[leaves] = label[place][leaves]
    return np.asarray(left_with != label[-1])


def case_of(images: Sequence[Image.Image], *, only_agreeing: bool) -> Case:
    """Of all claims and corruptions those that differ most in risk; `only_agreeing` keeps what is fine as it is."""
    bundle, random = read_bundle(BUNDLE), np.random.default_rng(1)
    profiles = bundle.profiles
    assert profiles is not None
    backend = OnnxBackend(bundle, 1, Capacity(_BATCH, 1 << 30, _BATCH))
    pixels = [np.asarray(image, np.float64) for image in images]
    originals = [png(each) for each in pixels]
    as_they_are = exits_of(bundle, backend, originals)
    cases = []
    for corrupt in CORRUPTIONS.values():
        corrupted = [png(corrupt(each, random)) for each in pixels]
        befallen = exits_of(bundle, backend, corrupted)
        for certificate in profiles.certificates:
            if certificate.claim.risk != "disagreement" or certificate.claim.epsilon < LEAST_EPSILON:
                continue
            kept = np.ones(len(images), np.bool_)
            if only_agreeing:
                kept = ~disagrees(profiles, certificate, as_they_are)
            risk = float(disagrees(profiles, certificate, befallen)[kept].mean())
            cases.append(Case(certificate, list(compress(originals, kept)), list(compress(corrupted, kept)), risk))
    return max(cases, key=lambda case: case.risk / case.certificate.claim.epsilon)


@contextmanager
def served(folder: Path) -> Iterator[tuple[TestClient, Service]]:
    settings = Settings(
        admin_key=SecretStr(ADMIN_KEY),
        bundle=BUNDLE,
        backend="onnx",
        device="cpu",
        state_dir=folder / "state",
        audit_share=1.0,
        audit_fallback=True,
    )
    service = build_service(Loaded(settings, {}, ()), open_bundle(settings), quiet_log())
    with client_of(service) as client:
        yield client, service


def audited(folder: Path, case: Case, files: Sequence[bytes], images: int) -> dict[str, object]:
    """What the audit says of the certificate after so many of these files, or as soon as it is broken."""
    random = np.random.default_rng(2)
    claim = case.certificate.claim
    with served(folder) as (client, service):
        put = client.put("/budget", json={"max_risk": {claim.risk: claim.epsilon}}, headers=ADMIN).json()
        assert put["in_force"]["thresholds"] == list(case.certificate.point.thresholds)
        for _ in range(0, images, A_REQUEST):
            chosen = [files[index] for index in random.integers(0, len(files), A_REQUEST)]
            body = {"images": [base64.b64encode(file).decode() for file in chosen]}
            answer = client.post("/classify", json=body).json()
            assert all(result["certificate"]["epsilon"] == claim.epsilon for result in answer["results"])
            wait_until(lambda: service.audit.pending == 0)
            service.audit.settle()
            if client.get("/budget").json()["in_force"]["certificate"] is None:
                break
        (found,) = [
            each
            for each in client.get("/audit").json()["certificates"]
            if each["certificate"]["epsilon"] == claim.epsilon
        ]
        answer = client.post("/classify", content=files[0]).json()
        assert (answer["results"][0]["certificate"] is None) == (found["broken_at"] is not None)
        return dict(found)


@pytest.fixture(scope="module")
def case() -> Case:
    return case_of(list(crops(160)), only_agreeing=True)


def test_images_that_break_a_certificate_are_noticed(case: Case, tmp_path: Path) -> None:
    assert case.risk > 2 * case.certificate.claim.epsilon
    found = audited(tmp_path, case, case.corrupted, images=1_600)
    assert found["broken_at"] is not None


def test_the_same_images_uncorrupted_are_no_reason_for_an_alarm(case: Case, tmp_path: Path) -> None:
    found = audited(tmp_path, case, case.originals, images=400)
    assert found["broken_at"] is None
    assert found["audited"] == 400


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="DVT_TEST_DATA does not name the folder of the unpacked data sets")
def test_on_the_test_images_of_its_data_set(tmp_path: Path) -> None:
    """Photographs that the bundle was made for: the certificate holds as they are, and breaks by what befalls them."""
    assert DATA is not None
    report = ImageFolder.scan_report(Path(DATA) / "cifar10").report
    chosen = np.random.default_rng(3).choice(len(report), 1_000, replace=False)
    paths = [report.root / report.paths[index] for index in chosen]
    case = case_of([Image.open(path).convert("RGB") for path in paths], only_agreeing=False)
    assert case.risk > 2 * case.certificate.claim.epsilon
    assert audited(tmp_path / "corrupted", case, case.corrupted, images=4_000)["broken_at"] is not None
    assert audited(tmp_path / "originals", case, case.originals, images=4_000)["broken_at"] is None
