"""From a folder of labels, and one of images, to cases: planning maps, masks in a folder per case, or single masks of one structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flrplan.anatomy import COMPARTMENTS_OF, Mask, Structure, check_planning_map, structure_mask
from flrplan.errors import LabelError
from flrplan.files import entries
from flrplan.image import (
    CT,
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
from flrplan.image.orientation import in_axis_order
from flrplan.image.volume_file import image_suffix
from flrplan.qc.case import QcCase
from flrplan.workfolder import TruthFiles, WorkFolder

MAP_IN_CASE = "planning"
"""Name of the planning map in the folder of a case, as ``flrplan plan`` writes it."""
_OTHER_FOLDERS = ("images", "labels", "masks", "truth")
"""Of a work folder or a cohort (:class:`flrplan.workfolder.WorkFolder`)."""


@dataclass(frozen=True)
class LabelFiles:
    """The label of one case, and the image of its name; None where there is none."""

    case: str
    truth: TruthFiles
    image: Path | None = None


def find_labels(folder: Path, structure: Structure | None = None) -> list[LabelFiles]:
    """The labels of a folder, by case in natural order.

    ``FOLDER/labels/CASE.nii.gz`` or, without such a folder, ``FOLDER/CASE.nii.gz``: planning maps, or masks of ``structure`` where that is
    given. ``FOLDER/masks/CASE/STRUCTURE.nii.gz``, ``FOLDER/CASE/STRUCTURE.nii.gz``: masks. ``FOLDER/CASE/planning.nii.gz``: a plan's map.
    NRRD and MetaImage likewise.

    Raises: ImageError where the folder cannot be read; LabelError where it holds no label, or two files for one.
    """
    found: dict[str, LabelFiles] = {}
    work = WorkFolder(folder)
    maps = work.labels if work.labels.is_dir() else folder
    for path in entries(maps):
        if image_suffix(path) is None or path.is_dir():
            continue
        name = case_name(path).removesuffix(".seg")
        _require_new(found, name, path)
        found[name] = LabelFiles(name, TruthFiles(None, {structure: path}) if structure else TruthFiles(path))
    holders = [p for p in entries(folder) if p.is_dir() and p.name not in _OTHER_FOLDERS]
    if work.masks.is_dir():
        holders += [p for p in entries(work.masks) if p.is_dir()]
    for holder in holders:
        named = {case_name(p): p for p in entries(holder) if image_suffix(p) is not None and not p.is_dir()}
        masks = {s: named[s.value] for s in Structure if s.value in named}
        own_map = named.get(MAP_IN_CASE)
        if not masks and own_map is None:
            continue
        before = found[holder.name].truth if holder.name in found else TruthFiles()
        if own_map is not None and before.planning_map is not None:
            _require_new(found, holder.name, own_map)
        truth = TruthFiles(own_map or before.planning_map, {**before.masks, **masks})
        found[holder.name] = LabelFiles(holder.name, truth)
    if not found:
        raise LabelError(
            f"{folder}: no label; expected CASE.nii.gz (planning maps, or with --structure masks), labels/CASE.nii.gz, "
            "CASE/liver.nii.gz or masks/CASE/liver.nii.gz"
        )
    return [found[name] for name in sorted(found, key=natural_key)]


def _require_new(found: Mapping[str, LabelFiles], name: str, path: Path) -> None:
    if name in found:
        raise LabelError(f"two labels of case {name}: {found[name].truth.first} and {path}; take one of them out of the folder")


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
    if files.truth.planning_map is not None:
        array, grid = read_label_map(files.truth.planning_map)
        planning = check_planning_map(array, str(files.truth.planning_map))
        masks = {s: structure_mask(planning, s) for s in COMPARTMENTS_OF}
        if files.truth.masks:
            masks.pop(Structure.LRS, None)
    for structure in sorted(files.truth.masks, key=lambda s: list(Structure).index(s)):
        path = files.truth.masks[structure]
        array, own = read_label_map(path)
        mask = binary_mask(array, structure, str(path))
        grid = grid or own
        turned = in_axis_order(mask, own, grid)
        if turned is None:
            off[str(path)] = own
            masks.pop(structure, None)
        else:
            masks[structure] = turned
    if grid is None:
        raise LabelError(f"case {files.case}: no label file")
    ct = None if files.image is None else read_ct(files.image)
    if ct is not None:
        hu = in_axis_order(ct.array_zyx, ct.geometry, grid)
        if hu is None:
            off[str(files.image)] = ct.geometry
            ct = None
        else:
            ct = CT(hu, grid, files.case, ct.source, ct.warnings)
    return QcCase(files.case, grid, masks, ct, off)
