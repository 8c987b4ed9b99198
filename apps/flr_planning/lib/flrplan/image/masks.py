"""Masks and label maps from files, on the grid of their CT."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from flrplan.anatomy import KNOWN_LABEL_NAMES, Mask, Structure, decode_layers, label_name, resemblance
from flrplan.errors import EmptyLiverError, ImageError, LabelError
from flrplan.image.ct import CT
from flrplan.image.dicom_files import is_dicom
from flrplan.image.dicom_seg import read_dicom_layers, with_empty_compartments
from flrplan.image.geometry import Geometry, require_same_grid
from flrplan.image.segmentation import read_segmentation, whole_numbers
from flrplan.image.volume_file import image_suffix, read_volume


def read_label_map(path: Path) -> tuple[NDArray[Any], Geometry]:
    """A label map ``(Z, Y, X)`` of integers as it is stored, and its grid; whole numbers stored as floats become int32.

    Raises: ImageError where the file is missing, damaged, not one 3D volume, or holds NaN or infinity; LabelError for values
    that are not whole.
    """
    try:
        volume = read_volume(Path(path))
    except ImageError as error:
        if str(path).lower().endswith(".seg.nrrd") and "one value per voxel" in str(error):
            raise LabelError(
                f"{path}: its segments overlap, so 3D Slicer keeps them in layers; export each into a file of its own (Segmentations, "
                "Export to files)"
            ) from error
        raise
    return whole_numbers(sitk.GetArrayFromImage(volume.image), str(path)), volume.geometry


def read_mask(path: str | os.PathLike[str], ct: CT, structure: Structure) -> Mask:
    """The ``(Z, Y, X) bool`` mask of one structure on the CT's grid; 0 and one other value (1, 255, ...) count as binary.

    A DICOM SEG (a file, or a folder that holds nothing else) and 3D Slicer's ``.seg.nrrd`` may hold several segments: those with known
    label names are read as a label of an annotator is (:func:`flrplan.anatomy.decode_layers`); a single segment with another name is the
    mask.

    Raises:
        EmptyLiverError: a liver without voxels. Every other structure may be empty.
        GridError: another grid than the CT's.
        LabelError: not binary, or a SEG that does not hold the structure. ImageError: missing or damaged.
    """
    mask, _ = read_mask_on(Path(path), structure, ct.geometry, ct.source)
    if structure is Structure.LIVER and not mask.any():
        raise EmptyLiverError(f"{path}: the liver mask has no voxels; draw the liver, or leave the mask out to predict it")
    return mask


def read_mask_on(path: Path, structure: Structure | str, grid: Geometry | None, grid_of: str) -> tuple[Mask, Geometry]:
    """As :func:`read_mask` on any grid, also an empty liver; None: the file's own, which a DICOM SEG does not have alone."""
    path = _file_of(path)
    if image_suffix(path) is None and path.is_file() and is_dicom(path):
        if grid is None:
            raise LabelError(f"{path}: a DICOM SEG is read beside its CT alone; convert it to a file of a label map")
        return _named_mask(with_empty_compartments(_layers_of_seg(path, grid)), structure, str(path)), grid
    held = read_segmentation(path)
    if held.names is None:
        if grid is not None:
            require_same_grid(grid, held.geometry, grid_of, str(path))
        return binary_mask(held.layers[0], structure, str(path)), grid or held.geometry
    held = held if grid is None else held.on(grid, grid_of)
    if len(held.layers) == 1 and len(_values(held.layers[0])) <= 1:
        return binary_mask(held.layers[0], structure, str(path)), held.geometry
    return _named_mask(list(zip(held.layers, held.names or (), strict=True)), structure, str(path)), held.geometry


def read_layers(path: Path, ct: CT) -> list[tuple[NDArray[Any], Mapping[str, int] | None]]:
    """All label maps ``(Z, Y, X)`` of a file on the CT's grid, with the names of their segments and their values; None where it has none.

    A plain label map, a ``.seg.nrrd`` or a DICOM SEG. Axes are turned and flipped as needed, nothing is interpolated.
    Raises: as :func:`read_mask`.
    """
    path = _file_of(path)
    if image_suffix(path) is None and path.is_file() and is_dicom(path):
        return list(_layers_of_seg(path, ct.geometry))
    held = read_segmentation(path).on(ct.geometry, ct.source)
    return list(zip(held.layers, held.names or [None], strict=True))


def binary_mask(array: NDArray[Any], structure: Structure | str, source: str) -> Mask:
    """An array of bool, or of 0 and one other value, as a mask ``bool`` of its shape; it may be empty.

    Raises: LabelError naming ``source`` and the values found.
    """
    if array.dtype == np.bool_:
        return array
    values = _values(array)
    if len(values) > 1:
        raise LabelError(
            f"{source}: expected a binary {structure} mask (0 and one other value), found the values {[0, *values][:6]}"
            f"{resemblance(values)}; save the {structure} alone"
        )
    return np.asarray(array != 0)


def _values(array: NDArray[Any]) -> list[Any]:
    return [v for v in np.unique(array).tolist() if v != 0]


def _file_of(path: Path) -> Path:
    """The one DICOM file of a folder, as viewers export a SEG; a file as it is. Raises ImageError for any other folder."""
    if not path.is_dir():
        return path
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    if len(files) == 1 and is_dicom(files[0]):
        return files[0]
    raise ImageError(f"{path} is a folder, expected the file of a mask or of a DICOM SEG; give one of its {len(files)} files")


def _layers_of_seg(path: Path, grid: Geometry) -> list[tuple[NDArray[np.uint8], dict[str, int]]]:
    try:
        seg = pydicom.dcmread(path)
    except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, KeyError) as error:
        raise ImageError(f"{path}: the DICOM file is cut off or damaged ({error}); copy or export it again") from error
    kind = str(seg.get("Modality"))
    if kind in _NO_SEG:
        raise LabelError(f"{path}: expected a BINARY DICOM SEG, found {_NO_SEG[kind]}")
    return read_dicom_layers(seg, grid, str(path))


_NO_SEG = {
    "CT": "a slice of a CT; give the segmentation that was drawn on it",
    "RTSTRUCT": "an RT structure set, which holds contours; convert it to a label map on the CT's grid (3D Slicer with SlicerRT does)",
    "SR": "a structured report, which holds no voxels; give the segmentation that it refers to",
}


def _named_mask(layers: Sequence[tuple[NDArray[Any], Mapping[str, int]]], structure: Structure | str, path: str) -> Mask:
    """The mask of a structure in label maps whose segments have names. Raises LabelError where they do not hold the structure."""
    names = [name for _, named in layers for name in named]
    known = [{name: n for name, n in named.items() if label_name(name) in KNOWN_LABEL_NAMES} for _, named in layers]
    if not any(known) and len(names) == 1:
        return np.asarray(np.logical_or.reduce([label != 0 for label, _ in layers]))
    if not any(known):
        raise LabelError(f"{path}: none of its segments {sorted(names)} is called {structure}; rename it or save it alone")
    ours = [(np.where(np.isin(label, list(k.values())), label, 0), k) for (label, _), k in zip(layers, known, strict=True)]
    held = decode_layers(ours, path)
    if not isinstance(structure, Structure) or structure not in held.holds:
        raise LabelError(f"{path}: its segments {sorted(names)} do not hold {structure}; rename it or save it alone")
    return held.masks[structure]
