"""The training loop. Everything it does at a step is a function of the recipe and the step, so a run that was killed
and resumed from a checkpoint ends with the very weights of one that was not.

Shapes: K exits, B images of this process.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.compiling import compile_parts
from models.dvt import DVT
from models.progress import Progress
from training.average import WeightAverage
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.data import prepared
from training.devices import computes_in
from training.distributed import World
from training.divergence import DivergedError, LossWatch, chance_loss
from training.gradients import Gradients, GraphedGradients
from training.inputs import TrainingBatch, TrainingInputs
from training.journal import Journal, Look
from training.losses import CascadeLoss, cascade_loss
from training.optim import OptimConfig, build_optimizers, clip_gradients, rate_share
from training.recipe import Recipe
from training.runlog import RunLog
from training.seeds import epoch_order, step_indices, steps_per_epoch
from training.throughput import Pace, Throughput

CHECKPOINT_EVERY_S = 60.0
LOG_EVERY_STEPS = 10

Evaluate = Callable[[DVT], Sequence[float]]


class OutOfTimeError(Exception):
    """The time that a run was given is over before its end: it can go on from its checkpoint."""


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps what it needs to go on."""

    folder: Path

    @staticmethod
    def of(out: Path) -> "RunFiles":
        """Of the run that is to write the bundle `out`."""
        return RunFiles(out.with_name(out.name + ".run"))

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def log(self) -> Path:
        return self.folder / "log.csv"


class _Cascade(nn.Module):
    """`DVT` with the one `forward` that DistributedDataParallel hooks into, for pixels and for views."""

    def __init__(self, model: DVT, *, joint: bool) -> None:
        super().__init__()
        self.model = model
        self.joint = joint

    def forward(self, inputs: Tensor | list[Tensor]) -> list[Tensor]:
        views = self.model.views(inputs) if isinstance(inputs, Tensor) else inputs
        return self.model.forward_views(views, joint=self.joint)


class Trainer:
    """One run. `evaluate` gives the exits' top-1 (K,) on the search split; `teacher` must take the same pixels."""

    def __init__(
        self,
        model: DVT,
        recipe: Recipe,
        inputs: TrainingInputs,
        evaluate: Evaluate,
        files: RunFiles,
        *,
        fingerprint: str,
        world: World,
        teacher: DVT | None = None,
    ) -> None:
        self._model = model
        self._recipe = recipe
        self._inputs = inputs
        self._evaluate = evaluate
        self._files = files
        self._fingerprint = fingerprint
        self._world = world
        self._teacher = teacher
        self._device = model.mean.device
        self._local_batch = recipe.batch // world.size
        if self._local_batch * world.size != recipe.batch:
            raise ValueError(f"a batch of {recipe.batch} does not divide into {world.size} processes")
        self._steps_per_epoch = steps_per_epoch(len(inputs), recipe.batch)
        if self._steps_per_epoch == 0:
            raise ValueError(f"{len(inputs)} training images do not fill one batch of {recipe.batch}: lower --batch")
        self._optim: OptimConfig = recipe.optim(self._steps_per_epoch)
        self._optimizers = build_optimizers(model, self._optim)
        self._average = WeightAverage(model, self._optim.ema_decay)
        self._forward = self._build_forward()
        self._gradients = self._build_gradients()
        self._log = RunLog(files.log, model.config.exits)
        self._order = lru_cache(maxsize=2)(partial(epoch_order, len(inputs), recipe.seed))
        self._step = 0
        self._seconds = 0.0
        self._begun_at = self._saved_at = time.monotonic()

    @property
    def averaged(self) -> DVT:
        """The weights to keep: their exponential moving average."""
        return cast(DVT, self._average.module)

    @property
    def seconds(self) -> float:
        """How long training has taken, in all the starts of this run together."""
        return self._seconds

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one. Raises `CheckpointError`."""
        if not self._files.checkpoint.exists():
            return
        checkpoint = load_checkpoint(self._files.checkpoint, self._fingerprint, self._device)
        self._model.load_state_dict(checkpoint.model)
        self._average.load_state_dict(checkpoint.average)
        self._optimizers.load_state_dict(checkpoint.optimizer)
        self._step = checkpoint.step
        self._seconds = checkpoint.seconds

    def run(self, throughput: Throughput, stop_at_s: float = math.inf) -> None:
        """Train to the end. `stop_at_s`: of the monotonic clock.

        Raises `OutOfTimeError` at the first look after that time, when a checkpoint is written, and `DivergedError`.
        """
        self._model.train()
        recipe, total = self._recipe, self._optim.total_steps
        self._begun_at = time.monotonic() - self._seconds
        self._saved_at = time.monotonic()
        watch = LossWatch(chance_loss(recipe.loss, self._model.config.exits, self._model.config.classes))
        with Progress("training") as progress:
            pace = Pace(throughput, recipe.batch)
            journal = Journal(self._log, watch, pace, progress, recipe.batch, total * recipe.batch)
            if self._world.leads:
                journal.begin(self._step)
            for batch in prepared(self._batch, range(self._step, total), self._inputs.ahead):
                step_loss = self._update(batch)
                self._step += 1
                # Only here, and not at every step, does the CPU wait for the device.
                if self._step % self._steps_per_epoch > 0 and self._step % LOG_EVERY_STEPS > 0:
                    continue
                loss = float(self._world.mean(step_loss.total.detach()))
                # All processes stop at one step: any that went on would wait for the others for ever.
                out_of_time = self._step < total and self._world.any(time.monotonic() >= stop_at_s, self._device)
                if self._world.leads:
                    self._look(journal, loss, out_of_time)
                if out_of_time:
                    raise OutOfTimeError(f"time is up at step {self._step} of {total}")

    def _look(self, journal: Journal, loss: float, out_of_time: bool) -> None:
        """What the leader does at a logged step."""
        before, within = divmod(self._step - 1, self._steps_per_epoch)
        epoch_done = within == self._steps_per_epoch - 1
        rate = self._optim.learning_rate * rate_share(self._step - 1, self._optim)
        is_last = self._step == self._optim.total_steps
        evaluated = is_last or (epoch_done and (before + 1) % self._recipe.evaluate_every == 0)
        evaluate = partial(self._evaluate, self.averaged) if evaluated else None
        health = journal.enter(Look(self._step, before + 1, loss, rate), evaluate)
        self._seconds = time.monotonic() - self._begun_at
        is_due = evaluated or out_of_time or time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S
        # Of a run that may be going wrong, the checkpoint of before is worth more than one of now.
        if is_due and health == "fine":
            self._save()
            self._saved_at = time.monotonic()
        journal.go_on(self._step)

    def _batch(self, step: int) -> TrainingBatch:
        epoch, within = divmod(step, self._steps_per_epoch)
        indices = step_indices(self._order(epoch), within, self._local_batch, self._world.rank, self._world.size)
        return self._inputs.batch(indices, epoch, (self._recipe.seed, step, self._world.rank))

    def _update(self, batch: TrainingBatch) -> CascadeLoss:
        self._optimizers.set_rate(rate_share(self._step, self._optim))
        inputs = [batch.inputs] if isinstance(batch.inputs, Tensor) else batch.inputs
        loss = self._gradients([batch.targets, *inputs])
        clip_gradients(self._model, self._optim.clip_norm)
        self._optimizers.step()
        self._average.update_parameters(self._model)
        return loss

    def _loss(self, tensors: Sequence[Tensor]) -> CascadeLoss:
        """Of soft targets and what goes in: an image tensor, or a view for each stage."""
        targets, *inputs = tensors
        taught = None
        if self._teacher is not None:
            with torch.no_grad(), self._autocast():
                taught = self._teacher(inputs[0])[-1]
        with self._autocast():
            logits = self._forward(inputs[0] if self._recipe.views is None else inputs)
        return cascade_loss(logits, targets, self._recipe.loss, teacher_logits=taught)

    def _build_gradients(self) -> Gradients:
        # Processes that wait for each other within a step cannot be recorded apart.
        is_graphed = self._device.type == "cuda" and self._world.size == 1
        return (GraphedGradients if is_graphed else Gradients)(self._loss, self._model)

    def _autocast(self) -> torch.autocast:
        enabled = computes_in(self._recipe.precision, self._device) == torch.bfloat16
        return torch.autocast(self._device.type, torch.bfloat16, enabled=enabled)

    def _build_forward(self) -> Callable[[Tensor | list[Tensor]], list[Tensor]]:
        cascade: nn.Module = _Cascade(self._model, joint=self._recipe.joint)
        if self._world.size > 1:
            cascade = DistributedDataParallel(cascade)
        if self._device.type == "cuda":
            compile_parts(self._model, any_batch=False, convolutions=True)
            if self._teacher is not None:
                compile_parts(self._teacher, any_batch=False, convolutions=True)
        return cascade

    def _save(self) -> None:
        """Raises `DivergedError` rather than put weights that are not finite in the place of good ones."""
        model = self._model.state_dict()
        finite = torch.stack([tensor.isfinite().all() for tensor in model.values()])
        if not bool(finite.all()):
            raise DivergedError(f"weights are not finite after step {self._step}, though the loss was")
        save_checkpoint(
            self._files.checkpoint,
            Checkpoint(
                self._fingerprint,
                self._step,
                model,
                self._average.state_dict(),
                self._optimizers.state_dict(),
                self._seconds,
            ),
        )
