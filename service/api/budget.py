"""`/budget`: what images are allowed to cost. Reading is for every caller, changing for the admin."""

import asyncio
from dataclasses import asdict, replace
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from service.api.body import BodyLimits, parse_json, read_body
from service.api.deps import AdminDep, ServiceDep
from service.api.handlers import invalid_parameter
from service.api.picture import SVG, frontier_svg
from service.api.schemas import (
    BudgetBody,
    BudgetResponse,
    ChangeOfBudget,
    FrontierResponse,
    HistoryResponse,
    Point,
    certificate_ref,
    problems,
)
from service.engine.budget import InForce
from service.engine.catalogue import AutoGoal, BudgetRequest, Resolved
from service.errors import BadJsonError, EmptyBodyError, InvalidParameterError

router = APIRouter(tags=["budget"])

_BODY_LIMITS = BodyLimits(body_bytes=64 * 1024, image_bytes=0, images=0, seconds=10.0)
_EXAMPLES = 'send JSON: {"profile": "balanced"}, {"gmacs": 0.2} or {"max_risk": {"disagreement": 0.01}}'
_OPENAPI_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BudgetBody"}}},
}


@router.get("/budget", response_model=BudgetResponse, responses=problems(401), summary="The budget in force")
async def get_budget(service: ServiceDep) -> Response:
    """What is asked (`request`, which can be PUT back), what that resolves to, and what images leave by now."""
    in_force = service.budget.in_force
    return _response(in_force, in_force)


@router.put(
    "/budget",
    response_model=BudgetResponse,
    responses=problems(400, 401, 403, 412, 413, 422, 503),
    openapi_extra={"requestBody": _OPENAPI_BODY},
    summary="Change the budget (admin)",
)
async def put_budget(
    request: Request,
    service: ServiceDep,
    admin: AdminDep,
    dry_run: Annotated[bool, Query(description="Only tell what it would mean.")] = False,
    if_match: Annotated[
        str | None, Header(description="The revision that is to be replaced, as ETag tells it.")
    ] = None,
) -> Response:
    """By one of `profile`, `thresholds`, `gmacs`, `latency_ms`, `max_risk` and `auto`. Images that are inside already
    leave by the old one; no request is lost. What is in force already keeps its revision."""
    with service.admission.body() as take:
        body = await read_body(request.stream(), request.headers.get("content-length"), _BODY_LIMITS, take)
    asked, expected = read_request(body), read_revision(if_match)
    before = service.budget.in_force
    if dry_run:
        return _response(service.budget.resolve(asked), before)
    if service.replicas is not None:
        in_force = await service.replicas.put(asked, by=admin.name, if_revision=expected)
    else:
        in_force = await asyncio.to_thread(service.budget.put, asked, by=admin.name, if_revision=expected)
    if in_force.revision != before.revision:
        service.log.info(
            "budget changed",
            extra={"revision": in_force.revision, "by": admin.name, "request": _as_put(asked)},
        )
    return _response(in_force, in_force)


@router.get(
    "/budget/history",
    response_model=HistoryResponse,
    responses=problems(401, 403),
    summary="Who changed the budget (admin)",
)
async def get_history(service: ServiceDep, _: AdminDep) -> HistoryResponse:
    """The last changes, the newest first: when, by whose key, and what was asked for."""
    changes = reversed(service.budget.stored.history)
    return HistoryResponse(
        changes=[
            ChangeOfBudget(
                revision=each.revision, at=each.at, by=each.by, request=_as_put(each.request), note=each.note
            )
            for each in changes
        ]
    )


@router.get(
    "/budget/frontier",
    response_model=FrontierResponse,
    responses={**problems(401), 200: {"content": {SVG: {}}}},
    summary="What can be asked for",
)
async def get_frontier(request: Request, service: ServiceDep) -> Response:
    """Named profiles, the points that no other beats in both cost and accuracy, and those of which something is
    certified; as a picture for those who accept SVG rather than JSON. Empty without profiles."""
    catalogue = service.budget.catalogue
    named = {} if catalogue.profiles is None else catalogue.profiles.named
    frontier = () if catalogue.profiles is None else catalogue.profiles.frontier
    certified = dict.fromkeys(each.point.thresholds for each in catalogue.certificates)
    if SVG in request.headers.get("accept", ""):
        return Response(
            frontier_svg(frontier, named, service.budget.in_force.point.measured),
            media_type=SVG,
            headers={"Vary": "Accept"},
        )
    answer = FrontierResponse(
        profiles=[_point(catalogue.resolve(BudgetRequest(profile=name))) for name in named],
        frontier=[
            _point(replace(catalogue.describe(point.thresholds), number=number, measured=point))
            for number, point in enumerate(frontier)
        ],
        certified=[_point(catalogue.describe(thresholds)) for thresholds in certified],
    )
    return Response(answer.model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})


def read_request(body: bytes) -> BudgetRequest:
    """Raises a `ServiceError` that names what is wrong."""
    if not body:
        raise EmptyBodyError(f"the body has 0 bytes; {_EXAMPLES}")
    document = parse_json(body)
    if not isinstance(document, dict):
        raise BadJsonError(f"the JSON body must be an object; {_EXAMPLES}")
    try:
        asked = BudgetBody.model_validate(document, strict=True)
    except ValidationError as error:
        raise invalid_parameter(dict(error.errors()[0])) from error
    given = asked.model_dump(exclude_none=True)
    if asked.thresholds is not None:
        given["thresholds"] = tuple(asked.thresholds)
    if asked.auto is not None:
        given["auto"] = AutoGoal(**asked.auto.model_dump())
    return BudgetRequest(**given)


def read_revision(if_match: str | None) -> int | None:
    """Of an `If-Match` header; None where any will do. Raises `InvalidParameterError`."""
    if if_match is None or if_match.strip() == "*":
        return None
    number = if_match.strip().strip('"')
    if not number.isdecimal() or len(number) > 18:
        raise InvalidParameterError(f'If-Match is {if_match[:64]!r}, expected a revision as ETag tells it: "7"')
    return int(number)


def _response(asked: InForce, in_force: InForce) -> Response:
    """What is asked and what is in force are the same but for a dry run."""
    answer = BudgetResponse(
        revision=in_force.revision,
        operating_point=in_force.operating_point,
        request=_as_put(asked.request),
        resolved=_point(asked.resolved),
        in_force=_point(in_force.point),
        ceiling=None if asked.ceiling is None else asked.ceiling.profile,
    )
    return Response(answer.model_dump_json(), media_type="application/json", headers={"ETag": f'"{in_force.revision}"'})


def _as_put(request: BudgetRequest) -> dict[str, object]:
    return {name: value for name, value in asdict(request).items() if value is not None}


def _point(resolved: Resolved) -> Point:
    measured = resolved.measured
    return Point(
        number=resolved.number,
        profile=resolved.profile,
        thresholds=list(resolved.thresholds),
        top1=None if measured is None else measured.top1,
        mean_gmacs=None if measured is None else measured.mean_gmacs,
        exit_shares=None if measured is None or measured.exit_shares is None else list(measured.exit_shares),
        certificate=None if resolved.certificate is None else certificate_ref(resolved.certificate),
        uncertified=resolved.uncertified,
    )
