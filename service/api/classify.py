"""`POST /classify`: images in, in one of three forms; for each the answer of an exit, or its own error."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ValidationError

from service.api.answers import response_of, result_of
from service.api.body import INLINE_BYTES, BodyLimits, ImageInput, images_of, read_body
from service.api.deps import Service, check_engine, count_body, query_of, service_of
from service.api.events import EVENTS_DOC, EventStream, Outbox, tell_all, wants_events
from service.api.handlers import invalid_parameter, request_id_of
from service.api.keys import Caller
from service.api.plain import PlainRoute
from service.api.schemas import (
    ClassifyQuery,
    ClassifyResponse,
    problems,
    query_parameters,
)
from service.api.tickets import Order, finish_all, under_way, until_gone
from service.engine.budget import confidence_rule
from service.engine.catalogue import BudgetRequest, Resolved
from service.errors import (
    InvalidParameterError,
    InvalidThresholdsError,
)
from service.types import Answer, ExitRule, Thresholds

router = APIRouter(tags=["classify"], route_class=PlainRoute)

_BINARY = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "array", "items": _BINARY}},
            },
            "encoding": {"image": {"style": "form", "explode": True}},
        },
        "application/octet-stream": {"schema": _BINARY},
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": {"type": "array", "items": {"type": "string", "format": "byte"}}},
            }
        },
    },
}


@router.post(
    "/classify",
    response_model=ClassifyResponse,
    responses={200: EVENTS_DOC, **problems(400, 401, 403, 408, 413, 415, 422, 500, 503, 504)},
    openapi_extra={"parameters": query_parameters(ClassifyQuery), "requestBody": _BODY},
    summary="Classify images",
)
async def classify(request: Request) -> Response:
    """Images as a multipart field `image` (repeatable), as a raw body, or as base64 in JSON.

    200 if any image succeeded, with each failed one's problem document in its place; else the status of the error.
    With `Accept: text/event-stream` a stream of events, the exits of each image as it reaches them.
    """
    service = service_of(request)
    order = read_order(service, read_query(request), owner_of(request), request.scope["dvt.arrived_s"])
    check_engine(service)
    if wants_events(request):
        return EventStream(request, order, lambda outbox: _tell(request, service, order, outbox))
    with service.admission.request(), service.admission.body() as take:
        images = await _read_images(request, service, order, take)
        finished = await until_gone(request, finish_all(service, order, images))
    results = [
        result_of(service, order, one, one.outcome) if isinstance(one.outcome, Answer) else one.outcome
        for one in finished
    ]
    return response_of(service, order, request_id_of(request), results)


async def _tell(request: Request, service: Service, order: Order, outbox: Outbox) -> None:
    """The same as events."""
    with service.admission.request(), service.admission.body() as take:
        images = await _read_images(request, service, order, take)
        async with under_way(service, order, images, tells_exits=True) as mailbox:
            outbox.open()
            await tell_all(request, order, len(images), mailbox, outbox)


async def _read_images(
    request: Request, service: Service, order: Order, take: Callable[[int], None]
) -> tuple[ImageInput, ...]:
    limits = body_limits(service)
    body = await read_body(request.stream(), request.headers.get("content-length"), limits, take)
    count_body(service, order.arrived_s)
    content_type = request.headers.get("content-type", "")
    if len(body) <= INLINE_BYTES:
        return images_of(body, content_type, limits)
    return await asyncio.to_thread(images_of, body, content_type, limits)


def read_query(request: Request) -> ClassifyQuery:
    """The parameters, or `InvalidParameterError`. By hand: as FastAPI's dependencies they cost a request 60 us more."""
    try:
        return ClassifyQuery.model_validate(query_of(request))
    except ValidationError as error:
        raise invalid_parameter(dict(error.errors()[0])) from error


def owner_of(request: Request) -> str:
    """Who is charged for a request: the key that it came with, or else its address. One string for each, however many
    results remember it."""
    caller: Caller | None = request.scope.get("dvt.caller")
    if caller is not None:
        return sys.intern(f"key {caller.name}")
    return sys.intern(request.client.host) if request.client is not None else ""


def read_order(service: Service, query: ClassifyQuery, owner: str, arrived_s: float) -> Order:
    """What the parameters ask for. Raises a `ServiceError` for what this bundle or this operator does not allow."""
    exits = service.model.config.exits
    own = [name for name in ("profile", "thresholds", "min_confidence") if getattr(query, name) is not None]
    if len(own) > 1:
        raise InvalidParameterError(f"{' and '.join(own)} exclude each other; send one of them")
    if query.max_exit is not None and query.max_exit > exits:
        raise InvalidParameterError(f"max_exit is {query.max_exit}, this cascade has exits 1 to {exits}")
    in_force = service.budget.in_force
    resolved = in_force.point
    if own:
        resolved = _asked(service, query, exits)
        service.budget.check_ceiling(resolved)
    rule = ExitRule(resolved.thresholds, query.max_exit or exits)
    deadline_s = None if query.deadline_ms is None else arrived_s + query.deadline_ms / 1000
    top_k = min(query.top_k or service.settings.top_k, service.model.config.classes)
    return Order(
        rule=rule,
        resolved=resolved,
        by_budget=not own and query.max_exit is None,
        revision=in_force.revision,
        operating_point=in_force.operating_point,
        top_k=top_k,
        classes=top_k,
        priority=query.priority,
        owner=owner,
        arrived_s=arrived_s,
        deadline_s=deadline_s,
    )


def _asked(service: Service, query: ClassifyQuery, exits: int) -> Resolved:
    if query.profile is not None:
        request = BudgetRequest(profile=query.profile)
    elif query.thresholds is not None:
        request = BudgetRequest(thresholds=parse_thresholds(query.thresholds))
    else:
        assert query.min_confidence is not None
        request = BudgetRequest(thresholds=confidence_rule(exits, query.min_confidence))
    return service.budget.catalogue.resolve(request)


def parse_thresholds(text: str) -> Thresholds:
    """`0.9,null` as (0.9, None). Raises `InvalidThresholdsError`."""
    words = [word.strip() for word in text.removeprefix("[").removesuffix("]").split(",")] if text.strip("[] ") else []
    try:
        return tuple(None if word == "null" else float(word) for word in words)
    except ValueError as error:
        raise InvalidThresholdsError(
            f"thresholds is {text[:64]!r}; write numbers 0..1, or null for never, with commas between: 0.9,null"
        ) from error


def body_limits(service: Service) -> BodyLimits:
    settings = service.settings
    return BodyLimits(settings.max_body_bytes, settings.max_image_bytes, settings.max_images, settings.body_seconds)
