"""From a CT, and the masks that are given, to its plan."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Mask, Structure
from flrplan.engine import Cascade, NoteStep
from flrplan.errors import LabelError, SettingsError
from flrplan.files import files_below
from flrplan.image import CT, read_ct, read_mask
from flrplan.image.finite import count_non_finite, require_finite
from flrplan.image.masks import binary_mask
from flrplan.method import stage_named
from flrplan.planning import REPORT_NAME, Plan
from flrplan.workfolder import ModelIdentity

PathLike = str | os.PathLike[str]


def plan(
    ct: CT | PathLike,
    *,
    liver: PathLike | NDArray[Any] | None = None,
    crlm: PathLike | NDArray[Any] | None = None,
    series: str | None = None,
    name: str | None = None,
    cascade: Cascade | None = None,
    on_step: NoteStep | None = None,
) -> Plan:
    """Segments liver, metastases and future liver remnant (FLR), and measures them. For research use only.

    Example::

        plan = flrplan.plan("patient.nii.gz", liver="my_liver.nii.gz")
        plan.volumes.flr_fraction    # 0..1, remnant parenchyma over all parenchyma
        plan.save("plans/patient")

    Args:
        ct: what :func:`flrplan.image.ct.read_ct` reads (NIfTI, NRRD, MetaImage, a DICOM folder), or the CT that it gave.
        liver, crlm: masks that are taken and not predicted. A file (NIfTI, NRRD, DICOM SEG) must lie on the CT's grid; an array
            ``(Z, Y, X)``, bool or 0 and one other value, must have the CT's shape, in the CT's own axis order.
        series: SeriesInstanceUID, where a DICOM folder holds several.
        name: what the case is called; by default after the file or the PatientID.
        cascade: models, device and how they run; given several times, it keeps its models loaded. None: the app's models (the demo
            models where none was trained), on a GPU where there is one.
        on_step: called with a short text before each prediction.

    Raises: ImageError for a CT that cannot be used; GridError for a mask on another grid; LabelError for one that is not binary;
        EmptyLiverError where the liver is empty, be it given or predicted (an empty CRLM is an answer); ModelError where a model is
        missing or damaged; SettingsError. All are FlrError.
    """
    cascade = Cascade() if cascade is None else cascade
    masks = {s: mask for s, mask in ((Structure.LIVER, liver), (Structure.CRLM, crlm)) if mask is not None}
    files = {s: Path(mask) for s, mask in masks.items() if isinstance(mask, str | os.PathLike)}
    if isinstance(ct, CT):
        request = None
    elif isinstance(ct, str | os.PathLike):
        request = request_of(Path(ct), files) if len(files) == len(masks) else None
        ct = read_ct(ct, series)
    else:
        raise SettingsError(f"ct: expected a path or a flrplan.CT, which knows its grid, got {type(ct).__name__}")
    image = ct if name is None else replace(ct, name=name)
    given = {s: _mask(mask, image, s) for s, mask in masks.items()}
    if image.array_zyx.dtype.kind == "f":  # a CT of the caller's own; read_ct has looked
        require_finite(count_non_finite(image.array_zyx), image.array_zyx.size, f"case {image.name}")
    result = cascade.run(image, given, on_step=on_step)
    for mask in result.masks.values():
        mask.setflags(write=False)  # volumes and warnings are computed from them later
    return Plan(result, request)


def _mask(mask: PathLike | NDArray[Any], ct: CT, structure: Structure) -> Mask:
    if isinstance(mask, str | os.PathLike):
        return read_mask(Path(mask), ct, structure)
    array = np.array(mask)  # a copy: what becomes of the caller's array is not the plan's
    if array.dtype.kind not in "biuf":
        raise LabelError(f"the given {structure}: expected an array of bool or of numbers, found {array.dtype}")
    if array.dtype.kind == "f":
        require_finite(count_non_finite(array), array.size, f"the given {structure}")
    return binary_mask(array, structure, f"the given {structure}")


def request_of(ct: Path, masks: Mapping[Structure, Path]) -> dict[str, Any]:
    """What is asked for one case: the files, with size and time, so that a plan of other files is never taken for it."""

    def stamp(file: Path) -> list[object]:
        parts = files_below(file) if file.is_dir() else [file] if file.is_file() else []
        return [
            str(file.resolve()),
            sum(p.stat().st_size for p in parts),
            max((p.stat().st_mtime_ns for p in parts), default=0),
        ]

    return {"ct": stamp(ct), **{s.value: stamp(mask) for s, mask in masks.items()}}


def is_planned(folder: Path, request: Mapping[str, Any], cascade: Cascade) -> bool:
    """True if the folder holds the plan of this request by these models. Raises SettingsError where it holds another one's."""
    report = folder / REPORT_NAME
    if not report.is_file():
        return False
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        before = content.get("request")
        models = {s: ModelIdentity.from_json(m).decides for s, m in content.get("models", {}).items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        before, models = None, {}
    if before != request:
        raise SettingsError(
            f"{folder} holds the plan of other files (another CT, or other given masks); use another --out, or --force to replace it"
        )
    for stage, model in models.items():
        if cascade.identity(stage_named(stage)).decides != model:
            raise SettingsError(f"{folder} was planned by another {stage} model; use another --out, or --force to replace it")
    return True
