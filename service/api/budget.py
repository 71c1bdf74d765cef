"""`/budget`: what images are allowed to cost. Reading is for every caller, changing for the admin."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ValidationError

from service.api.body import BodyLimits, parse_json, read_body
from service.api.deps import AdminDep, Service, ServiceDep
from service.api.handlers import invalid_parameter
from service.api.schemas import BudgetBody, BudgetResponse, FrontierResponse, Point, problems
from service.engine.budget import BudgetRequest, InForce, Resolved
from service.errors import BadJsonError, EmptyBodyError

router = APIRouter(tags=["budget"])

_BODY_LIMITS = BodyLimits(body_bytes=64 * 1024, image_bytes=0, images=0, seconds=10.0)
_OPENAPI_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BudgetBody"}}},
}


@router.get("/budget", response_model=BudgetResponse, responses=problems(401), summary="The budget in force")
async def get_budget(service: ServiceDep) -> Response:
    """What is asked (`request`, which can be PUT back), what that resolves to, and what images leave by now."""
    return _response(service, service.budget.in_force)


@router.put(
    "/budget",
    response_model=BudgetResponse,
    responses=problems(400, 401, 403, 413, 422),
    openapi_extra={"requestBody": _OPENAPI_BODY},
    summary="Change the budget (admin)",
)
async def put_budget(request: Request, service: ServiceDep, admin: AdminDep) -> Response:
    """By `profile` or by `thresholds`. Images that are inside already leave by the old one; no request is lost."""
    with service.admission.body() as take:
        body = await read_body(request.stream(), request.headers.get("content-length"), _BODY_LIMITS, take)
    asked = read_request(body)
    in_force = await asyncio.to_thread(service.budget.put, asked)
    service.metrics.budget_revision(in_force.revision)
    service.log.info(
        "budget changed",
        extra={"revision": in_force.revision, "by": admin.name, "request": _as_put(asked)},
    )
    return _response(service, in_force)


@router.get(
    "/budget/frontier", response_model=FrontierResponse, responses=problems(401), summary="What can be asked for"
)
async def get_frontier(service: ServiceDep) -> FrontierResponse:
    """Named profiles, and the points that no other beats in both cost and accuracy. Empty without profiles."""
    catalogue = service.budget.catalogue
    if catalogue.profiles is None:
        return FrontierResponse(profiles=[], frontier=[])
    return FrontierResponse(
        profiles=[_point(catalogue.resolve(BudgetRequest(profile=name))) for name in catalogue.profiles.named],
        frontier=[
            _point(Resolved(point.thresholds, None, number, point))
            for number, point in enumerate(catalogue.profiles.frontier)
        ],
    )


def read_request(body: bytes) -> BudgetRequest:
    """Raises a `ServiceError` that names what is wrong."""
    if not body:
        raise EmptyBodyError('the body has 0 bytes; send JSON: {"profile": "balanced"} or {"thresholds": [0.9, null]}')
    document = parse_json(body)
    if not isinstance(document, dict):
        raise BadJsonError('the JSON body must be an object: {"profile": "balanced"} or {"thresholds": [0.9, null]}')
    try:
        asked = BudgetBody.model_validate(document, strict=True)
    except ValidationError as error:
        raise invalid_parameter(dict(error.errors()[0])) from error
    return BudgetRequest(asked.profile, None if asked.thresholds is None else tuple(asked.thresholds))


def _response(service: Service, in_force: InForce) -> Response:
    point = _point(in_force.resolved)
    ceiling = service.budget.ceiling
    answer = BudgetResponse(
        revision=in_force.revision,
        request=_as_put(in_force.request),
        resolved=point,
        in_force=point,
        ceiling=None if ceiling is None else ceiling.profile,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _as_put(request: BudgetRequest) -> dict[str, object]:
    if request.profile is not None:
        return {"profile": request.profile}
    assert request.thresholds is not None
    return {"thresholds": list(request.thresholds)}


def _point(resolved: Resolved) -> Point:
    measured = resolved.measured
    return Point(
        operating_point=resolved.operating_point,
        profile=resolved.profile,
        thresholds=list(resolved.thresholds),
        top1=None if measured is None else measured.top1,
        mean_gmacs=None if measured is None else measured.mean_gmacs,
        exit_shares=None if measured is None or measured.exit_shares is None else list(measured.exit_shares),
    )
