"""What an answer says: an image's result, from what the engine found; and with it what is counted and remembered."""

from collections.abc import Sequence

from fastapi.responses import Response

from service.api.deps import Model, Service
from service.api.handlers import problem_of, problem_response
from service.api.schemas import (
    BudgetRef,
    CertificateRef,
    ClassifyResponse,
    Compute,
    ExitInfo,
    ImageError,
    ImageResult,
    ModelRef,
    Prediction,
    Timing,
    certificate_ref,
)
from service.api.tickets import Finished, Order
from service.engine.feedback import Answered
from service.errors import ServiceError
from service.in_hand import IN_HAND, TracedImage
from service.types import Answer, Ranking


def result_of(
    service: Service, order: Order, finished: Finished, answer: Answer, refined_id: str | None = None
) -> ImageResult:
    """The result of an image that `answer` was found for; counts it, and remembers it for feedback and refining.

    `refined_id`: the id of the earlier result that this one is to replace.
    """
    model, taken, times = service.model, answer.exit, answer.times
    _count(service, finished, answer, is_refined=refined_id is not None)
    _trace(finished, answer)
    predictions = predictions_of(model, taken.ranking, order.top_k)
    label = predictions[0].index
    if refined_id is None:
        result_id = service.randomness.name(16)
        service.feedback.remember(result_id, Answered(order.owner, label, taken.number, finished.draw))
    else:
        result_id = refined_id
        service.feedback.revise(result_id, label, taken.number)
    if finished.work is not None:
        service.kept.remember(result_id, finished.work, taken.number, order.owner)
    return ImageResult(
        id=result_id,
        predictions=predictions,
        exit=ExitInfo(
            number=taken.number,
            of=model.config.exits,
            grid=model.config.stages[taken.number - 1].grid,
            confidence=taken.confidence,
            threshold=taken.threshold,
            reason=answer.reason,
        ),
        compute=compute_of(model, answer.stages_run),
        timing_ms=Timing(
            decode=milliseconds(finished.decode_s),
            queue=milliseconds(times.queue_s),
            stages=list(map(milliseconds, times.stages_s)),
            total=milliseconds(finished.total_s),
        ),
        certificate=_certificate(service, order, answer),
    )


def response_of(
    service: Service, order: Order, request_id: str, results: Sequence[ImageResult | ServiceError]
) -> Response:
    """200 if any image has a result; else the problem of the first."""
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
        model=model_ref(service.model),
        budget=budget_ref(order),
        results=[
            ImageError(error=problem_of(service, result, request_id)) if isinstance(result, ServiceError) else result
            for result in results
        ],
    )
    return Response(body.model_dump_json(), media_type="application/json")


def predictions_of(model: Model, ranking: Ranking, top_k: int) -> list[Prediction]:
    """The likeliest classes, the likeliest first; of an exit that was reached before, no more than are known."""
    labels = model.config.labels
    return [
        Prediction(label=labels[best.index], index=best.index, probability=best.probability)
        for best in ranking.best(top_k)
    ]


def compute_of(model: Model, stages_run: int) -> Compute:
    """What so many stages cost an image."""
    spent, full = model.gmacs(stages_run), model.full_gmacs
    return Compute(
        gmacs=spent,
        full_gmacs=full,
        static_gmacs=model.static_gmacs,
        saved=None if spent is None or not full else 1 - spent / full,
    )


def model_ref(model: Model) -> ModelRef:
    return ModelRef(name=model.name, sha256=model.weights_sha256)


def budget_ref(order: Order) -> BudgetRef:
    """What decided about the images of a request."""
    resolved = order.resolved
    return BudgetRef(
        revision=order.revision,
        operating_point=order.operating_point,
        point=resolved.number,
        profile=resolved.profile,
    )


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _count(service: Service, finished: Finished, answer: Answer, *, is_refined: bool) -> None:
    metrics, model, times = service.metrics, service.model, answer.times
    metrics.answered(answer.exit.number, answer.reason, finished.total_s, answer.exit.confidence)
    metrics.phase("total", finished.total_s)
    if finished.decode_s:
        metrics.phase("decode", finished.decode_s)
    if times.runs:
        # What was known before is no load, and tells the controller of `auto` nothing.
        service.steering.answered(finished.total_s)
        metrics.phase("queue", times.queue_s)
        metrics.phase("compute", sum(times.stages_s))
    before, cost, full = model.gmacs(answer.stages_before), model.gmacs(answer.stages_run), model.full_gmacs
    if before is not None and cost is not None and full is not None:
        # What a refined image cost and saved at first was counted then.
        metrics.gmacs(cost - before, *((0.0, 0.0) if is_refined else (before, full - cost)))


def _trace(finished: Finished, answer: Answer) -> None:
    in_hand = IN_HAND.get()
    if in_hand is not None and in_hand.images is not None:
        in_hand.images.append(
            TracedImage(finished.index, answer, finished.total_s, finished.decode_began_s, finished.decode_s)
        )


def _certificate(service: Service, order: Order, answer: Answer) -> CertificateRef | None:
    """What the budget promises of an answer, unless something else has decided it, or the audit has spoken since."""
    certificate = order.resolved.certificate
    if certificate is None or not order.by_budget or answer.reason not in ("confident", "final"):
        return None
    return None if certificate in service.budget.catalogue.withdrawn else certificate_ref(certificate)
