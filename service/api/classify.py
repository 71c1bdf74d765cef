"""`POST /classify`: images in, in one of three forms; for each the answer of an exit, or its own error."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from service.api.body import BodyLimits, ImageInput, images_of, read_body
from service.api.deps import Service, ServiceDep, check_engine
from service.api.handlers import problem_of, problem_response, request_id_of
from service.api.schemas import (
    BudgetRef,
    ClassifyQuery,
    ClassifyResponse,
    Compute,
    ExitInfo,
    ImageError,
    ImageResult,
    ModelRef,
    Prediction,
    Timing,
    problems,
)
from service.decode import decode
from service.engine.budget import BudgetRequest, Resolved, confidence_rule
from service.engine.exits import deadline_outcome
from service.engine.job import Job, Outcome
from service.errors import (
    ClientClosedError,
    InternalError,
    InvalidParameterError,
    InvalidThresholdsError,
    NotReadyError,
    ServiceError,
)
from service.types import Answer, ExitRule, Thresholds

router = APIRouter(tags=["classify"])

# A body this small is taken apart faster than a thread is woken for it.
_INLINE_BYTES = 128 * 1024

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


@dataclass(frozen=True)
class Order:
    """How the images of one request are to be treated."""

    rule: ExitRule
    resolved: Resolved
    revision: int
    top_k: int
    priority: int
    arrived_s: float
    deadline_s: float | None


@router.post(
    "/classify",
    response_model=ClassifyResponse,
    responses=problems(400, 401, 403, 408, 413, 415, 422, 500, 503, 504),
    openapi_extra={"requestBody": _BODY},
    summary="Classify images",
)
async def classify(request: Request, query: Annotated[ClassifyQuery, Query()], service: ServiceDep) -> Response:
    """Images as a multipart field `image` (repeatable), as a raw body, or as base64 in JSON.

    200 if any image succeeded, with each failed one's problem document in its place; else the status of the error.
    """
    order = read_order(service, query, request.scope["dvt.arrived_s"])
    check_engine(service)
    with service.admission.request(), service.admission.body() as take:
        limits = _body_limits(service)
        body = await read_body(request.stream(), request.headers.get("content-length"), limits, take)
        service.metrics.phase("read", service.clock() - order.arrived_s)
        content_type = request.headers.get("content-type", "")
        if len(body) <= _INLINE_BYTES:
            images = images_of(body, content_type, limits)
        else:
            images = await asyncio.to_thread(images_of, body, content_type, limits)
        del body
        results = await _until_gone(request, _classify_all(service, order, images))
    return _response(service, order, request_id_of(request), results)


def read_order(service: Service, query: ClassifyQuery, arrived_s: float) -> Order:
    """What the parameters ask for. Raises a `ServiceError` for what this bundle or this operator does not allow."""
    exits = service.model.config.exits
    own = [name for name in ("profile", "thresholds", "min_confidence") if getattr(query, name) is not None]
    if len(own) > 1:
        raise InvalidParameterError(f"{' and '.join(own)} exclude each other; send one of them")
    if query.max_exit is not None and query.max_exit > exits:
        raise InvalidParameterError(f"max_exit is {query.max_exit}, this cascade has exits 1 to {exits}")
    in_force = service.budget.in_force
    resolved = in_force.resolved
    if own:
        resolved = _asked(service, query, exits)
        service.budget.check_ceiling(resolved)
    rule = ExitRule(resolved.thresholds, query.max_exit or exits)
    deadline_s = None if query.deadline_ms is None else arrived_s + query.deadline_ms / 1000
    top_k = min(query.top_k or service.settings.top_k, service.model.config.classes)
    return Order(rule, resolved, in_force.revision, top_k, query.priority, arrived_s, deadline_s)


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


def _body_limits(service: Service) -> BodyLimits:
    settings = service.settings
    return BodyLimits(settings.max_body_bytes, settings.max_image_bytes, settings.max_images, settings.body_seconds)


class _Ticket:
    """One image in the making: its job, the future that its outcome arrives in, and how long decoding took."""

    def __init__(self, service: Service, order: Order, data: bytes) -> None:
        self._service = service
        self._data = data
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Outcome] = self._loop.create_future()
        self.decode_s = 0.0
        self.job = Job(
            order.rule,
            arrived_s=order.arrived_s,
            deadline_s=order.deadline_s,
            priority=order.priority,
            deliver=self._deliver,
            released=service.admission.release,
        )

    def start(self) -> None:
        try:
            self._service.decoders.submit(self._decode)
        except RuntimeError:  # The pool was shut down.
            self._refuse(NotReadyError("the service is shutting down; try again in a moment"))

    def expire(self) -> None:
        """Its deadline has passed: the best exit so far is the answer."""
        if self.job.finish(deadline_outcome(self.job)):
            self._service.scheduler.notice_done()

    def leave(self) -> None:
        """Nobody waits for it any more. Of no effect where it was answered."""
        if self.job.abandon():
            self._service.scheduler.notice_done()

    def _decode(self) -> None:
        """In a decoding thread: to pixels, then on to the engine."""
        service = self._service
        if self.job.done:
            self.job.release()
            return
        started_s = service.clock()
        try:
            pixels = decode(self._data, service.model.config.input, service.limits)
        except ServiceError as error:
            self._refuse(error)
            return
        except Exception:
            service.log.exception("decoding failed by a bug")
            self._refuse(InternalError("a bug in the service kept this image from being decoded"))
            return
        finally:
            self._data = b""
        self.decode_s = service.clock() - started_s
        service.scheduler.submit(self.job, pixels)

    def _refuse(self, error: ServiceError) -> None:
        self.job.close(error)

    def _deliver(self, outcome: Outcome) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            return  # The event loop has ended, and with it everybody who could have been waiting.

    def _settle(self, outcome: Outcome) -> None:
        if not self.future.done():
            self.future.set_result(outcome)


async def _classify_all(
    service: Service, order: Order, images: Sequence[ImageInput]
) -> list[ImageResult | ServiceError]:
    """Every image's result, in order. Raises `OverloadedError` when there is no room for all of them."""
    loop = asyncio.get_running_loop()
    whole = [image for image in images if not isinstance(image, ServiceError)]
    service.admission.acquire(len(whole))
    slots: list[_Ticket | ServiceError] = [
        image if isinstance(image, ServiceError) else _Ticket(service, order, image) for image in images
    ]
    tickets = [slot for slot in slots if isinstance(slot, _Ticket)]
    timer = None
    if order.deadline_s is not None:
        remaining_s = max(0.0, order.deadline_s - service.clock())
        timer = loop.call_later(remaining_s, _expire, tickets)
    try:
        for ticket in tickets:
            ticket.start()
        results: list[ImageResult | ServiceError] = []
        for slot in slots:
            outcome = slot if isinstance(slot, ServiceError) else await slot.future
            if isinstance(slot, _Ticket) and isinstance(outcome, Answer):
                results.append(_result(service, order, slot.decode_s, outcome))
            else:
                assert isinstance(outcome, ServiceError)
                results.append(outcome)
        return results
    finally:
        if timer is not None:
            timer.cancel()
        for ticket in tickets:
            ticket.leave()


def _expire(tickets: Sequence[_Ticket]) -> None:
    for ticket in tickets:
        ticket.expire()


async def _until_gone(request: Request, work: Any) -> list[ImageResult | ServiceError]:
    """The outcome of `work`, unless the client leaves first: then it is cancelled. Raises `ClientClosedError`."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientClosedError("the client left before its answer")
        results: list[ImageResult | ServiceError] = task.result()
        return results
    finally:
        for pending in (task, gone):
            pending.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _result(service: Service, order: Order, decode_s: float, answer: Answer) -> ImageResult:
    model, taken = service.model, answer.exit
    total_s = service.clock() - order.arrived_s
    spent, full = model.gmacs(answer.stages_run), model.full_gmacs
    times = answer.times
    service.metrics.answered(taken.number, answer.reason, total_s)
    for phase, seconds in (
        ("decode", decode_s),
        ("queue", times.queue_s),
        ("compute", sum(times.stages_s)),
        ("total", total_s),
    ):
        service.metrics.phase(phase, seconds)
    if spent is not None and full is not None:
        service.metrics.gmacs(spent, full)
    best = np.argsort(-taken.probabilities, kind="stable")[: order.top_k]
    return ImageResult(
        id=secrets.token_hex(16),
        predictions=[
            Prediction(label=model.config.labels[index], index=index, probability=float(taken.probabilities[index]))
            for index in map(int, best)
        ],
        exit=ExitInfo(
            number=taken.number,
            of=model.config.exits,
            grid=model.config.stages[taken.number - 1].grid,
            confidence=taken.confidence,
            threshold=taken.threshold,
            reason=answer.reason,
        ),
        compute=Compute(
            gmacs=spent,
            full_gmacs=full,
            static_gmacs=model.static_gmacs,
            saved=None if spent is None or not full else 1 - spent / full,
        ),
        timing_ms=Timing(
            decode=_ms(decode_s), queue=_ms(times.queue_s), stages=list(map(_ms, times.stages_s)), total=_ms(total_s)
        ),
        certificate=None,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _response(
    service: Service, order: Order, request_id: str, results: Sequence[ImageResult | ServiceError]
) -> Response:
    errors = [result for result in results if isinstance(result, ServiceError)]
    if len(errors) == len(results):
        # Nothing succeeded: the first error is the answer, the others stand beside it.
        found = [problem_of(service, error, request_id) for error in errors]
        first = found[0]
        if len(found) > 1:
            first = first.model_copy(update={"errors": [problem.model_dump() for problem in found]})
        return problem_response(first, errors[0].headers)
    body = ClassifyResponse(
        request_id=request_id,
        model=ModelRef(name=service.model.name, sha256=service.model.weights_sha256),
        budget=BudgetRef(
            revision=order.revision,
            operating_point=order.resolved.operating_point,
            profile=order.resolved.profile,
        ),
        results=[
            ImageError(error=problem_of(service, result, request_id)) if isinstance(result, ServiceError) else result
            for result in results
        ],
    )
    return Response(body.model_dump_json(), media_type="application/json")
