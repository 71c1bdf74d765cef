"""Which devices are meant by what an operator writes, and what is opened on each."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import Bundle
from service.backends import choose
from service.backends.base import BackendError, StageBackend
from service.backends.choose import Chosen, Wanted, open_backend
from service.backends.devices import Device, DevicesAsked, parse_devices
from service.backends.onnx_device import CUDA, TENSORRT
from service.backends.onnx_device import Device as OnnxDevice
from tests.service.backends.kinds import CAPACITY
from tests.service.cascades import FakeBackend, sure_at


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("auto", DevicesAsked("auto")),
        (" cpu ", DevicesAsked("cpu")),
        ("cuda", DevicesAsked("cuda")),
        ("tensorrt", DevicesAsked("tensorrt")),
        ("cuda:1", DevicesAsked("cuda", (1,))),
        ("cuda:2, cuda:0", DevicesAsked("cuda", (2, 0))),
        ("tensorrt:3", DevicesAsked("tensorrt", (3,))),
    ],
)
def test_devices_are_read_as_they_are_written(written: str, asked: DevicesAsked) -> None:
    assert parse_devices(written) == asked


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "write auto, cpu, cuda"),
        ("gpu", "write auto, cpu, cuda"),
        ("cpu:0", "write auto, cpu, cuda"),
        ("CUDA", "write auto, cpu, cuda"),
        ("cuda:-1", "write auto, cpu, cuda"),
        ("cuda:\u0661", "write auto, cpu, cuda"),
        ("cuda:99999", "write auto, cpu, cuda"),
        ("cuda:0,", "'' is no device by number"),
        ("cuda,cuda:1", "'cuda' is no device by number"),
        ("cuda:0,cpu", "'cpu' is no device by number"),
        ("cuda:0,tensorrt:1", "of one kind"),
        ("cuda:1,cuda:01", "twice"),
    ],
)
def test_what_is_no_device_is_refused_with_the_way_out(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_devices(written)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        asked = parse_devices(text)
    except ValueError:
        return
    assert asked.numbers == () or asked.kind in ("cuda", "tensorrt")


class Opened:
    """Fakes in place of what needs devices; `fails` says on which of them which cannot be opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, there: int, fails: Mapping[str, str]) -> None:
        self.measured: list[str] = []
        self._fails = fails
        monkeypatch.setattr(choose, "cuda_devices", lambda: there)
        monkeypatch.setattr(choose, "_open", self._open)
        monkeypatch.setattr(choose, "image_seconds", self._seconds)

    def _open(self, name: str, device: Device, bundle: Bundle, wanted: Wanted) -> StageBackend:
        if (why := self._fails.get(f"{name} {device}", self._fails.get(str(device)))) is not None:
            raise BackendError(why)
        return FakeBackend(sure_at({}), name=f"{name} {device}")

    def _seconds(self, backend: StageBackend, size_px: int) -> float:
        self.measured.append(backend.name)
        return {"cudagraph": 0.001, "eager": 0.002}.get(backend.name.split()[0], 0.003)


def names(chosen: Chosen) -> list[str]:
    assert len(chosen.devices) == 1 + len(chosen.others)
    return [backend.name for backend in (chosen.backend, *chosen.others)]


@pytest.mark.parametrize(
    ("device", "there", "found"),
    [
        ("cuda", 3, [0, 1, 2]),
        ("cuda", 1, [0]),
        ("cuda:1", 3, [1]),
        ("cuda:2,cuda:0", 3, [2, 0]),
        ("tensorrt", 2, [0, 1]),
        ("auto", 2, [0, 1]),
        ("auto", 1, [0]),
    ],
)
def test_the_same_backend_is_opened_on_every_device_that_is_meant(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: str, there: int, found: list[int]
) -> None:
    Opened(monkeypatch, there, {})
    chosen = open_backend(bundle, Wanted("onnx", device, 1, CAPACITY))
    kind = "tensorrt" if device == "tensorrt" else "cuda"
    assert names(chosen) == [f"onnx {kind}:{number}" for number in found]
    assert [str(each) for each in chosen.devices] == [f"{kind}:{number}" for number in found]


def test_auto_measures_on_the_first_device_alone(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(monkeypatch, 3, {})
    chosen = open_backend(bundle, Wanted("auto", "auto", 1, CAPACITY))
    assert opened.measured == ["cudagraph cuda:0", "eager cuda:0", "onnx cuda:0"]
    assert names(chosen) == ["cudagraph cuda:0", "cudagraph cuda:1", "cudagraph cuda:2"]


@pytest.mark.parametrize(("device", "there"), [("auto", 3), ("cuda", 2), ("cuda:1,cuda:0", 2)])
def test_who_measures_has_one_alone(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: str, there: int) -> None:
    Opened(monkeypatch, there, {})
    chosen = open_backend(bundle, Wanted("eager", device, 1, CAPACITY, alone=True))
    assert names(chosen) == ["eager cuda:1" if device.startswith("cuda:1") else "eager cuda:0"]


def test_without_a_device_auto_is_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    Opened(monkeypatch, 0, {})
    chosen = open_backend(bundle, Wanted("auto", "auto", 1, CAPACITY))
    assert (names(chosen), [str(device) for device in chosen.devices]) == (["onnx cpu"], ["cpu"])


@pytest.mark.parametrize(("unfit", "left"), [("cuda:1", ["cuda:0", "cuda:2"]), ("cuda:0", ["cuda:1", "cuda:2"])])
def test_a_device_that_was_not_named_is_left_out_where_it_cannot_be_used(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, unfit: str, left: list[str]
) -> None:
    opened = Opened(monkeypatch, 3, {unfit: "too old"})
    chosen = open_backend(bundle, Wanted("auto", "auto", 1, CAPACITY))
    assert names(chosen) == [f"cudagraph {device}" for device in left]
    assert [str(device) for device in chosen.devices] == left
    assert f"; {unfit} is left out (" in chosen.why
    assert opened.measured == [f"{name} {left[0]}" for name in ("cudagraph", "eager", "onnx")]


@pytest.mark.parametrize("device", ["cuda", "cuda:0,cuda:1"])
def test_one_that_was_meant_is_not(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    Opened(monkeypatch, 2, {"cuda:1": "too old"})
    with pytest.raises(BackendError, match=r"cuda:1 cannot be used \(too old\); name others \(DVT_DEVICE\)"):
        open_backend(bundle, Wanted("eager", device, 1, CAPACITY))


def test_a_number_that_no_device_has_is_told_how_many_there_are(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    Opened(monkeypatch, 2, {})
    with pytest.raises(BackendError, match=r"no cuda:2 here: this process sees 2 CUDA .* CUDA_VISIBLE_DEVICES"):
        open_backend(bundle, Wanted("eager", "cuda:0,cuda:2", 1, CAPACITY))


def test_without_a_driver_the_backend_says_what_is_missing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "cuda_devices", lambda: 0)
    with pytest.raises(BackendError, match="install onnxruntime-gpu in place of onnxruntime"):
        open_backend(bundle, Wanted("onnx", "cuda:1", 1, CAPACITY))


def test_onnx_runtime_is_told_the_number_of_the_device() -> None:
    second = OnnxDevice(CUDA.memory, CUDA.provider, 1)
    assert second.providers == [("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"})]
    assert second.mover == ("CUDAExecutionProvider", {"device_id": "1"})
    compiled = OnnxDevice(TENSORRT.memory, TENSORRT.provider, 1)
    assert compiled.providers == [("TensorrtExecutionProvider", {"device_id": "1"}), *second.providers]
    assert (compiled.mover, compiled.backend_name) == (second.mover, "onnx-tensorrt")
    assert OnnxDevice("cpu", "CPUExecutionProvider").mover == "CPUExecutionProvider"
