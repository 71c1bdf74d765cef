"""Which weights an ONNX graph leaves outside its file, read without the `onnx` package (20 MB that serving can spare).

Only the names of external initializers are wanted, a few fields deep in the protocol buffer: ModelProto.graph = 7,
GraphProto.initializer = 5, TensorProto.name = 8 and data_location = 14 (1 is EXTERNAL); see onnx.proto of ONNX 1.18.
"""

from collections.abc import Iterator

_GRAPH, _INITIALIZER, _NAME, _DATA_LOCATION = 7, 5, 8, 14
_EXTERNAL = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_initializers(model: bytes) -> tuple[str, ...]:
    """Names of the graph's initializers whose data lies elsewhere. Raises `ValueError` for what is no ONNX model."""
    names = []
    for graph in _messages(model, _GRAPH):
        for tensor in _messages(graph, _INITIALIZER):
            fields = dict(_fields(tensor))
            name, location = fields.get(_NAME), fields.get(_DATA_LOCATION, 0)
            if location == _EXTERNAL and isinstance(name, bytes):
                names.append(name.decode())
    return tuple(names)


def _messages(data: bytes, number: int) -> Iterator[bytes]:
    for field, value in _fields(data):
        if field == number and isinstance(value, bytes):
            yield value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of one message (https://protobuf.dev/programming-guides/encoding)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if kind == _BYTES else ({_FIXED64: 8, _FIXED32: 4}.get(kind, -1), at)
            if size < 0 or at + size > len(data):
                raise ValueError("not an ONNX model: a field does not end within the file")
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("not an ONNX model: a number does not end within the file")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
