"""`POST /v2/models/{model}/infer`: the way of `POST /classify`, for those who speak in tensors."""

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.answers import budget_ref, result_of
from service.api.body import INLINE_BYTES, BodyLimits, ImageInput, read_body
from service.api.classify import body_limits, owner_of, read_order
from service.api.deps import Service, check_engine, count_body, query_of, service_of
from service.api.handlers import request_id_of
from service.api.openinference.encoding import compress, expand, wanted
from service.api.openinference.images import images_of
from service.api.openinference.model import outputs_of
from service.api.openinference.parameters import read_parameters
from service.api.openinference.paths import TAG, of_model
from service.api.openinference.request import HEADER_LENGTH, AskedOutput, JsonLimits, flag, parse_request
from service.api.openinference.response import Answered, Body, choose_outputs, classes_of, tensors_of, write_body
from service.api.openinference.schemas import ERRORS, INFER_BODY, InferResponse
from service.api.schemas import ClassifyQuery
from service.api.tickets import Finished, Order, finish_all, until_gone
from service.errors import BadTensorError, ServiceError
from service.types import Answer

router = APIRouter(tags=[TAG])


@dataclass(frozen=True)
class Inference:
    """A request, understood: its images, how they are to be treated, what is to be told of them."""

    id: str | None
    query: ClassifyQuery
    images: tuple[ImageInput, ...]
    outputs: tuple[AskedOutput, ...]


@of_model(
    router,
    "POST",
    "/infer",
    response_model=InferResponse,
    responses=ERRORS,
    openapi_extra=INFER_BODY,
    summary="Classify images",
)
async def infer(request: Request) -> Response:
    """Image files (`image`) or pixels at input size (`pixels`), as JSON or binary data. All images or an error."""
    service = service_of(request)
    check_engine(service)
    arrived_s = request.scope["dvt.arrived_s"]
    headers, query = request.headers, query_of(request)
    with service.admission.request(), service.admission.body() as take:
        body = await read_body(request.stream(), headers.get("content-length"), body_limits(service), take)
        count_body(service, arrived_s)
        if len(body) <= INLINE_BYTES and "content-encoding" not in headers:
            asked = read_inference(service, body, headers, query, take)
        else:
            asked = await asyncio.to_thread(read_inference, service, body, headers, query, take)
        del body
        order = read_order(service, asked.query, owner_of(request), arrived_s)
        order = replace(order, classes=classes_of(asked.outputs, service.model))
        finished = await until_gone(request, finish_all(service, order, asked.images))
    answers = _answers(service, order, finished)
    tensors = tensors_of(answers, asked.outputs, service.model)
    about = _about(order, request_id_of(request))
    return _response(write_body(service.model.name, asked.id, about, tensors), headers.get("accept-encoding", ""))


def read_inference(
    service: Service,
    body: bytes,
    headers: Mapping[str, str],
    url_query: Mapping[str, str],
    take: Callable[[int], None],
) -> Inference:
    """Of the body as it came. Raises a `ServiceError` that names what is wrong."""
    limits = body_limits(service)
    model, size_px = service.model, service.model.config.input.size_px
    expanded = expand(body, headers.get("content-encoding", ""), limits.body_bytes, take)
    request = parse_request(expanded, headers.get(HEADER_LENGTH.lower()), _json_limits(limits, size_px))
    if request.model_name not in (None, model.name):
        raise BadTensorError(f"model_name is not {model.name!r}, which is what this path is of")
    all_binary = flag(request.parameters, "binary_data_output") or False
    return Inference(
        request.id,
        read_parameters(request.parameters, url_query),
        images_of(request.inputs, size_px, limits),
        choose_outputs(request.outputs, outputs_of(model), all_binary=all_binary),
    )


def _json_limits(limits: BodyLimits, size_px: int) -> JsonLimits:
    """Of the largest request: images of 3 channels of S rows of S values."""
    return JsonLimits(limits.images * (1 + 3 * (1 + size_px)), limits.images * 3 * size_px**2)


def _answers(service: Service, order: Order, finished: list[Finished]) -> list[Answered]:
    """Raises the first error: the protocol has no way to answer some images of a request and not the others."""
    for number, one in enumerate(finished):
        if isinstance(one.outcome, ServiceError):
            raise _naming(number, one.outcome) if len(finished) > 1 else one.outcome
    return [
        Answered(result_of(service, order, one, one.outcome), one.outcome.exit.ranking)
        for one in finished
        if isinstance(one.outcome, Answer)
    ]


def _naming(number: int, error: ServiceError) -> ServiceError:
    named = copy.copy(error)
    named.detail = f"image {number} of the request, counted from 0: {error.detail}"
    return named


def _about(order: Order, request_id: str) -> dict[str, Any]:
    """What decided, as in the answer of `/classify`. The protocol knows no null."""
    about = {"request_id": request_id, **budget_ref(order).model_dump()}
    return {name: value for name, value in about.items() if value is not None}


def _response(body: Body, accept_encoding: str) -> Response:
    headers = {}
    if body.json_bytes is not None:
        headers[HEADER_LENGTH] = str(body.json_bytes)
    encoding = wanted(accept_encoding)
    if encoding is not None:
        headers["Content-Encoding"] = encoding
    return Response(
        body.data if encoding is None else compress(body.data, encoding),
        media_type="application/json" if body.json_bytes is None else "application/octet-stream",
        headers=headers,
    )
