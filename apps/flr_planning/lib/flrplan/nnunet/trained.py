"""Whether a fold is trained already, on the cases that are asked for now."""

from __future__ import annotations

from pathlib import Path

from flrplan.errors import ModelError
from flrplan.nnunet.checkpoint import FINAL_NAME
from flrplan.nnunet.model_folder import RUN_NAME, read_json_object
from flrplan.splits import Split


def require_same_training(folder: Path, split: Split, fold: int) -> bool:
    """True where ``folder`` (``.../fold_<k>``) holds the published model of this training, False where there is none yet.

    Raises: ModelError where it holds a model of another split.
    """
    if not (folder / FINAL_NAME).is_file():
        return False
    run = read_json_object(folder / RUN_NAME)
    if [run.get("train_ids"), run.get("validation_ids")] != [list(split.train_ids(fold)), list(split.validation_ids(fold))]:
        raise ModelError(f"{folder}: the model there was trained with another split; use another --models folder, or delete it")
    return True
