"""Reads truth and predictions as binary masks on one grid. What is not binary, or on another grid, is an error with a name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from flrplan.anatomy import COMPARTMENTS_OF, Mask, Structure, check_planning_map, resemblance, structure_mask
from flrplan.errors import FlrError, LabelError
from flrplan.evaluation.inputs import NEEDED, LabelFiles
from flrplan.image import read_label_map
from flrplan.image.geometry import Geometry, require_same_grid
from flrplan.image.orientation import Canonical
from flrplan.metrics.region import Region
from flrplan.workfolder.instances import read_instances, union_of

UNREADABLE = (FlrError, OSError, RuntimeError)
"""What a broken file raises; SimpleITK's own errors are RuntimeErrors."""


def read_binary(path: Path, geometry: Geometry | None = None, geometry_name: str = "") -> tuple[Mask, Geometry]:
    """A binary mask ``(Z, Y, X) bool`` and its grid; all 0 is an empty mask, which is fine.

    Raises: LabelError for values other than 0 and 1, GridError where ``geometry`` is given and differs, ImageError for an
    unreadable file or one with NaN or infinity; each names the file.
    """
    array, found = read_label_map(path)
    if geometry is not None:
        require_same_grid(geometry, found, geometry_name, str(path))
    mask = array == 1
    if np.count_nonzero(mask) + np.count_nonzero(array == 0) != array.size:
        values = np.unique(array).tolist()
        others = [v for v in values if v not in (0, 1)]
        raise LabelError(
            f"{path}: a binary mask holds 0 and 1, found {others[:5]}{resemblance(values)}; write one binary file per structure"
        )
    return mask, found


def read_truth(
    label: LabelFiles, case: str, structures: Collection[Structure] = NEEDED
) -> tuple[dict[Structure, Mask], Geometry]:
    """The masks of the structures (liver, CRLM and FLR) of one case on one grid; a binary file goes before the planning map.

    Raises: LabelError where a structure is stated nowhere (absent is not empty) or values are unknown; GridError where the
    case's files lie on different grids; ImageError for an unreadable file.
    """
    masks: dict[Structure, Mask] = {}
    planning, geometry, name = None, None, ""
    if label.planning_map is not None and not all(s in label.masks for s in structures):
        array, geometry = read_label_map(label.planning_map)
        planning, name = check_planning_map(array, str(label.planning_map)), str(label.planning_map)
    for structure in structures:
        if structure in label.masks:
            masks[structure], found = read_binary(label.masks[structure], geometry, name)
            geometry, name = (found, str(label.masks[structure])) if geometry is None else (geometry, name)
        elif planning is not None and structure in COMPARTMENTS_OF:
            masks[structure] = structure_mask(planning, structure)
        else:
            raise LabelError(
                f"case {case}: no file states {structure}; expected {label.first.parent / f'{structure}.nii.gz'} "
                "(an empty mask if there is none)"
            )
    if geometry is None:
        raise LabelError(f"case {case}: no label file")
    return masks, geometry


def read_lesions(label: LabelFiles, crlm: Mask, geometry: Geometry) -> dict[int, Region] | None:
    """The lesions of the truth by number, as its instances tell them apart; None without instances.

    Raises: LabelError where they are not together the CRLM of the truth (instances of other labels); GridError; ImageError.
    """
    if not label.instances:
        return None
    lesions = read_instances(label.instances, geometry, str(label.first))
    differ = int(np.count_nonzero(union_of(lesions, geometry) ^ crlm))
    if differ:
        raise LabelError(
            f"{label.instances[0].parent}: its lesions together differ from the CRLM of {label.first} in {differ} voxels; they are of "
            "other labels. Prepare them anew, or remove them to count components"
        )
    return lesions


def slice_spacing_mm(geometry: Geometry) -> float:
    """Distance between axial slices, whatever the order of the file's axes."""
    return float(Canonical.of(geometry).target.spacing_mm[2])
