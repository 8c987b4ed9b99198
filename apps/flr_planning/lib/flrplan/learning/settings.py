"""What decides a retraining: settings of the installation, and the choices of one call."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from flrplan.files.checked import Whole, checked
from flrplan.learning.comparison import DEFAULT_MARGIN
from flrplan.learning.holdout import DEFAULT_SHARE
from flrplan.method import STAGES, Recipe, Stage
from flrplan.workfolder import read_split

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path that may begin with ``~``."""


class Start(StrEnum):
    """``current``: from the weights and with the plan of the model that serves now; ``anew``: random weights, a new plan."""

    CURRENT = "current"
    ANEW = "anew"


@checked
class RetrainingSettings:
    """Settings of the installation.

    recipe: YAML with the settings of each stage; None is the paper's recipe.
    split: split file whose ``test`` ids neither train nor are in the hold-out; None: the one that lies beside the studies.
    kept_share: share of the cases that never train (0..0.5). margin: how much lower the mean Dice may be (0..1).
    """

    recipe: UserPath | None = None
    split: UserPath | None = None
    kept_share: Annotated[float, Field(gt=0, le=0.5)] = DEFAULT_SHARE
    margin: Annotated[float, Field(ge=0, le=1)] = DEFAULT_MARGIN

    def __post_init__(self) -> None:
        for stage in STAGES.values():
            self.recipe_of(stage, None)
        if self.split is not None:
            read_split(self.split)

    def recipe_of(self, stage: Stage, epochs: int | None) -> Recipe:
        """The recipe of one stage, with another number of epochs if one is given. Raises SettingsError."""
        recipe = Recipe.from_yaml(self.recipe, stage.name) if self.recipe else Recipe.from_mapping({})
        return recipe if epochs is None else replace(recipe, training=replace(recipe.training, epochs=epochs))


@checked
class TrainingChoice:
    """What one call asks for. ``epochs`` None: those of the recipe."""

    architecture: str
    start: Start = Start.CURRENT
    epochs: Annotated[Whole, Field(ge=1)] | None = None
    device: str = "auto"
