"""Out-of-fold predictions as inputs of a training: which files they are, and which case has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flrplan.anatomy import Structure
from flrplan.errors import SettingsError
from flrplan.method import CASCADE, Stage
from flrplan.workfolder import IMAGE_SUFFIX, Case


def column_of(structure: Structure) -> str:
    """The column of ``benchmark/predict.py`` that holds a structure as the cascade predicts it, from the CT alone."""
    stage = next(stage for stage in CASCADE if structure in stage.targets)
    return stage.column_name(stage.inputs[-1], structure)


def with_predictions(cases: Sequence[Case], stage: Stage, folder: Path) -> list[Case]:
    """The cases with the predicted masks that the stage takes as inputs.

    folder: ``<column>/<case>.nii.gz``, as ``benchmark/predict.py --cascaded-cv`` writes it for one architecture. Each must come
    from a model that was not trained on its case; that cannot be seen in the files.
    Raises: SettingsError naming the first predictions that are missing.
    """
    found = []
    missing = []
    for case in cases:
        paths = {s: folder / column_of(s) / f"{case.case_id}{IMAGE_SUFFIX}" for s in stage.needs}
        missing += [path for path in paths.values() if not path.is_file()]
        found.append(replace(case, predicted=paths))
    if missing:
        raise SettingsError(
            f"{len(missing)} predicted masks are missing, the first is {missing[0]}; stage {stage} needs one of every training case, "
            "made by models that were not trained on it: benchmark/predict.py --cascaded-cv writes them"
        )
    return found
