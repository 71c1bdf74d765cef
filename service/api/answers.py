"""What an answer says: an image's result, from what the engine found; and with it what is counted and remembered."""

import secrets

import numpy as np
from numpy.typing import NDArray

from service.api.deps import Model, Service
from service.api.schemas import (
    BudgetRef,
    CertificateRef,
    Compute,
    ExitInfo,
    ImageResult,
    ModelRef,
    Prediction,
    Timing,
    certificate_ref,
)
from service.api.tickets import Finished, Order
from service.engine.feedback import Answered
from service.types import Answer


def result_of(service: Service, order: Order, finished: Finished, answer: Answer) -> ImageResult:
    """The result of an image that `answer` was found for; counts it, and remembers it for feedback."""
    model, taken, times = service.model, answer.exit, answer.times
    _count(service, finished, answer)
    result_id = secrets.token_hex(16)
    service.feedback.remember(result_id, Answered(order.owner, taken.label, taken.number, finished.draw))
    return ImageResult(
        id=result_id,
        predictions=predictions_of(model, taken.probabilities, order.top_k),
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


def predictions_of(model: Model, probabilities: NDArray[np.floating], top_k: int) -> list[Prediction]:
    """The likeliest classes of (C,), the likeliest first."""
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    return [
        Prediction(label=model.config.labels[index], index=index, probability=float(probabilities[index]))
        for index in map(int, best)
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


def _count(service: Service, finished: Finished, answer: Answer) -> None:
    metrics, times = service.metrics, answer.times
    metrics.answered(answer.exit.number, answer.reason, finished.total_s)
    service.steering.answered(finished.total_s)
    for phase, seconds in (
        ("decode", finished.decode_s),
        ("queue", times.queue_s),
        ("compute", sum(times.stages_s)),
        ("total", finished.total_s),
    ):
        metrics.phase(phase, seconds)
    spent, full = service.model.gmacs(answer.stages_run), service.model.full_gmacs
    if spent is not None and full is not None:
        metrics.gmacs(spent, full)


def _certificate(service: Service, order: Order, answer: Answer) -> CertificateRef | None:
    """What the budget promises of an answer, unless something else has decided it, or the audit has spoken since."""
    certificate = order.resolved.certificate
    if certificate is None or not order.by_budget or answer.reason not in ("confident", "final"):
        return None
    return None if certificate in service.budget.catalogue.withdrawn else certificate_ref(certificate)
