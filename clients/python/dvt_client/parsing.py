"""JSON to frozen dataclasses: by their annotations, with whatever the server has learnt to say since left out."""

import json
import types
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from dvt_client.errors import AnswerError, Problem

T = TypeVar("T")

_Hints = Mapping[str, Any]


def load(body: bytes) -> object:
    """The JSON value of a body. Raises `AnswerError`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"the server's answer is no JSON: {error}") from error


def read(kind: type[T], value: object, place: str = "the answer") -> T:
    """`value` as a `kind`, a dataclass. Keys that it does not know are left out; one that is missing has its default.

    Raises `AnswerError` that names the place of what is missing or of another type.
    """
    if not isinstance(value, dict):
        raise AnswerError(f"{place} is {_shown(value)}, expected an object")
    hints, given = _hints(cast(Hashable, kind)), {}
    for field in fields(cast(Any, kind)):
        if field.name in value:
            given[field.name] = _convert(hints[field.name], value[field.name], f"{place}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise AnswerError(f"{place} has no {field.name!r}")
    return kind(**given)


def read_problem(value: object, place: str = "the answer") -> Problem:
    """A problem document with all that stands in it. Raises `AnswerError` for what is none."""
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("code"), str)
        or not isinstance(value.get("status"), int)
    ):
        raise AnswerError(f"{place} is {_shown(value)}, expected a problem document")
    known = {name: str(value.get(name) or "") for name in ("code", "title", "detail", "request_id", "type")}
    more = {name: each for name, each in value.items() if name not in known and name != "status"}
    return Problem(status=value["status"], more=more, **known)


@cache
def _hints(kind: Hashable) -> _Hints:
    return get_type_hints(cast(Any, kind))


def _convert(hint: Any, value: object, place: str) -> object:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(hint), value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise AnswerError(f"{place} is {_shown(value)}, expected a list")
        each = get_args(hint)[0]
        return tuple(_convert(each, item, f"{place}[{number}]") for number, item in enumerate(value))
    if hint is Problem:
        return read_problem(value, place)
    if is_dataclass(hint):
        return read(cast(type, hint), value, place)
    if origin in (dict, Mapping):
        hint = dict
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise AnswerError(f"{place} is {_shown(value)}, expected {hint.__name__}")
    return value


def _one_of(hints: tuple[Any, ...], value: object, place: str) -> object:
    """By the first alternative that fits."""
    if value is None and type(None) in hints:
        return None
    told: AnswerError | None = None
    for hint in hints:
        if hint is type(None):
            continue
        try:
            return _convert(hint, value, place)
        except AnswerError as error:
            told = told or error
    assert told is not None
    raise told


def _shown(value: object) -> str:
    return repr(value)[:64]
