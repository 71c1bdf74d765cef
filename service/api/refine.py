"""`POST /classify/{id}/refine`: a better answer to an image that was answered before, from where that left off."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ConfigDict, Field, ValidationError

from service.api.answers import response_of, result_of
from service.api.body import BodyLimits, parse_json, read_body
from service.api.classify import owner_of
from service.api.deps import Service, check_engine, query_of, service_of
from service.api.events import EVENTS_DOC, EventStream, Outbox, tell_all, wants_events
from service.api.handlers import invalid_parameter, request_id_of
from service.api.refinement import refining, state_gone
from service.api.schemas import ClassifyResponse, CommonQuery, Strict, problems, query_parameters
from service.api.tickets import Finished, Order, first_finished, until_gone
from service.engine.budget import confidence_rule
from service.engine.catalogue import BudgetRequest
from service.engine.kept import Remembered
from service.errors import EmptyBodyError, InvalidParameterError
from service.types import Answer, ExitRule, Thresholds

router = APIRouter(tags=["classify"])

_BODY_LIMITS = BodyLimits(body_bytes=4096, image_bytes=0, images=0, seconds=10.0)
_OPENAPI_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/RefineBody"}}},
}
_FORMS = 'send JSON, one of {"to": "next"}, {"to": "final"}, {"to": 2} and {"min_confidence": 0.9}'


class RefineBody(Strict):
    """What `POST /classify/{id}/refine` takes, one of the two: an exit, or how confident the answer is to be."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"to": "next"}, {"to": "final"}, {"min_confidence": 0.9}]}
    )

    to: Annotated[
        Literal["next", "final"] | Annotated[int, Field(ge=1)] | None,
        Field(description="The exit after the one answered with, the last one, or that of a number (from 1)."),
    ] = None
    min_confidence: Annotated[
        float | None, Field(ge=0, le=1, description="The first exit, from the one answered with, that is so confident.")
    ] = None


@router.post(
    "/classify/{id}/refine",
    response_model=ClassifyResponse,
    responses={200: EVENTS_DOC, **problems(400, 401, 403, 408, 410, 413, 422, 500, 503, 504)},
    openapi_extra={"parameters": query_parameters(CommonQuery), "requestBody": _OPENAPI_BODY},
    summary="Refine an answer",
)
async def refine(id: str, request: Request) -> Response:  # noqa: A002 (the name in the path)
    """By the `id` of a result, with the key (or from the address) that asked for it, within `DVT_REFINE_SECONDS`.
    Stages that were run are not run again; an exit that was reached is given as it is: of it no more predictions may be
    known than were asked for then, or 16, and a larger `top_k` gets these."""
    service = service_of(request)
    query = _read_query(request)
    check_engine(service)
    with service.admission.body() as take:
        body = await read_body(request.stream(), request.headers.get("content-length"), _BODY_LIMITS, take)
    wish = read_wish(body, service.model.config.exits)
    owner = owner_of(request)
    found = service.kept.answer(id, owner)
    if found is None:
        service.metrics.reuse("refine", "missed")
        raise state_gone()
    order = _order(service, query, wish, found, owner, request.scope["dvt.arrived_s"])
    if wants_events(request):
        return EventStream(request, order, lambda outbox: _tell(request, service, order, id, found, outbox))
    with service.admission.request():
        finished = await until_gone(request, _finish(service, order, found))
    outcome = finished.outcome
    result = result_of(service, order, finished, outcome, id) if isinstance(outcome, Answer) else outcome
    return response_of(service, order, request_id_of(request), [result])


async def _finish(service: Service, order: Order, found: Remembered) -> Finished:
    async with refining(service, order, found) as mailbox:
        return await first_finished(mailbox)


async def _tell(
    request: Request, service: Service, order: Order, result_id: str, found: Remembered, outbox: Outbox
) -> None:
    """The same as events."""
    with service.admission.request():
        async with refining(service, order, found, tells_exits=True) as mailbox:
            outbox.open()
            await tell_all(request, order, 1, mailbox, outbox, refined_id=result_id)


def _read_query(request: Request) -> CommonQuery:
    try:
        return CommonQuery.model_validate(query_of(request))
    except ValidationError as error:
        raise invalid_parameter(dict(error.errors()[0])) from error


def read_wish(body: bytes, exits: int) -> RefineBody:
    """Raises a `ServiceError` that names what is wrong."""
    if not body:
        raise EmptyBodyError(f"the body has 0 bytes; {_FORMS}")
    try:
        wish = RefineBody.model_validate(parse_json(body), strict=True)
    except ValidationError as error:
        raise invalid_parameter(dict(error.errors()[0])) from error
    if (wish.to is None) == (wish.min_confidence is None):
        raise InvalidParameterError(f"give `to` or `min_confidence`, and one only; {_FORMS}")
    if isinstance(wish.to, int) and wish.to > exits:
        raise InvalidParameterError(f"to is {wish.to}, this cascade has exits 1 to {exits}")
    return wish


def _order(
    service: Service, query: CommonQuery, wish: RefineBody, found: Remembered, owner: str, arrived_s: float
) -> Order:
    """How the image is to be gone on with, and the thresholds that this amounts to: by those it is judged how dear it
    may be, as for `/classify`."""
    exits, now_at, in_force = service.model.config.exits, found.exit_number, service.budget.in_force
    asked: Thresholds
    if wish.min_confidence is not None:
        asked = confidence_rule(exits, wish.min_confidence)
        rule = ExitRule((*(None,) * (now_at - 1), *asked[now_at - 1 :]), exits)
    else:
        number = {"next": min(now_at + 1, exits), "final": exits}.get(str(wish.to), wish.to)
        assert isinstance(number, int)
        # Nobody leaves before that exit, and everybody there.
        asked = (*(None,) * (number - 1), *(0.0,) * (exits - number))
        rule = ExitRule((None,) * (exits - 1), number)
    top_k = min(query.top_k or service.settings.top_k, service.model.config.classes)
    deadline_s = None if query.deadline_ms is None else arrived_s + query.deadline_ms / 1000
    return Order(
        rule=rule,
        resolved=service.budget.catalogue.resolve(BudgetRequest(thresholds=asked)),
        by_budget=False,
        revision=in_force.revision,
        operating_point=in_force.operating_point,
        top_k=top_k,
        classes=top_k,
        priority=query.priority,
        owner=owner,
        arrived_s=arrived_s,
        deadline_s=deadline_s,
    )
