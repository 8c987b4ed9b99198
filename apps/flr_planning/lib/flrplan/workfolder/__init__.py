"""Labelled cases on disk: the work folder, its cases, their truth, its split, and the records of what was made of what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.workfolder.cases import Case, find_labelled_cases, with_labels_of
    from flrplan.workfolder.folder import FINAL_CHECKPOINT, IMAGE_SUFFIX, WorkFolder
    from flrplan.workfolder.instances import Instances, layer_paths, read_instances, union_of, write_instances
    from flrplan.workfolder.parallel import map_cases
    from flrplan.workfolder.records import (
        RUN_NAME,
        ModelIdentity,
        PartRecord,
        RunRecord,
        read_record,
        require_same,
        write_record,
    )
    from flrplan.workfolder.split import HELD_OUT_PART, SPLITS_NAME, Split, fold_part, nnunet_split, read_split, require_fold
    from flrplan.workfolder.truth import TRUTH, TruthFiles

__all__ = [
    "FINAL_CHECKPOINT",
    "HELD_OUT_PART",
    "IMAGE_SUFFIX",
    "RUN_NAME",
    "SPLITS_NAME",
    "TRUTH",
    "Case",
    "Instances",
    "ModelIdentity",
    "PartRecord",
    "RunRecord",
    "Split",
    "TruthFiles",
    "WorkFolder",
    "find_labelled_cases",
    "fold_part",
    "layer_paths",
    "map_cases",
    "nnunet_split",
    "read_instances",
    "read_record",
    "read_split",
    "require_fold",
    "require_same",
    "union_of",
    "with_labels_of",
    "write_instances",
    "write_record",
]

import_at_first_use(
    __name__,
    {
        "flrplan.workfolder.cases": (
            "Case",
            "find_labelled_cases",
            "with_labels_of",
        ),
        "flrplan.workfolder.folder": (
            "FINAL_CHECKPOINT",
            "IMAGE_SUFFIX",
            "WorkFolder",
        ),
        "flrplan.workfolder.instances": (
            "Instances",
            "layer_paths",
            "read_instances",
            "union_of",
            "write_instances",
        ),
        "flrplan.workfolder.parallel": ("map_cases",),
        "flrplan.workfolder.records": (
            "RUN_NAME",
            "ModelIdentity",
            "PartRecord",
            "RunRecord",
            "read_record",
            "require_same",
            "write_record",
        ),
        "flrplan.workfolder.split": (
            "HELD_OUT_PART",
            "SPLITS_NAME",
            "Split",
            "fold_part",
            "nnunet_split",
            "read_split",
            "require_fold",
        ),
        "flrplan.workfolder.truth": (
            "TRUTH",
            "TruthFiles",
        ),
    },
)
