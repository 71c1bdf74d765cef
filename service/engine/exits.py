"""What the exits say of a computed batch, and who leaves by it. Nothing here changes a job or a slot.

Shapes: B batch, C classes. Exits are numbered from 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models import policy
from models.policy import ExitMeasure
from service.engine.job import Job
from service.errors import DeadlineExceededError, InferenceFailedError, ServiceError
from service.types import Answer, ExitReason, ExitRule, ExitTaken


@dataclass(frozen=True)
class Word:
    """What one exit says of one image; `reason` None where the image goes on. `taken` None where it says nothing
    usable (its numbers are not finite)."""

    taken: ExitTaken | None
    reason: ExitReason | None


def judge(measure: ExitMeasure, stage: int, logits: NDArray[np.float32], rules: Sequence[ExitRule]) -> tuple[Word, ...]:
    """Each image's word at this exit, by its own rule. Raises `ValueError` for logits that are not (B, C)."""
    if logits.ndim != 2 or logits.shape[0] != len(rules):
        raise ValueError(f"stage {stage} gave logits of shape {logits.shape} for {len(rules)} images")
    with np.errstate(all="ignore"):
        probabilities = policy.softmax(logits.astype(np.float64), measure.temperatures[stage - 1])
        confidences = policy.confidence(probabilities, measure.confidence)
    is_last = stage == measure.exits
    thresholds = [None if is_last else rule.thresholds[stage - 1] for rule in rules]
    # Most of a batch share one threshold, the budget's: one comparison for each that occurs.
    leaves = {threshold: policy.leaves(confidences, threshold) for threshold in set(thresholds)}
    return tuple(
        _word(
            ExitTaken(stage, probabilities[row], float(confidences[row]), threshold),
            leaves=bool(leaves[threshold][row]),
            is_last=is_last,
            max_exit=rules[row].max_exit,
        )
        for row, threshold in enumerate(thresholds)
    )


def replay(exits: Sequence[ExitTaken], rule: ExitRule, last: int) -> tuple[Word, ...]:
    """What exits that were reached before, in order and from the first, say by this rule; as far as the one where the
    image leaves, if it does."""
    words: list[Word] = []
    for taken in exits:
        threshold = None if taken.number == last else rule.thresholds[taken.number - 1]
        leaves = bool(policy.leaves(np.asarray(taken.confidence), threshold))
        reason = _reason(taken.number, leaves=leaves, is_last=taken.number == last, max_exit=rule.max_exit)
        words.append(Word(replace(taken, threshold=threshold), reason))
        if reason is not None:
            break
    return tuple(words)


def _word(taken: ExitTaken, *, leaves: bool, is_last: bool, max_exit: int) -> Word:
    if not np.isfinite(taken.confidence):
        return Word(None, "guard" if is_last else None)
    reason = _reason(taken.number, leaves=leaves, is_last=is_last, max_exit=max_exit)
    if reason is not None:
        return Word(taken, reason)
    # A copy: one image that stays would keep its whole batch's probabilities alive.
    return Word(replace(taken, probabilities=taken.probabilities.copy()), None)


def _reason(number: int, *, leaves: bool, is_last: bool, max_exit: int) -> ExitReason | None:
    if leaves:
        return "confident"
    if is_last:
        return "final"
    return "max_exit" if number >= max_exit else None


def outcome_of(job: Job, reason: ExitReason) -> Answer | ServiceError:
    """The answer of a job that leaves: its best exit so far, or an error where no exit gave finite numbers."""
    if job.best is None:
        return InferenceFailedError("no exit gave finite numbers for this image")
    return Answer(job.best, reason, job.stages_run, job.times)


def deadline_outcome(job: Job) -> Answer | ServiceError:
    """What a job is answered with when its time is up: the best exit so far, or an error when there is none."""
    if job.best is None:
        return DeadlineExceededError(
            "deadline_ms passed before the first exit was reached; allow more time, or try when there is less load"
        )
    return Answer(job.best, "deadline", job.stages_run, job.times)
