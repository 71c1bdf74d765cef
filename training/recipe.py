"""A recipe: everything that decides how a bundle is trained, so that a name and a data set reproduce it."""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from models.architectures import build_config
from models.config import DVTConfig
from training.augment import AugmentConfig
from training.losses import LossConfig
from training.muon import MuonConfig
from training.optim import OptimConfig
from training.splits import SplitSizes
from training.views import ViewConfig

Reuse = Literal["both", "features", "relations", "none"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """`batch` is the global one, over all processes. `warmup_epochs` may be a part of an epoch.

    `views`: train on that many cached views of a frozen pretrained stem instead of on pixels (hybrid tokeniser only).
    `train_px`: side that training images are decoded to, when crops are to be cut from more than evaluation sees.
    `held_out`: training images kept for search and certify; None is a default in proportion to the data.
    `reuse`: what a stage takes from the one before.
    `joint`: an exit's loss also trains the stages before its own, as in the paper; else each stage learns for its own
    exit, and takes what it is handed as it is.
    `precision`: of products; "auto" is bf16 where the device is quicker with it. Weights stay fp32.
    `evaluate_every`: epochs between two looks at the search split, where one each would take long beside them.
    """

    architecture: str
    epochs: int
    batch: int
    learning_rate: float
    warmup_epochs: float = 1.0
    final_share: float = 0.01
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    muon: MuonConfig | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    views: ViewConfig | None = None
    train_px: int | None = None
    held_out: SplitSizes | None = None
    seed: int = 0
    reuse: Reuse = "both"
    joint: bool = True
    precision: Precision = "auto"
    evaluate_every: int = 1

    def config(self, labels: tuple[str, ...]) -> DVTConfig:
        """The cascade to train, for these class names."""
        config = build_config(self.architecture, labels)
        features, relations = (self.reuse in ("both", kind) and config.exits > 1 for kind in ("features", "relations"))
        return replace(config, reuse=replace(config.reuse, features=features, relations=relations))

    def optim(self, steps_per_epoch: int) -> OptimConfig:
        """Raises `ValueError` if warm-up is longer than training."""
        total = self.epochs * steps_per_epoch
        return OptimConfig(
            learning_rate=self.learning_rate,
            total_steps=total,
            warmup_steps=min(round(self.warmup_epochs * steps_per_epoch), total - 1),
            final_share=self.final_share,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            ema_decay=self.ema_decay,
            muon=self.muon,
        )


def with_rates(recipe: Recipe, scale: float) -> Recipe:
    """All peak learning rates times `scale`."""
    muon = recipe.muon and replace(recipe.muon, learning_rate=scale * recipe.muon.learning_rate)
    return replace(recipe, learning_rate=scale * recipe.learning_rate, muon=muon)


def static_twin(recipe: Recipe) -> Recipe:
    """The same recipe for the last stage alone: what a user would train instead of the cascade."""
    architecture = recipe.architecture.replace("dvt_", "static_", 1)
    build_config(architecture, ("a", "b"))
    loss = replace(recipe.loss, exit_weights=(), distill_from="none")
    return replace(recipe, architecture=architecture, loss=loss)


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe, its name, and its docstring: command, hardware, hours and result."""

    name: str
    recipe: Recipe
    description: str


def recipe_names() -> Sequence[str]:
    """The modules of `training.recipes`."""
    package = importlib.import_module("training.recipes")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load_recipe(name: str) -> NamedRecipe:
    """Raises `ValueError` for an unknown name."""
    if name not in recipe_names():
        raise ValueError(f"unknown recipe {name!r}, known are {', '.join(recipe_names())}")
    module = importlib.import_module(f"training.recipes.{name}")
    recipe = module.RECIPE
    assert isinstance(recipe, Recipe)
    return NamedRecipe(name, recipe, (module.__doc__ or "").strip())
