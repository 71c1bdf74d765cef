"""Frozen dataclasses to JSON and back, strictly: a file from outside is checked key by key and type by type.

Understands dataclasses, `str`, `int`, `float`, `bool`, `X | None`, `Literal`, `tuple[X, ...]`, `dict[str, X]`, and
unions of dataclasses told apart by a `kind: Literal[...]` field.
"""

import dataclasses
import json
import math
import types
import typing
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


class SchemaError(ValueError):
    """What a file holds does not fit its schema. The message names the place, the value and what was expected."""


@dataclasses.dataclass(frozen=True)
class Version:
    """The one `schema_version` that is read, and the command that makes a file of it."""

    known: int
    way_out: str

    def check(self, found: object) -> None:
        """Raises `ValueError` that names the way out."""
        if found != self.known:
            raise ValueError(
                f"schema_version {found!r} is not {self.known}, the one this version reads; {self.way_out}"
            )


def encode(value: object) -> Any:
    """Plain JSON values of a dataclass tree; tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return value


def dumps(value: object) -> str:
    """Stable, readable JSON text of a dataclass tree. NaN and infinity are refused (`ValueError`)."""
    return json.dumps(encode(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(cls: type[T], text: str, where: str, *, version: Version | None = None) -> T:
    """Decode JSON `text` as `cls`; `where` names the file in errors. Raises `SchemaError`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise SchemaError(f"{where} is not JSON: {error}") from error
    if version is not None and isinstance(data, dict) and "schema_version" in data:
        # Before anything else: a file of a later version would else be blamed for its new keys.
        try:
            version.check(data["schema_version"])
        except ValueError as error:
            raise SchemaError(f"{where}: {error}") from error
    return decode(cls, data, where)


def decode(cls: type[T], data: object, where: str) -> T:
    """Decode parsed JSON `data` as the type `cls`. Raises `SchemaError` that names the place."""
    return typing.cast(T, _decode(cls, data, where))


def _decode(kind: Any, data: object, where: str) -> object:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type[Any], kind), data, where)
    if origin in (Union, types.UnionType):
        return _decode_union(args, data, where)
    if origin is Literal:
        if data not in args or isinstance(data, bool) != any(isinstance(arg, bool) for arg in args):
            raise SchemaError(f"{where} is {data!r}, expected one of {', '.join(map(repr, args))}")
        return data
    if origin is tuple:
        if not isinstance(data, list):
            raise SchemaError(f"{where} is {data!r}, expected a list")
        return tuple(_decode(args[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise SchemaError(f"{where} is {data!r}, expected an object")
        return {key: _decode(args[1], item, f"{where}.{key}") for key, item in data.items()}
    return _decode_scalar(kind, data, where)


def _decode_scalar(kind: type, data: object, where: str) -> object:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            data = float(data)
        except OverflowError as error:
            raise SchemaError(f"{where} is an integer of {len(str(data))} digits, expected a finite number") from error
    if type(data) is not kind:
        raise SchemaError(f"{where} is {data!r}, expected {kind.__name__}")
    if isinstance(data, float) and not math.isfinite(data):
        raise SchemaError(f"{where} is {data!r}, expected a finite number")
    return data


def _decode_union(options: tuple[Any, ...], data: object, where: str) -> object:
    if data is None and type(None) in options:
        return None
    choices = [option for option in options if option is not type(None)]
    if len(choices) == 1:
        return _decode(choices[0], data, where)
    if not isinstance(data, dict):
        raise SchemaError(f"{where} is {data!r}, expected an object")
    kinds = {typing.get_args(typing.get_type_hints(choice)["kind"])[0]: choice for choice in choices}
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise SchemaError(f"{where}.kind is {kind!r}, expected one of {', '.join(map(repr, kinds))}")
    return _decode(kinds[kind], data, where)


def _decode_dataclass(cls: type[Any], data: object, where: str) -> object:
    if not isinstance(data, dict):
        raise SchemaError(f"{where} is {data!r}, expected an object")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise SchemaError(f"{where} has unknown keys {', '.join(unknown)}; known are {', '.join(fields)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in data and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise SchemaError(f"{where} lacks {', '.join(missing)}")
    values = {name: _decode(hints[name], item, f"{where}.{name}") for name, item in data.items()}
    try:
        return cls(**values)
    except SchemaError:
        raise
    except ValueError as error:
        raise SchemaError(f"{where}: {error}") from error
