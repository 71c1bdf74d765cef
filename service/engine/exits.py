"""What the exits say of a computed batch, and who leaves by it. Nothing here changes a job or a slot.

Shapes: B batch, C classes. Exits are numbered from 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models import policy
from models.policy import ExitMeasure
from service.backends.base import StageOutput
from service.engine.job import Job
from service.errors import DeadlineExceededError, InferenceFailedError, ServiceError
from service.types import Answer, ExitReason, ExitRule, ExitTaken, Ranking


@dataclass(frozen=True)
class Word:
    """What one exit says of one image; `reason` None where the image goes on. `taken` None where it says nothing
    usable (its numbers are not finite)."""

    taken: ExitTaken | None
    reason: ExitReason | None


def judge(
    measure: ExitMeasure, stage: int, output: StageOutput, rules: Sequence[ExitRule], classes: int
) -> tuple[Word, ...]:
    """Each image's word at this exit, by its own rule, with at least the best `classes` classes, or all of fewer.

    Raises `ValueError` for an output that is not of so many images.
    """
    confidences, rankings = _read(measure, stage, output, classes)
    if len(rankings) != len(rules):
        raise ValueError(f"stage {stage} computed {len(rankings)} images of {len(rules)}")
    is_last = stage == measure.exits
    thresholds = [None if is_last else rule.thresholds[stage - 1] for rule in rules]
    # Most of a batch share one threshold, the budget's: one comparison for each that occurs.
    leaves = {threshold: policy.leaves(confidences, threshold).tolist() for threshold in set(thresholds)}
    words = []
    for row, confidence in enumerate(confidences.tolist()):
        if not math.isfinite(confidence):
            words.append(Word(None, "guard" if is_last else None))
            continue
        threshold, ranking = thresholds[row], rankings[row]
        reason = _reason(stage, leaves=leaves[threshold][row], is_last=is_last, max_exit=rules[row].max_exit)
        if reason is None:
            ranking = ranking.alone()
        words.append(Word(ExitTaken(stage, ranking, confidence, threshold), reason))
    return tuple(words)


def _read(
    measure: ExitMeasure, stage: int, output: StageOutput, classes: int
) -> tuple[NDArray[np.floating], list[Ranking]]:
    """Confidences (B,), and each image's classes."""
    brief = output.brief
    if brief is not None and brief.tells(classes):
        rows = zip(brief.probabilities, brief.classes, strict=True)
        return brief.confidences, [Ranking(best, brief.of, numbers) for best, numbers in rows]
    logits = output.logits
    if logits.ndim != 2:
        raise ValueError(f"stage {stage} gave logits of shape {logits.shape}, not (images, classes)")
    with np.errstate(all="ignore"):
        probabilities = policy.softmax(logits.astype(np.float64), measure.temperatures[stage - 1])
        # The brief's where there is one: that another image asks for more classes must not move a last bit here.
        confidences = policy.confidence(probabilities, measure.confidence) if brief is None else brief.confidences
    return confidences, [Ranking(row, logits.shape[1]) for row in probabilities]


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
