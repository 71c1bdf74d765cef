"""`/feedback`: what an image really showed, told after its answer, and how often answers were right."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, ValidationError

from service.api.body import BodyLimits, parse_json, read_body
from service.api.classify import owner_of
from service.api.deps import AdminDep, ServiceDep
from service.api.handlers import invalid_parameter
from service.api.schemas import Strict, problems
from service.errors import EmptyBodyError, InvalidParameterError

router = APIRouter(tags=["feedback"])

_BODY_LIMITS = BodyLimits(body_bytes=4096, image_bytes=0, images=0, seconds=10.0)
_OPENAPI_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FeedbackBody"}}},
}


class FeedbackBody(Strict):
    """What `POST /feedback` takes: the `id` of a result, and which of the model's labels is right."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "0900b959c5d8c1b1a1f2f3d4e5c6b7a8", "label": "church"}]}
    )

    id: Annotated[str, Field(max_length=64)]
    label: Annotated[str, Field(max_length=1024)]


class FeedbackTaken(Strict):
    id: str
    label: str
    predicted: str
    correct: bool


class ExitFeedback(Strict):
    """Answers of one exit that a label came for. Of `audited` ones the last exit's word is known: `lost` were wrong
    where that is right, `gained` right where it is wrong."""

    number: int
    labelled: int
    correct: int
    accuracy: float | None
    audited: int
    lost: int
    gained: int


class FeedbackResponse(Strict):
    """`remembered` results can be given a label, at most `limit`."""

    remembered: int
    limit: int
    exits: list[ExitFeedback]


@router.post(
    "/feedback",
    response_model=FeedbackTaken,
    responses=problems(400, 401, 404, 408, 409, 413, 422),
    openapi_extra={"requestBody": _OPENAPI_BODY},
    summary="Tell what an image really showed",
)
async def post_feedback(request: Request, service: ServiceDep) -> FeedbackTaken:
    """By the `id` of its result, with the key (or from the address) that asked for it, once. It is counted, and changes
    no budget."""
    with service.admission.body() as take:
        body = await read_body(request.stream(), request.headers.get("content-length"), _BODY_LIMITS, take)
    given = read_feedback(body)
    labels = service.model.config.labels
    if given.label not in labels:
        raise InvalidParameterError(
            f"label is {given.label[:64]!r}, which is none of the {len(labels)} of this model; GET /model lists them"
        )
    answered = service.feedback.give(given.id, owner_of(request), labels.index(given.label))
    is_correct = labels[answered.label] == given.label
    service.metrics.feedback(answered.exit_number, is_correct=is_correct)
    return FeedbackTaken(id=given.id, label=given.label, predicted=labels[answered.label], correct=is_correct)


@router.get(
    "/feedback",
    response_model=FeedbackResponse,
    responses=problems(401, 403),
    summary="How often answers were right (admin)",
)
async def get_feedback(service: ServiceDep, _: AdminDep) -> FeedbackResponse:
    """Of the answers that a label came for since the start, at each exit. Who sends labels chooses for which images, so
    this is no estimate for all of them."""
    return FeedbackResponse(
        remembered=len(service.feedback),
        limit=service.settings.feedback_results,
        exits=[
            ExitFeedback(
                number=number, accuracy=tally.correct / tally.labelled if tally.labelled else None, **asdict(tally)
            )
            for number, tally in enumerate(service.feedback.by_exit, start=1)
        ],
    )


def read_feedback(body: bytes) -> FeedbackBody:
    """Raises a `ServiceError` that names what is wrong."""
    if not body:
        raise EmptyBodyError('the body has 0 bytes; send JSON: {"id": "...", "label": "..."}')
    try:
        return FeedbackBody.model_validate(parse_json(body), strict=True)
    except ValidationError as error:
        raise invalid_parameter(dict(error.errors()[0])) from error
