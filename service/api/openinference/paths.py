"""Paths of the one model that is served, each with and without its version."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, Request

from service.api.deps import service_of
from service.api.openinference.model import VERSION
from service.errors import UnknownModelError

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])

TAG = "open inference protocol"


async def _check_model(request: Request, model: str) -> None:
    served = service_of(request).model.name
    if model != served:
        raise UnknownModelError(f"there is no model {model[:64]!r}, this service serves {served!r}")


async def _check_version(request: Request, model: str, version: str) -> None:
    await _check_model(request, model)
    if version != VERSION:
        raise UnknownModelError(f"model {model!r} has no version {version[:64]!r}, only {VERSION!r}")


def of_model(router: APIRouter, method: str, path: str, **route: Any) -> Callable[[_Endpoint], _Endpoint]:
    """Adds an endpoint below the model's path, which answers for that model alone: else `UnknownModelError`."""

    def add(endpoint: _Endpoint) -> _Endpoint:
        for start, check in (
            ("/v2/models/{model}", _check_model),
            ("/v2/models/{model}/versions/{version}", _check_version),
        ):
            router.add_api_route(start + path, endpoint, methods=[method], dependencies=[Depends(check)], **route)
        return endpoint

    return add
