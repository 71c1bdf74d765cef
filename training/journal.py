"""What the leading process makes of a logged step: a row of the log, the line of progress, whether the run is well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.progress import Progress
from training.divergence import WINDOW, DivergedError, Health, LossWatch
from training.runlog import LogRow, RunLog
from training.throughput import Pace


@dataclass(frozen=True)
class Look:
    """A logged step: `step` updates are done, the last of them in `epoch` (from 1) at `rate`; `loss` was its loss."""

    step: int
    epoch: int
    loss: float
    rate: float


class Journal:
    """Of one start of a run, of `total` images in all; `batch` of them a step."""

    def __init__(self, log: RunLog, watch: LossWatch, pace: Pace, progress: Progress, batch: int, total: int) -> None:
        self._log = log
        self._watch = watch
        self._pace = pace
        self._progress = progress
        self._batch = batch
        self._total = total
        self._accuracy = ""

    def begin(self, step: int) -> None:
        """Go on from `step`, with all that the log knows until then."""
        for loss in self._log.restart(step):
            self._watch.see(loss)
        self._pace.restart(step)

    def enter(self, look: Look, evaluate: Callable[[], Sequence[float]] | None) -> Health:
        """`evaluate`, where the exits' top-1 are to be measured too, is not called for a run that has diverged: that
        raises `DivergedError`."""
        health = self._watch.see(look.loss)
        if health == "diverged":
            raise DivergedError(self._what_happened(look))
        speed = self._pace.speed(look.step)
        top1 = tuple(evaluate()) if evaluate is not None else ()
        self._log.append(LogRow(look.step, look.epoch, look.loss, look.rate, speed, top1))
        if top1:
            self._accuracy = "search top-1 " + " / ".join(f"{value:.1%}" for value in top1)
        note = f"{speed.tflops:.3g} TFLOP/s ({speed.of_ceiling:.1%})  epoch {look.epoch}  loss {look.loss:.3f}"
        self._progress.update(look.step * self._batch, self._total, f"{note}  {self._accuracy}")
        return health

    def go_on(self, step: int) -> None:
        """What was done since the step ended is not the time of the next."""
        self._pace.restart(step)

    def _what_happened(self, look: Look) -> str:
        watch = self._watch
        where = f"at step {look.step} (epoch {look.epoch}), learning rate {look.rate:.3g}"
        if not watch.is_high:
            return f"the loss is {look.loss} {where}"
        return (
            f"the loss has jumped and stays there: {watch.median:.3g} in the median of the last {WINDOW} looks, "
            f"{watch.best:.3g} before that, {watch.level:.3g} where nothing is learnt; {where}"
        )
