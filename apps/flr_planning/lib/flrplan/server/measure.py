"""The task ``measure``: a person's own label gets its numbers; nothing is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from flrplan import __version__
from flrplan.anatomy import PLANNED, PlanningLabel, Structure, to_label_map
from flrplan.errors import EmptyLiverError
from flrplan.image import CT, read_ct
from flrplan.method import CascadeResult, Source
from flrplan.planning import Plan
from flrplan.qc import QcCase, Severity, check_case
from flrplan.server.annotations import chosen_label, stored_label
from flrplan.server.answer import present, volumes_of_masks
from flrplan.server.host import IMAGE_ID, image_path
from flrplan.server.label_table import COMPARTMENT_NAMES, label_colors
from flrplan.server.result_file import ResultFormat, write_result
from flrplan.server.studies import PlanningDatastore

MEASURE = "measure"
NAMES: Mapping[str, int] = {**COMPARTMENT_NAMES, **{s.value: i for i, s in enumerate(Structure, len(COMPARTMENT_NAMES) + 1)}}
"""What its label file may hold: the compartments of a whole plan, or the structures of a label that is none yet."""


class MeasureTask(InferTask):  # type: ignore[misc]  # monailabel is untyped
    """The ``final`` label of an image, with its volumes, its FLR and what label QC finds in it."""

    def __init__(self, datastore: PlanningDatastore) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=dict(NAMES),
            dimension=3,
            description="volumes, FLR and findings of your own final label; nothing is predicted",
            config={},
        )
        self._datastore = datastore

    def is_valid(self) -> bool:
        """Always: it needs no model."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Path of the label file and its params. Raises FlrError, whose message is meant for the user."""
        wanted = ResultFormat.from_request(request)
        started = perf_counter()
        ct = read_ct(image_path(request, self._datastore))
        image_id = request.get(IMAGE_ID)
        array, names, params = measure(stored_label(self._datastore, image_id, ct, MEASURE)[1], ct)
        params["label"], notes = chosen_label(self._datastore, str(image_id))
        params["warnings"] = [*params["warnings"], *notes]
        path = write_result(array, ct.geometry, names, wanted)
        params["seconds"] = {"total": round(perf_counter() - started, 3)}
        return str(path), params


def measure(label: PlanningLabel, ct: CT) -> tuple[NDArray[np.uint8], dict[str, int], dict[str, Any]]:
    """The label map ``(Z, Y, X) uint8`` that shows a label, its names, and its numbers as plain JSON values.

    A label that states liver, CRLM and FLR is measured as a plan; of any other, each structure that it states is measured alone.
    Raises: EmptyLiverError where the label names a liver without voxels.
    """
    masks = label.masks
    if Structure.LIVER in masks and not masks[Structure.LIVER].any():
        raise EmptyLiverError(f"{MEASURE}: the liver in the final label of {ct.name} has no voxels; draw it")
    numbers: dict[str, Any]
    if all(s in masks for s in PLANNED):
        result = CascadeResult(ct, {s: masks[s] for s in PLANNED}, dict.fromkeys(PLANNED, Source.GIVEN), {}, {}, ct.warnings)
        plan = Plan(result)
        array, names = plan.label_zyx, dict(COMPARTMENT_NAMES)
        report = plan.report()
        kept = (
            "volumes",
            "flr_partial_volume_ml",
            "resection_parts",
            "remnant_parts",
            "lesions",
            "smallest_margin",
            "warnings",
            "findings",
        )
        numbers = {key: report[key] for key in kept}
    else:
        unsaid = [s.value for s in PLANNED if s not in masks]
        array, own = to_label_map(label, f"the final label of {ct.name}")
        lookup = np.zeros(max(own.values()) + 1, np.uint8)
        lookup[list(own.values())] = [NAMES[name] for name in own]
        array, names = lookup[array], {name: NAMES[name] for name in own}
        found = check_case(QcCase(ct.name, ct.geometry, masks, ct)).findings
        warnings = [
            *ct.warnings,
            f"no plan yet: the label does not state {' and '.join(unsaid)}; draw it, or name it and leave it empty",
        ]
        numbers = {
            "volumes": volumes_of_masks(masks, ct.geometry.voxel_volume_ml),
            "warnings": [*warnings, *(f.message for f in found if f.severity is not Severity.NOTE)],
            "findings": [f.as_dict() for f in found],
        }
    names = {name: value for name, value in names.items() if name in present(array, names)}
    return (
        array,
        names,
        {
            "label_names": names,
            "labels_present": list(names),
            "label_colors": label_colors(names),
            "given": [s.value for s in Structure if s in masks],
            "predicted": [],
            "models": {},
            "demo_models": False,
            **numbers,
            "software": f"flrplan {__version__}",
        },
    )
