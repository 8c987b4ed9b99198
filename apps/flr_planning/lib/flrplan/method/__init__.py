"""The paper's method as data: stages, their input, recipes and variants. No network is run here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.method.cascade_result import CascadeResult, Source
    from flrplan.method.probabilities import MASK_FROM, Probability
    from flrplan.method.recipe import PlanSettings, Recipe, TrainingSettings
    from flrplan.method.stage_input import InputMasks, InputSettings, RegionMode, StageInput, build_stage_input
    from flrplan.method.stages import (
        CASCADE,
        CRLM,
        FLR,
        FLR_E2E,
        LIVER,
        PAPER_STAGES,
        STAGES,
        Inputs,
        Stage,
        known_stage,
        stage_named,
        stages_before,
    )
    from flrplan.method.variants import Variant, require_name, variants_from

__all__ = [
    "CASCADE",
    "CRLM",
    "FLR",
    "FLR_E2E",
    "LIVER",
    "MASK_FROM",
    "PAPER_STAGES",
    "STAGES",
    "CascadeResult",
    "InputMasks",
    "InputSettings",
    "Inputs",
    "PlanSettings",
    "Probability",
    "Recipe",
    "RegionMode",
    "Source",
    "Stage",
    "StageInput",
    "TrainingSettings",
    "Variant",
    "build_stage_input",
    "known_stage",
    "require_name",
    "stage_named",
    "stages_before",
    "variants_from",
]

import_at_first_use(
    __name__,
    {
        "flrplan.method.stages": (
            "CASCADE",
            "CRLM",
            "FLR",
            "FLR_E2E",
            "LIVER",
            "PAPER_STAGES",
            "STAGES",
            "Inputs",
            "Stage",
            "known_stage",
            "stage_named",
            "stages_before",
        ),
        "flrplan.method.stage_input": (
            "InputMasks",
            "InputSettings",
            "RegionMode",
            "StageInput",
            "build_stage_input",
        ),
        "flrplan.method.recipe": (
            "PlanSettings",
            "Recipe",
            "TrainingSettings",
        ),
        "flrplan.method.variants": (
            "Variant",
            "require_name",
            "variants_from",
        ),
        "flrplan.method.cascade_result": (
            "CascadeResult",
            "Source",
        ),
        "flrplan.method.probabilities": (
            "MASK_FROM",
            "Probability",
        ),
    },
)
