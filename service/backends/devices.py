"""Which devices a process computes on, as an operator writes it: `auto`, `cpu`, `cuda`, `cuda:1`, `cuda:0,cuda:2`."""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cpu", "cuda", "tensorrt"]

_NUMBERED = re.compile(r"(cuda|tensorrt):(\d{1,4})", re.ASCII)
_WAY_OUT = "write auto, cpu, cuda, tensorrt, or some of a kind by number: cuda:1, or cuda:0,cuda:2"


@dataclass(frozen=True)
class Device:
    """`tensorrt` is a CUDA device too, through that compiler. Numbers are CUDA's, among those that the process sees."""

    kind: Kind
    number: int = 0

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"{self.kind}:{self.number}"


@dataclass(frozen=True)
class DevicesAsked:
    """Of one kind; `numbers` in the order written, empty for all that there are."""

    kind: Literal["auto"] | Kind
    numbers: tuple[int, ...] = ()


def parse_devices(text: str) -> DevicesAsked:
    """Raises `ValueError` with the way out."""
    written = text.strip()
    for kind in ("auto", "cpu", "cuda", "tensorrt"):
        if written == kind:
            return DevicesAsked(kind)
    parts = [part.strip() for part in written.split(",")]
    found = [_NUMBERED.fullmatch(part) for part in parts]
    for part, match in zip(parts, found, strict=True):
        if match is None:
            raise ValueError(f"{part!r} is no device by number; {_WAY_OUT}" if len(parts) > 1 else _WAY_OUT)
    devices = [match.groups() for match in found if match is not None]
    kinds, numbers = {kind for kind, _ in devices}, [int(number) for _, number in devices]
    if len(kinds) > 1:
        raise ValueError("the devices of one process must be of one kind, cuda or tensorrt")
    if len(set(numbers)) < len(numbers):
        raise ValueError("it names a device twice")
    return DevicesAsked("cuda" if kinds == {"cuda"} else "tensorrt", tuple(numbers))
