"""Labels that come after the answer: which answer each one is for, and how often answers were right.

For whoever reads it. Who sends labels chooses for which images, so nothing is proved by them and nothing acts on them.
"""

from collections import deque
from dataclasses import dataclass, replace

from service.engine.draws import Draw
from service.errors import FeedbackGivenError, UnknownResultError


@dataclass(frozen=True, slots=True)
class Answered:
    """What is remembered of one result: whose it is, the class that it named at which exit, and its audit if any.

    With slots, and an owner's name that is one string for all: there are many of these.
    """

    owner: str
    label: int
    exit_number: int
    draw: Draw | None = None
    has_feedback: bool = False


@dataclass(frozen=True)
class Tally:
    """Answers of one exit for which a label came, and how many were right. Of `audited` ones the last exit's word is
    known too: `lost` were wrong where that is right, `gained` the other way round."""

    labelled: int = 0
    correct: int = 0
    audited: int = 0
    lost: int = 0
    gained: int = 0

    def after(self, answered: Answered, label: int) -> "Tally":
        is_correct = answered.label == label
        last = None if answered.draw is None else answered.draw.last_label
        return Tally(
            self.labelled + 1,
            self.correct + is_correct,
            self.audited + (last is not None),
            self.lost + (not is_correct and last == label),
            self.gained + (is_correct and last not in (None, label)),
        )


class Feedback:
    """The latest `limit` results of a cascade with so many exits. Used by the event loop alone."""

    def __init__(self, limit: int, exits: int) -> None:
        self._limit = limit
        # Both together are a third smaller than an OrderedDict.
        self._results: dict[str, Answered] = {}
        self._oldest_first: deque[str] = deque()
        self.by_exit = [Tally() for _ in range(exits)]

    def __len__(self) -> int:
        return len(self._results)

    def remember(self, result_id: str, answered: Answered) -> None:
        """The oldest is forgotten for it."""
        if self._limit:
            if len(self._results) >= self._limit:
                del self._results[self._oldest_first.popleft()]
            self._results[result_id] = answered
            self._oldest_first.append(result_id)

    def revise(self, result_id: str, label: int, exit_number: int) -> None:
        """It was answered again, from another exit, since its owner asked for that: its audit says nothing of it. Of no
        effect where it is forgotten, or has its label."""
        answered = self._results.get(result_id)
        if answered is not None and not answered.has_feedback:
            self._results[result_id] = replace(answered, label=label, exit_number=exit_number, draw=None)

    def give(self, result_id: str, owner: str, label: int) -> Answered:
        """The result that `label` is the truth about.

        Raises `UnknownResultError`, also for one of another owner, and `FeedbackGivenError`.
        """
        answered = self._results.get(result_id)
        if answered is None or answered.owner != owner:
            raise UnknownResultError(
                f"there is no such result of this key, or it is none of the latest {self._limit} "
                "(DVT_FEEDBACK_RESULTS) any more; send the `id` of a result in the answer of /classify"
            )
        if answered.has_feedback:
            raise FeedbackGivenError("this result has its label already; one is taken for each, and it stays")
        # What is told of the audit is told once: nothing more of it is kept.
        self._results[result_id] = replace(answered, draw=None, has_feedback=True)
        place = answered.exit_number - 1
        self.by_exit[place] = self.by_exit[place].after(answered, label)
        return answered
