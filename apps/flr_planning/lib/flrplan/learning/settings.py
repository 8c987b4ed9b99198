"""What decides a retraining: settings of the installation, and the choices of one call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from flrplan.errors import SettingsError
from flrplan.learning.comparison import DEFAULT_MARGIN
from flrplan.learning.holdout import DEFAULT_SHARE
from flrplan.method import STAGES, Recipe, Stage
from flrplan.workfolder import read_split


class Start(StrEnum):
    """``current``: from the weights and with the plan of the model that serves now; ``anew``: random weights, a new plan."""

    CURRENT = "current"
    ANEW = "anew"


@dataclass(frozen=True)
class RetrainingSettings:
    """Settings of the installation.

    recipe: YAML with the settings of each stage; None is the paper's recipe.
    split: split file whose ``test`` ids never train and are never kept either; None: the one that lies beside the studies.
    kept_share: share of the cases that never train (0..0.5). margin: how much lower the mean Dice may be (0..1).
    """

    recipe: Path | None = None
    split: Path | None = None
    kept_share: float = DEFAULT_SHARE
    margin: float = DEFAULT_MARGIN

    def __post_init__(self) -> None:
        if not 0 < self.kept_share <= 0.5:
            raise SettingsError(f"train_kept_share must lie above 0, up to 0.5; got {self.kept_share}")
        if not 0 <= self.margin <= 1:
            raise SettingsError(f"train_margin (Dice) must lie in 0..1, got {self.margin}")
        for stage in STAGES.values():
            self.recipe_of(stage, None)
        if self.split is not None:
            read_split(self.split)

    def recipe_of(self, stage: Stage, epochs: int | None) -> Recipe:
        """The recipe of one stage, with another number of epochs if one is given. Raises SettingsError."""
        recipe = Recipe.from_yaml(self.recipe, stage.name) if self.recipe else Recipe.from_mapping({})
        return recipe if epochs is None else replace(recipe, training=replace(recipe.training, epochs=epochs))


@dataclass(frozen=True)
class TrainingChoice:
    """What one call asks for. ``epochs`` None: those of the recipe."""

    architecture: str
    start: Start = Start.CURRENT
    epochs: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise SettingsError(f"epochs must be at least 1, got {self.epochs}")
