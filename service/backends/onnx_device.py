"""Stages through ONNX Runtime on a CUDA device, by CUDA or TensorRT, with images and state in its memory. No torch.

I/O binding keeps everything on the device but slot numbers, pixels on their way in and logits on their way out. What
moves state by index is graphs too, of one operator each (`Gather`, `ScatterND` in place), run by the same runtime.
One table for images, one for each tensor that is handed on, since `Gather` takes whole rows.

Shapes: B batch, S input side in px, C classes, R rows of a batch that stay.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.bundle import Bundle
from models.graphs import Provider
from models.preprocess import Pixels
from service.backends.base import BackendError, Capacity, Slot, SlotPool
from service.backends.layout import Part, StateLayout
from service.backends.onnx_sessions import IMAGE, LOGITS, NEXT, open_sessions, session_options

Values = Mapping[str, ort.OrtValue]

_OPSET, _IR_VERSION = 18, 9
_TABLE, _INDEX, _ROWS, _SLOTS = "table_", "index", "rows", "slots"


@dataclass(frozen=True)
class Device:
    """Where and through what: ONNX Runtime's name of the device's memory, of the provider that computes, and the
    device's number among those of its kind."""

    memory: str
    provider: str
    number: int = 0

    @property
    def backend_name(self) -> str:
        return f"onnx-{self.provider.removesuffix('ExecutionProvider').lower()}"

    @property
    def providers(self) -> list[Provider]:
        """The provider, then what computes the operators that it does not know."""
        number = {"device_id": str(self.number)}
        # Not the tensor cores' shortened float32: thresholds were measured with the whole of it.
        cuda: Provider = (CUDA.provider, {"use_tf32": "0", **number})
        tensorrt: Provider = (TENSORRT.provider, number)
        return {CUDA.provider: [cuda], TENSORRT.provider: [tensorrt, cuda]}.get(self.provider, [self.provider])

    @property
    def mover(self) -> Provider:
        """What moves state by index within that memory."""
        return (
            (CUDA.provider, {"device_id": str(self.number)}) if self.memory == CUDA.memory else "CPUExecutionProvider"
        )


CUDA = Device("cuda", "CUDAExecutionProvider")
TENSORRT = Device("cuda", "TensorrtExecutionProvider")


@dataclass(frozen=True)
class DeviceOutput:
    """A computed batch: logits (B, C) here, and what the stage hands on, there."""

    logits: NDArray[np.float32]
    tables: "Tables"
    stage: int
    slots: Sequence[Slot]
    handed_on: Values
    brief: ClassVar[None] = None

    def keep(self, rows: Sequence[int]) -> None:
        self.tables.scatter(self.stage, [self.slots[row] for row in rows], rows, self.handed_on)


class OnnxDeviceBackend:
    """Raises `BackendError` where ONNX Runtime has not that provider here, or cannot start it."""

    def __init__(self, bundle: Bundle, device: Device, threads: int, capacity: Capacity) -> None:
        if device.provider not in ort.get_available_providers():
            raise BackendError(
                f"this ONNX Runtime has no {device.provider} (it has {', '.join(ort.get_available_providers())}): "
                "install onnxruntime-gpu in place of onnxruntime, or use --device cpu"
            )
        self.name = device.backend_name
        self._device = device
        self.buckets = capacity.buckets
        self._sessions = open_sessions(bundle, threads, device.providers)
        for session in self._sessions.of_stage:
            if session.get_providers()[0] != device.provider:
                raise BackendError(
                    f"ONNX Runtime could not start {device.provider} (its log says why); use --device cpu, or mend it"
                )
        layout = self._sessions.layout
        self.stages = layout.stages
        self.lanes = 1
        # Hand-overs have tables of their own, so a slot has all of them: for three stages that is the peak as well.
        floats = sum(part.size for parts in layout.taken for part in parts)
        self.slot_bytes = math.prod(layout.image) + np.dtype(np.float32).itemsize * floats
        self.slots = capacity.slots(self.slot_bytes)
        self._tables = Tables(layout, self.slots, device)

    @property
    def slots_in_use(self) -> int:
        return self._tables.in_use

    def begin(self, pixels: Pixels) -> Slot:
        return self._tables.put(pixels)

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> DeviceOutput:
        session = self._sessions.of_stage[stage - 1]
        binding = session.io_binding()
        for name, value in self._tables.gather(stage, slots).items():
            binding.bind_ortvalue_input(name, value)
        names = [value.name for value in session.get_outputs()]
        for name in names:
            if name == LOGITS:
                binding.bind_output(name)
            else:
                binding.bind_output(name, self._device.memory, self._device.number)
        session.run_with_iobinding(binding)
        results: Values = dict(zip(names, binding.get_outputs(), strict=True))
        return DeviceOutput(np.array(results[LOGITS].numpy()), self._tables, stage, slots, results)

    def release(self, slot: Slot) -> None:
        self._tables.release(slot)


class Tables:
    """Images and hand-overs, one row a slot, in the device's memory; moved by index, there."""

    def __init__(self, layout: StateLayout, slots: int, device: Device) -> None:
        self._pool = SlotPool(slots)
        self._device = device
        self._layout = layout
        image = Part(IMAGE, layout.image, 0)
        self._images = self._table(slots, image, np.uint8)
        self._of_stage = [{part.name: self._table(slots, part, np.float32) for part in taken} for taken in layout.taken]
        self._put = self._session(scatter_graph([image], TensorProto.UINT8))
        self._gather = [self._session(gather_graph([image, *taken])) for taken in layout.taken]
        self._scatter = [
            self._session(scatter_graph(taken, TensorProto.FLOAT)) if taken else None for taken in layout.taken
        ]

    @property
    def in_use(self) -> int:
        return self._pool.in_use

    def put(self, pixels: Pixels) -> Slot:
        if pixels.shape != self._layout.image:
            raise ValueError(f"an image of shape {pixels.shape} was given, {self._layout.image} is taken")
        with self._pool.taking() as slot:
            binding = self._put.io_binding()
            binding.bind_cpu_input(NEXT + IMAGE, np.ascontiguousarray(pixels[None]))
            self._write(self._put, binding, [slot], [0], {IMAGE: self._images})
        return slot

    def release(self, slot: Slot) -> None:
        self._pool.give_back(slot)

    def gather(self, stage: int, slots: Sequence[Slot]) -> Values:
        """What stage `stage` takes, (B, *shape) each, on the device."""
        session = self._gather[stage - 1]
        binding = session.io_binding()
        binding.bind_cpu_input(_INDEX, np.asarray(slots, np.int64))
        names = [IMAGE, *self._of_stage[stage - 1]]
        for name, table in {IMAGE: self._images, **self._of_stage[stage - 1]}.items():
            binding.bind_ortvalue_input(_TABLE + name, table)
        for name in names:
            binding.bind_output(name, self._device.memory, self._device.number)
        session.run_with_iobinding(binding)
        return dict(zip(names, binding.get_outputs(), strict=True))

    def scatter(self, stage: int, slots: Sequence[Slot], rows: Sequence[int], values: Values) -> None:
        """Write these rows (R,) of what stage `stage` hands on into the slots (R,)."""
        if stage == self._layout.stages or (session := self._scatter[stage]) is None or not rows:
            return
        binding = session.io_binding()
        for name in self._of_stage[stage]:
            binding.bind_ortvalue_input(NEXT + name, values[NEXT + name])
        self._write(session, binding, slots, rows, self._of_stage[stage])

    def _write(
        self,
        session: ort.InferenceSession,
        binding: ort.IOBinding,
        slots: Sequence[Slot],
        rows: Sequence[int],
        tables: Values,
    ) -> None:
        binding.bind_cpu_input(_SLOTS, np.asarray(slots, np.int64)[:, None])
        binding.bind_cpu_input(_ROWS, np.asarray(rows, np.int64))
        for name, table in tables.items():
            # The same memory in and out: ScatterND then writes its updates and copies nothing else.
            binding.bind_ortvalue_input(_TABLE + name, table)
            binding.bind_ortvalue_output(name, table)
        session.run_with_iobinding(binding)

    def _table(self, slots: int, part: Part, dtype: type[np.generic]) -> ort.OrtValue:
        shape, device = [slots, *part.shape], self._device
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, device.memory, device.number)

    def _session(self, graph: bytes) -> ort.InferenceSession:
        return ort.InferenceSession(graph, session_options(1), providers=[self._device.mover])


def gather_graph(parts: Sequence[Part]) -> bytes:
    """`index` (B,) and a table (slots, *shape) for each part -> the part's rows (B, *shape)."""
    inputs = [helper.make_tensor_value_info(_INDEX, TensorProto.INT64, ["B"])]
    nodes, outputs = [], []
    for part in parts:
        kind = TensorProto.UINT8 if part.name == IMAGE else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(_TABLE + part.name, kind, ["slots", *part.shape]))
        outputs.append(helper.make_tensor_value_info(part.name, kind, ["B", *part.shape]))
        nodes.append(helper.make_node("Gather", [_TABLE + part.name, _INDEX], [part.name], axis=0))
    return _serialised("gather", nodes, inputs, outputs)


def scatter_graph(parts: Sequence[Part], kind: int) -> bytes:
    """`rows` (R,) of each part's values (B, *shape) into the rows `slots` (R, 1) of its table, which is the output."""
    inputs = [
        helper.make_tensor_value_info(_SLOTS, TensorProto.INT64, ["R", 1]),
        helper.make_tensor_value_info(_ROWS, TensorProto.INT64, ["R"]),
    ]
    nodes, outputs = [], []
    for part in parts:
        table, values, chosen = _TABLE + part.name, NEXT + part.name, f"chosen_{part.name}"
        inputs.append(helper.make_tensor_value_info(table, kind, ["slots", *part.shape]))
        inputs.append(helper.make_tensor_value_info(values, kind, ["B", *part.shape]))
        outputs.append(helper.make_tensor_value_info(part.name, kind, ["slots", *part.shape]))
        nodes.append(helper.make_node("Gather", [values, _ROWS], [chosen], axis=0))
        nodes.append(helper.make_node("ScatterND", [table, _SLOTS, chosen], [part.name]))
    return _serialised("scatter", nodes, inputs, outputs)


def _serialised(
    name: str, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> bytes:
    graph = helper.make_graph(nodes, name, inputs, outputs)
    opset = helper.make_opsetid("", _OPSET)
    data: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION).SerializeToString()
    return data
