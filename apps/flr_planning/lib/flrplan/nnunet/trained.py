"""Whether a fold is trained already, on the cases and from the start that are asked for now."""

from __future__ import annotations

import json
from pathlib import Path

from flrplan.errors import ModelError
from flrplan.method import Variant
from flrplan.networks import SCRATCH
from flrplan.nnunet.model_folder import read_json_object
from flrplan.nnunet.pretrained import file_sha256
from flrplan.workfolder import FINAL_CHECKPOINT, RUN_NAME, Split


def require_same_training(
    folder: Path, split: Split, fold: int, start: str | None = None, variant: Variant | None = None
) -> bool:
    """True where ``folder`` (``.../fold_<k>``) holds the published model of this training, False where there is none yet.

    start: a file of weights, ``scratch``, or None: whatever it started from. variant: what it is a model of; None: an architecture.
    Raises: ModelError where it holds a model of another split or variant, or one that started from something else.
    """
    if not (folder / FINAL_CHECKPOINT).is_file():
        return False
    run = read_json_object(folder / RUN_NAME)
    if [run.get("train_ids"), run.get("validation_ids")] != [list(split.train_ids(fold)), list(split.validation_ids(fold))]:
        raise ModelError(f"{folder}: the model there was trained with another split; use another --models folder, or delete it")
    asked = json.loads(json.dumps(variant.to_json())) if variant else None
    if run.get("variant") != asked:
        raise ModelError(
            f"{folder}: the model there is of the variant {run.get('variant')}, and {asked} was asked for; give the variant another name, "
            "use another --models folder, or delete it"
        )
    if start is not None:
        there = run.get("pretrained") or {}
        if there.get("sha256") != (None if start == SCRATCH else file_sha256(Path(start))):
            raise ModelError(
                f"{folder}: the model there started from {there.get('source', 'random weights')}, and {start} was asked for; use another "
                "--models folder, or delete it"
            )
    return True
