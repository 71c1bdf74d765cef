"""The one place that turns errors into problem documents (RFC 9457), and the one that counts them.

Under `/v2` they leave in the form of the Open Inference Protocol instead.
"""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from service.api.deps import Service, service_of
from service.api.schemas import PROBLEM_JSON, Problem
from service.errors import (
    ClientClosedError,
    InvalidParameterError,
    MethodNotAllowedError,
    NotFoundError,
    ServiceError,
)

REQUEST_ID = "dvt.request_id"


def request_id_of(request: Request) -> str:
    return str(request.scope[REQUEST_ID])


def problem_of(service: Service, error: ServiceError, request_id: str) -> Problem:
    """The problem document of an error; counts it."""
    service.metrics.refusal(error.code)
    return Problem(
        type=f"urn:dvt:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        **error.more,
    )


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(problem.model_dump(), problem.status, dict(headers or {}), PROBLEM_JSON)


def respond(service: Service, error: ServiceError, scope: Scope) -> Response:
    """The answer to a request that fails as a whole, in the form that its path's clients read."""
    problem = problem_of(service, error, str(scope[REQUEST_ID]))
    path = scope["path"]
    if path == "/v2" or path.startswith("/v2/"):
        return JSONResponse({"error": problem.detail}, problem.status, dict(error.headers))
    return problem_response(problem, error.headers)


def add_handlers(app: FastAPI) -> None:
    """Every error, ours or the framework's, leaves as a problem document (bugs do in the gate)."""

    async def on_service_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        return respond(service_of(request), error, request.scope)

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond(service_of(request), _of_framework(request, error), request.scope)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(service_of(request), _of_validation(error), request.scope)

    async def on_disconnect(request: Request, _: Exception) -> Response:
        return respond(service_of(request), ClientClosedError("the client left"), request.scope)

    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(ClientDisconnect, on_disconnect)


def _of_framework(request: Request, error: HTTPException) -> ServiceError:
    path = request.url.path[:128]
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        return MethodNotAllowedError(
            f"{path} does not know {request.method[:16]}, only {allow}", headers={"Allow": allow}
        )
    if error.status_code == 404:
        return NotFoundError(f"there is nothing at {path}; /docs shows what there is")
    return InvalidParameterError(str(error.detail))


def _of_validation(error: RequestValidationError) -> InvalidParameterError:
    """The first thing wrong: which parameter, its value, what was expected."""
    return invalid_parameter(error.errors()[0])


def invalid_parameter(problem: Mapping[str, object]) -> InvalidParameterError:
    """Of one entry of pydantic's list of errors."""
    place = problem["loc"]
    assert isinstance(place, tuple)
    name = ".".join(str(part) for part in place if part not in ("query", "body")) or "the body"
    if problem["type"] == "extra_forbidden":
        return InvalidParameterError(f"there is no parameter {name[:64]!r}; /docs shows those that there are")
    value = repr(problem.get("input"))[:64]
    return InvalidParameterError(f"{name[:64]} is {value}: {problem['msg']}")
