"""A request's parameters: the protocol's own `priority` and `timeout`, and those of `POST /classify`."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from service.api.handlers import invalid_parameter
from service.api.schemas import ClassifyQuery
from service.errors import InvalidParameterError

# Not for the query that is made of them.
_OF_THE_PROTOCOL = ("binary_data_output", "content_type")
_MOST = 64


def read_parameters(parameters: Mapping[str, Any], url_query: Mapping[str, str]) -> ClassifyQuery:
    """What both ask for, as `POST /classify` would be asked. Raises `InvalidParameterError`."""
    both = sorted(parameters.keys() & url_query.keys())
    if both:
        raise InvalidParameterError(f"{both[0][:64]!r} is a parameter both of the request and of its URL; send it once")
    asked: dict[str, Any] = {**url_query, **parameters}
    if len(asked) > _MOST:
        raise InvalidParameterError(f"the request has {len(asked)} parameters, the limit is {_MOST}")
    for name in _OF_THE_PROTOCOL:
        asked.pop(name, None)
    if any(name.startswith("sequence_") for name in asked):
        raise InvalidParameterError("sequences are not known here: every image is answered by itself")
    if "top_k" in asked:
        raise InvalidParameterError("there is no top_k here; ask for the output probabilities with `classification`")
    wrong = next((name for name, value in asked.items() if not isinstance(value, (str, int, float))), None)
    if wrong is not None:
        raise InvalidParameterError(f"parameter {wrong[:64]!r} is a {type(asked[wrong]).__name__}, expected one value")
    if str(asked.get("priority")) == "0":  # The protocol's word for the default.
        del asked["priority"]
    timeout_us = _timeout_us(asked.pop("timeout", None))
    if timeout_us:
        if "deadline_ms" in asked:
            raise InvalidParameterError("timeout and deadline_ms exclude each other; send one of them")
        asked["deadline_ms"] = timeout_us / 1000
    try:
        return ClassifyQuery.model_validate({**asked, "top_k": 1})  # `label` tells one, `probabilities` all.
    except ValidationError as error:
        raise invalid_parameter(dict(error.errors()[0])) from error


def _timeout_us(value: object) -> int:
    """0, as without one, means that there is no hurry."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= 3_600_000_000:
        raise InvalidParameterError(
            f"timeout is {repr(value)[:64]}, expected microseconds: 1 to 3600000000, 0 for none"
        )
    return value
