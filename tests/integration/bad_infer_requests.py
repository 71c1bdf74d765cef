"""Requests under `/v2` that are wrong, each in a way of its own, for a service of images of 8 px and small limits."""

import gzip
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.integration.infer_requests import files
from tests.service.cascades import picture

KIND = 4
GOOD = picture(KIND)
HEADER = "Inference-Header-Content-Length"
GZIP = {"Content-Encoding": "gzip"}
SIDES = [3, 8, 8]
MANY = 10**18


@dataclass(frozen=True)
class Case:
    """A request, and what its error must say."""

    name: str
    status: int
    says: tuple[str, ...]
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def sent(document: object) -> bytes:
    return json.dumps(document).encode()


def one(**changes: Any) -> bytes:
    """The one input, with something wrong."""
    return sent({"inputs": [{**files(KIND)["inputs"][0], **changes}]})


def asked(**changes: Any) -> bytes:
    """A good input, and something else wrong."""
    return sent({**files(KIND), **changes})


def parameters(**changes: Any) -> bytes:
    return asked(parameters=changes)


def binary(called: str, status: int, says: tuple[str, ...], behind: bytes, header: str = "", **tensor: Any) -> Case:
    """An input with `behind` after the JSON."""
    whole = {
        "name": "image",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(behind)},
        **tensor,
    }
    text = sent({"inputs": [whole]})
    return Case(called, status, says, text + behind, {HEADER: header or str(len(text))})


def element(data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<I", len(data) if length is None else length) + data


def floats(value: float) -> bytes:
    array = np.full((1, 3, 8, 8), 0.5, "<f4")
    array[0, 1, 2, 3] = value
    return array.tobytes()


PIXELS: dict[str, Any] = {"name": "pixels", "shape": [1, *SIDES], "datatype": "UINT8"}
FLOATS = {**PIXELS, "datatype": "FP32"}
SIZE = 3 * 8 * 8

CASES = (
    Case("no body", 400, ("0 bytes", '"inputs"'), b""),
    Case("no json", 400, ("not JSON",), b"hello"),
    Case("an image", 400, ("not JSON",), GOOD),
    Case("cut off", 400, ("not JSON",), one()[:-5]),
    Case("deep json", 400, ("not JSON",), b'{"inputs":' + b"[" * 900),
    Case("far deeper json", 400, ("lists and objects",), b'{"inputs":' + b"[" * 9000),
    Case("a list of lists", 400, ("lists and objects",), b"[" + b"[]," * 6000 + b"[]]"),
    Case("endless numbers", 400, ("commas, far more",), sent({"inputs": [{**PIXELS, "data": [0] * 3000}]})),
    Case("a list", 400, ("JSON object",), b"[]"),
    Case("null", 400, ("JSON object",), b"null"),
    Case("no inputs", 400, ("no `inputs`",), b"{}"),
    Case("empty inputs", 400, ("no `inputs`",), sent({"inputs": []})),
    Case("inputs of another kind", 400, ("`inputs` must be a list",), sent({"inputs": {"image": 1}})),
    Case("an input of another kind", 400, ("inputs[0] must be a JSON object",), sent({"inputs": ["image"]})),
    Case("too many inputs", 400, ("17 inputs", "16"), sent({"inputs": files(KIND)["inputs"] * 17})),
    Case("unknown key", 400, ("'input'", "inputs"), asked(input=[])),
    Case("unknown key of an input", 400, ("inputs[0]", "'dtype'"), one(dtype="BYTES")),
    Case("many unknown keys", 400, ("'k0'",), sent({f"k{number}": 0 for number in range(1500)})),
    Case("id of another kind", 400, ("`id`",), asked(id=7)),
    Case("endless id", 422, ("id has 300",), asked(id="x" * 300)),
    Case("another model", 400, ("model_name",), asked(model_name="other")),
    Case("no name", 400, ("inputs[0] needs a `name`",), one(name=None)),
    Case("unknown input", 400, ("'photo'", "'image' or 'pixels'"), one(name="photo")),
    Case("an input twice", 400, ("'image', 'image'", "send one"), sent({"inputs": files(KIND)["inputs"] * 2})),
    Case(
        "both inputs",
        400,
        ("'image', 'pixels'",),
        sent({"inputs": [*files(KIND)["inputs"], {**PIXELS, "data": [0] * SIZE}]}),
    ),
    Case("wrong datatype", 400, ("'UINT8'", "BYTES"), one(datatype="UINT8")),
    Case("no datatype at all", 400, ("datatype",), one(datatype=None)),
    Case("datatype that is not", 400, ("'STRING'",), one(datatype="STRING")),
    Case("no shape", 400, ("needs a `shape`",), one(shape=None)),
    Case("empty shape", 400, ("needs a `shape`",), one(shape=[])),
    Case("shape of too many axes", 400, ("1 to 8",), one(shape=[1] * 9)),
    Case("negative size", 400, ("-1", "from 0 up"), one(shape=[-1, 1])),
    Case("size of true", 400, ("True",), one(shape=[True, 1])),
    Case("size of a half", 400, ("0.5",), one(shape=[0.5, 1])),
    Case("size in words", 400, ("'1'",), one(shape=["1", 1])),
    Case("no images", 400, ("at least one",), one(shape=[0, 1], data=[])),
    Case("wrong shape", 400, ("[1, 2]", "[n, 1]"), one(shape=[1, 2])),
    Case("too many images", 413, ("4 images", "3", "DVT_MAX_IMAGES"), one(shape=[4, 1])),
    Case("far too many images", 413, (str(MANY), "3"), one(shape=[MANY, 1])),
    Case("more than there are", 400, ("1 elements", "[2, 1] 2"), one(shape=[2, 1])),
    Case("fewer than there are", 400, ("2 elements",), one(data=["", ""])),
    Case("no data", 400, ("neither", "binary_data_size"), one(data=None)),
    Case("data of another kind", 400, ("list `data`",), one(data="AAAA")),
    Case("no base64", 400, ("data[0]", "RFC 4648"), one(data=["\u00ff\u00d8"])),
    Case("no text", 400, ("data[0] is no string",), one(data=[7])),
    Case("base64 of no image", 415, ("JPEG",), one(data=["dGV4dCE="])),
    Case("empty base64", 400, ("0 bytes",), one(data=[""])),
    Case("too long base64", 413, ("5000", "DVT_MAX_IMAGE_BYTES"), one(data=["A" * 9000])),
    Case("nested data of another shape", 400, ("nested",), one(data=[["AA", "AA"]])),
    Case("shared memory", 400, ("shared memory",), one(data=None, parameters={"shared_memory_region": "x"})),
    Case("unknown parameter of an input", 422, ("'zip'",), one(parameters={"zip": 1})),
    Case("parameters of another kind", 400, ("`parameters`",), one(parameters=[1])),
    Case("pixels too few", 400, ("191 elements",), sent({"inputs": [{**PIXELS, "data": [0] * (SIZE - 1)}]})),
    Case(
        "pixels of another size",
        400,
        ("[n, 3, 8, 8]",),
        sent({"inputs": [{**PIXELS, "shape": [1, 3, 9, 9], "data": []}]}),
    ),
    Case("pixels without images", 400, ("[3, 8, 8]",), sent({"inputs": [{**PIXELS, "shape": SIDES, "data": []}]})),
    Case("pixels last", 400, ("[1, 8, 8, 3]",), sent({"inputs": [{**PIXELS, "shape": [1, 8, 8, 3], "data": []}]})),
    Case("huge pixels", 400, ("expected [n, 3",), sent({"inputs": [{**PIXELS, "shape": [3, MANY, MANY], "data": []}]})),
    Case("pixels of INT64", 400, ("'INT64'",), sent({"inputs": [{**PIXELS, "datatype": "INT64", "data": [0] * SIZE}]})),
    Case("pixels of 256", 400, ("256",), sent({"inputs": [{**PIXELS, "data": [256] * SIZE}]})),
    Case("pixels below 0", 400, ("UINT8",), sent({"inputs": [{**PIXELS, "data": [-1] * SIZE}]})),
    Case("pixels of halves", 400, ("type float",), sent({"inputs": [{**PIXELS, "data": [0.5] * SIZE}]})),
    Case("pixels of true", 400, ("type bool",), sent({"inputs": [{**PIXELS, "data": [True] * SIZE}]})),
    Case("pixels of null", 400, ("NoneType",), sent({"inputs": [{**FLOATS, "data": [None] * SIZE}]})),
    Case("pixels in words", 400, ("type str",), sent({"inputs": [{**FLOATS, "data": ["0"] * SIZE}]})),
    Case("pixels of lists", 400, ("nested",), sent({"inputs": [{**FLOATS, "data": [[0], [0, 0]]}]})),
    Case("astronomic pixels", 400, ("FP32",), sent({"inputs": [{**FLOATS, "data": [10**400] + [0] * (SIZE - 1)}]})),
    Case("fp32 of 255", 400, ("to 255", "0..1"), sent({"inputs": [{**FLOATS, "data": [255] * SIZE}]})),
    Case("fp32 below 0", 400, ("-0.5", "0..1"), sent({"inputs": [{**FLOATS, "data": [-0.5] * SIZE}]})),
    Case("fp32 nan in json", 400, ("nan", "0..1"), sent({"inputs": [{**FLOATS, "data": [float("nan")] * SIZE}]})),
    binary("nan", 400, ("nan", "0..1"), floats(float("nan")), **FLOATS),
    binary("inf", 400, ("inf", "0..1"), floats(float("inf")), **FLOATS),
    binary("minus inf", 400, ("-inf", "0..1"), floats(float("-inf")), **FLOATS),
    binary("the largest float", 400, ("3.40282e+38",), floats(3.4028235e38), **FLOATS),
    binary("binary pixels too few", 400, ("191 bytes", "takes 192"), bytes(SIZE - 1), **PIXELS),
    binary("binary pixels of a quarter", 400, ("192 bytes", "takes 768"), bytes(SIZE), **FLOATS),
    binary("json longer than the body", 400, (HEADER, "99999"), element(GOOD), header="99999"),
    binary("json of no length", 400, (HEADER, "'0'"), element(GOOD), header="0"),
    binary("json of negative length", 400, (HEADER, "'-5'"), element(GOOD), header="-5"),
    binary("json of a length in words", 400, (HEADER, "'all'"), element(GOOD), header="all"),
    binary("json of endless length", 400, (HEADER,), element(GOOD), header="9" * 5000),
    binary("json of a length too short", 400, ("not JSON",), element(GOOD), header="20"),
    binary("lying size", 400, ("1000", "are left"), element(GOOD), parameters={"binary_data_size": 1000}),
    binary("size of less", 400, ("claim 4 of them",), element(GOOD), parameters={"binary_data_size": 4}),
    binary("negative binary size", 400, ("-1",), element(GOOD), parameters={"binary_data_size": -1}),
    binary("size of true", 400, ("True",), element(GOOD), parameters={"binary_data_size": True}),
    binary("astronomic size", 400, ("are left",), element(GOOD), parameters={"binary_data_size": MANY}),
    binary("data both ways", 400, ("`data` too",), element(GOOD), data=["AAAA"]),
    binary("element of a lying length", 400, ("4294967295 bytes", "are left"), element(GOOD, 2**32 - 1)),
    binary("element of a short length", 400, ("bytes after the last of 1",), element(GOOD, 5)),
    binary("half a length", 400, ("ends after 0 of 1",), b"\1\0"),
    binary("an element too few", 400, ("ends after 1 of 2",), element(GOOD), shape=[2]),
    binary("an element too many", 400, ("after the last of 1",), element(GOOD) * 2),
    binary("empty element", 400, ("0 bytes",), element(b"")),
    binary("element of no image", 415, ("JPEG",), element(b"text")),
    binary("element too long", 413, ("6000 bytes", "DVT_MAX_IMAGE_BYTES"), element(GOOD + bytes(6000 - len(GOOD)))),
    Case("size without data", 400, ("0 bytes",), one(data=None, parameters={"binary_data_size": 9})),
    Case("outputs of another kind", 400, ("`outputs` must be a list",), asked(outputs="label")),
    Case("unknown output", 400, ("'score'", "probabilities, label"), asked(outputs=[{"name": "score"}])),
    Case("output without a name", 400, ("outputs[0] needs a `name`",), asked(outputs=[{}])),
    Case("an output twice", 400, ("'label'", "twice"), asked(outputs=[{"name": "label"}] * 2)),
    Case(
        "class count of 0",
        422,
        ("classification is 0",),
        asked(outputs=[{"name": "probabilities", "parameters": {"classification": 0}}]),
    ),
    Case(
        "classes of a label",
        400,
        ("'probabilities'",),
        asked(outputs=[{"name": "label", "parameters": {"classification": 1}}]),
    ),
    Case(
        "output into shared memory",
        400,
        ("shared memory",),
        asked(outputs=[{"name": "label", "parameters": {"shared_memory_region": "x"}}]),
    ),
    Case(
        "binary or not",
        422,
        ("binary_data is 'yes'",),
        asked(outputs=[{"name": "label", "parameters": {"binary_data": "yes"}}]),
    ),
    Case("misspelt parameter", 422, ("'profil'",), parameters(profil="fast")),
    Case("unknown profile", 422, ("'turbo'", "fast, balanced"), parameters(profile="turbo")),
    Case("profile of a list", 422, ("'profile' is a list",), parameters(profile=["fast"])),
    Case("priority too low", 422, ("priority",), parameters(priority=10)),
    Case("priority below 0", 422, ("priority",), parameters(priority=-1)),
    Case("timeout below 0", 422, ("timeout is -1", "microseconds"), parameters(timeout=-1)),
    Case("endless timeout", 422, ("timeout",), parameters(timeout=10**30)),
    Case("timeout of a half", 422, ("timeout is 0.5",), parameters(timeout=0.5)),
    Case("two deadlines", 422, ("timeout and deadline_ms",), parameters(timeout=5, deadline_ms=5)),
    Case("deadline of nan", 422, ("deadline_ms",), parameters(deadline_ms=float("nan"))),
    Case("thresholds that are too few", 422, ("1 entries",), parameters(thresholds="0.5")),
    Case("two ways to say when", 422, ("profile and min_confidence",), parameters(profile="fast", min_confidence=0.5)),
    Case("a sequence", 422, ("sequences",), parameters(sequence_id=7, sequence_start=True, sequence_end=False)),
    Case("top_k", 422, ("`classification`",), parameters(top_k=2)),
    Case("binary output or not", 422, ("binary_data_output",), parameters(binary_data_output=1)),
    Case("many parameters", 422, ("100 parameters",), parameters(**{f"p{number}": 1 for number in range(100)})),
    Case(
        "gzip bomb", 413, ("expand to more than 20000",), gzip.compress(bytes(10 << 20)), {"Content-Encoding": "gzip"}
    ),
    Case(
        "deflate bomb",
        413,
        ("expand to more than 20000",),
        zlib.compress(bytes(10 << 20)),
        {"Content-Encoding": "deflate"},
    ),
    Case(
        "bomb in a bomb",
        415,
        ("'gzip, gzip'",),
        gzip.compress(gzip.compress(one())),
        {"Content-Encoding": "gzip, gzip"},
    ),
    Case("brotli", 415, ("'br'", "gzip or deflate"), b"\x0b", {"Content-Encoding": "br"}),
    Case("gzip that is none", 400, ("cannot be expanded by gzip",), one(), GZIP),
    Case("gzip cut off", 400, ("cut off",), gzip.compress(one())[:-4], GZIP),
    Case("nothing, by gzip", 400, ("0 bytes",), gzip.compress(b""), GZIP),
    Case("too many bytes of body", 413, ("20001", "DVT_MAX_BODY_BYTES"), bytes(20_001)),
)
