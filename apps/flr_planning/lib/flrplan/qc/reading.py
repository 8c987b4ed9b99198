"""From a folder of labels, and one of images, to cases: planning maps, masks in a folder per case, or single masks of one structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import COMPARTMENTS_OF, Mask, Structure, check_planning_map, structure_mask
from flrplan.errors import LabelError
from flrplan.files import entries
from flrplan.image import (
    CT,
    Canonical,
    Geometry,
    case_name,
    case_names,
    find_cases,
    natural_key,
    read_ct,
    read_label_map,
    without_channel,
)
from flrplan.image.masks import binary_mask
from flrplan.image.volume_file import image_suffix
from flrplan.qc.case import QcCase

MAPS, MASKS = "labels", "masks"
"""Folders of a work folder or a cohort (:mod:`flrplan.workfolder.cases`)."""
MAP_IN_CASE = "planning"
"""Name of the planning map in the folder of a case, as ``flrplan plan`` writes it."""
_OTHER_FOLDERS = ("images", MAPS, MASKS, "truth")


@dataclass(frozen=True)
class LabelFiles:
    """The files of one case. Masks go before the planning map, where both state a structure."""

    case: str
    planning_map: Path | None = None
    masks: Mapping[Structure, Path] = field(default_factory=dict)
    image: Path | None = None

    @property
    def named(self) -> Path:
        """A file, or the folder of the masks, to name the case's label by."""
        return self.planning_map or next(iter(self.masks.values()))


def find_labels(folder: Path, structure: Structure | None = None) -> list[LabelFiles]:
    """The labels of a folder, by case in natural order.

    ``FOLDER/labels/CASE.nii.gz`` or, without such a folder, ``FOLDER/CASE.nii.gz``: planning maps, or masks of ``structure`` where that is
    given. ``FOLDER/masks/CASE/STRUCTURE.nii.gz``, ``FOLDER/CASE/STRUCTURE.nii.gz``: masks. ``FOLDER/CASE/planning.nii.gz``: a plan's map.
    NRRD and MetaImage likewise.

    Raises: ImageError where the folder cannot be read; LabelError where it holds no label, or two files for one.
    """
    found: dict[str, LabelFiles] = {}
    maps = folder / MAPS if (folder / MAPS).is_dir() else folder
    for path in entries(maps):
        if image_suffix(path) is None or path.is_dir():
            continue
        name = case_name(path).removesuffix(".seg")
        _require_new(found, name, path)
        found[name] = LabelFiles(name, None, {structure: path}) if structure else LabelFiles(name, path)
    holders = [p for p in entries(folder) if p.is_dir() and p.name not in _OTHER_FOLDERS]
    if (folder / MASKS).is_dir():
        holders += [p for p in entries(folder / MASKS) if p.is_dir()]
    for holder in holders:
        named = {case_name(p): p for p in entries(holder) if image_suffix(p) is not None and not p.is_dir()}
        masks = {s: named[s.value] for s in Structure if s.value in named}
        own_map = named.get(MAP_IN_CASE)
        if not masks and own_map is None:
            continue
        before = found.get(holder.name, LabelFiles(holder.name))
        if own_map is not None and before.planning_map is not None:
            _require_new(found, holder.name, own_map)
        found[holder.name] = replace(before, planning_map=own_map or before.planning_map, masks={**before.masks, **masks})
    if not found:
        raise LabelError(
            f"{folder}: no label; expected CASE.nii.gz (planning maps, or with --structure masks), labels/CASE.nii.gz, "
            "CASE/liver.nii.gz or masks/CASE/liver.nii.gz"
        )
    return [found[name] for name in sorted(found, key=natural_key)]


def _require_new(found: Mapping[str, LabelFiles], name: str, path: Path) -> None:
    if name in found:
        raise LabelError(f"two labels of case {name}: {found[name].named} and {path}; take one of them out of the folder")


def with_images(labels: list[LabelFiles], folder: Path) -> tuple[list[LabelFiles], list[Path]]:
    """The same cases with the images of their names (``CASE_0000`` is ``CASE``), and the images that no label is for.

    Raises: ImageError where the folder holds no CT.
    """
    known = {label.case for label in labels}
    paths = find_cases([folder])
    named = {without_channel(name, known): path for path, name in case_names(paths).items()}
    alone = [path for name, path in named.items() if name not in known]
    return [replace(label, image=named.get(label.case)) for label in labels], alone


def read_case(files: LabelFiles) -> QcCase:
    """The masks of a case and its CT. What lies on another grid than the label is left out and named (:attr:`QcCase.off_grid`).

    The label's grid is that of the planning map, else of the liver, else of the first mask. A file whose axes are only stored in another
    order is turned. A structure of a planning map counts only where no mask states any that it depends on.

    Raises: ImageError, LabelError for a file that cannot be read.
    """
    masks: dict[Structure, Mask] = {}
    grid: Geometry | None = None
    off: dict[str, Geometry] = {}
    if files.planning_map is not None:
        array, grid = read_label_map(files.planning_map)
        planning = check_planning_map(array, str(files.planning_map))
        masks = {s: structure_mask(planning, s) for s in COMPARTMENTS_OF}
        if files.masks:
            masks.pop(Structure.LRS, None)
    for structure in sorted(files.masks, key=lambda s: list(Structure).index(s)):
        path = files.masks[structure]
        array, own = read_label_map(path)
        mask = binary_mask(array, structure, str(path))
        grid = grid or own
        turned = _turned(mask, own, grid)
        if turned is None:
            off[str(path)] = own
            masks.pop(structure, None)
        else:
            masks[structure] = turned
    if grid is None:
        raise LabelError(f"case {files.case}: no label file")
    ct = None if files.image is None else read_ct(files.image)
    if ct is not None:
        hu = _turned(ct.array_zyx, ct.geometry, grid)
        if hu is None:
            off[str(files.image)] = ct.geometry
            ct = None
        else:
            ct = CT(hu, grid, files.case, ct.source, ct.warnings)
    return QcCase(files.case, grid, masks, ct, off)


def _turned(array: NDArray[Any], own: Geometry, grid: Geometry) -> NDArray[Any] | None:
    """An array on ``own`` in the axis order of ``grid``; None where they are different places."""
    if grid.is_same_grid(own):
        return array
    here, there = Canonical.of(grid), Canonical.of(own)
    return np.asarray(here.backward(there.forward(array))) if here.target.is_same_grid(there.target) else None
