"""The training loop. Everything it does at a step is a function of the recipe and the step, so a run that was killed
and resumed from a checkpoint ends with the very weights of one that was not.

Shapes: K exits, B images of this process.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from models.compiling import compile_parts
from models.dvt import DVT
from models.progress import Progress
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.data import prepared
from training.devices import gains_by_bf16
from training.distributed import World
from training.gradients import Gradients, GraphedGradients
from training.inputs import TrainingBatch, TrainingInputs
from training.losses import CascadeLoss, cascade_loss
from training.optim import (
    OptimConfig,
    build_optimizers,
    clip_gradients,
    rate_share,
    weight_average,
)
from training.recipe import Recipe
from training.runlog import LogRow, RunLog
from training.seeds import epoch_order, step_indices, steps_per_epoch

CHECKPOINT_EVERY_S = 60.0
LOG_EVERY_STEPS = 10

Evaluate = Callable[[DVT], Sequence[float]]


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps what it needs to go on."""

    folder: Path

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
        self._average: AveragedModel = weight_average(model, self._optim.ema_decay)
        self._forward = self._build_forward()
        self._gradients = self._build_gradients()
        self._log = RunLog(files.log, model.config.exits)
        self._order = lru_cache(maxsize=2)(partial(epoch_order, len(inputs), recipe.seed))
        self._step = 0

    @property
    def averaged(self) -> DVT:
        """The weights to keep: their exponential moving average."""
        return cast(DVT, self._average.module)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one. Raises `CheckpointError`."""
        if not self._files.checkpoint.exists():
            return
        checkpoint = load_checkpoint(self._files.checkpoint, self._fingerprint, self._device)
        self._model.load_state_dict(checkpoint.model)
        self._average.load_state_dict(checkpoint.average)
        self._optimizers.load_state_dict(checkpoint.optimizer)
        self._step = checkpoint.step

    def run(self) -> None:
        """Train to the end."""
        self._model.train()
        total = self._optim.total_steps
        if self._world.leads:
            self._log.restart(self._step)
        saved_at = logged_at = time.monotonic()
        logged_step = self._step
        note = ""
        with Progress("training") as progress:
            for batch in prepared(self._batch, range(self._step, total), self._inputs.ahead):
                epoch, within = divmod(self._step, self._steps_per_epoch)
                loss = self._update(batch)
                self._step += 1
                epoch_done = within == self._steps_per_epoch - 1
                evaluated = self._step == total or (epoch_done and (epoch + 1) % self._recipe.evaluate_every == 0)
                if not (epoch_done or self._step % LOG_EVERY_STEPS == 0):
                    continue
                mean_loss = float(self._world.mean(loss.total.detach()))
                if not self._world.leads:
                    continue
                now = time.monotonic()
                rate = (self._step - logged_step) * self._recipe.batch / max(now - logged_at, 1e-9)
                top1 = tuple(self._evaluate(self.averaged)) if evaluated else ()
                rate_at = self._optim.learning_rate * rate_share(self._step - 1, self._optim)
                self._log.append(LogRow(self._step, epoch + 1, mean_loss, rate_at, rate, top1))
                if top1:
                    note = "search top-1 " + " / ".join(f"{value:.1%}" for value in top1)
                seen = self._step * self._recipe.batch
                progress.update(seen, total * self._recipe.batch, f"epoch {epoch + 1}  loss {mean_loss:.3f}  {note}")
                if evaluated or now - saved_at >= CHECKPOINT_EVERY_S:
                    self._save()
                    saved_at = time.monotonic()
                logged_at, logged_step = time.monotonic(), self._step

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
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        # Processes that wait for each other within a step cannot be recorded apart.
        is_graphed = self._device.type == "cuda" and self._world.size == 1
        return (GraphedGradients if is_graphed else Gradients)(self._loss, parameters)

    def _autocast(self) -> torch.autocast:
        enabled = self._recipe.precision == "bf16" or (self._recipe.precision == "auto" and gains_by_bf16(self._device))
        return torch.autocast(self._device.type, torch.bfloat16, enabled=enabled)

    def _build_forward(self) -> Callable[[Tensor | list[Tensor]], list[Tensor]]:
        cascade: nn.Module = _Cascade(self._model, joint=self._recipe.joint)
        if self._world.size > 1:
            cascade = DistributedDataParallel(cascade)
        if self._device.type == "cuda":
            compile_parts(self._model, any_batch=False)
            if self._teacher is not None:
                compile_parts(self._teacher, any_batch=False)
        return cascade

    def _save(self) -> None:
        save_checkpoint(
            self._files.checkpoint,
            Checkpoint(
                self._fingerprint,
                self._step,
                self._model.state_dict(),
                self._average.state_dict(),
                self._optimizers.state_dict(),
            ),
        )
