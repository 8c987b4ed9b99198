"""One CT volume from the slices or frames of a DICOM series, placed by their positions, never by SliceThickness."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.errors import ImageError
from flrplan.image.dicom_files import DicomFile, choose_series, missing_references, named
from flrplan.image.dicom_frames import PlainFiles
from flrplan.image.geometry import SAME_GRID_TOLERANCE_VOXELS, Geometry, straighten
from flrplan.image.hounsfield import as_hu
from flrplan.image.volume_file import itk_path

DUPLICATE_MM = 0.01
"""Two slices closer than this lie at one position; the finest reconstruction steps are 0.1 mm or more."""

MAX_POSITION_ERROR_SLICES = 0.25
"""How far a slice may lie from its place on the evenly spaced grid, as a part of the slice spacing.

Positions rounded to 0.1 mm err by 0.05 mm, a tenth of a slice at 0.5 mm; one missing slice shifts a neighbour by half a slice
or more, wherever it was.
"""

MAX_DRIFT_PIXELS = 0.5
"""How far a slice may lie beside the line through the first slice along the normal. Within it every voxel still covers its
own place; a gantry tilt of 1 degree over 200 mm of slices drifts by 3.5 mm, four to five pixels."""

ORIENTATION_TOLERANCE = 1e-4
"""Largest difference of direction cosines within a series: a twentieth of a pixel over 512 pixels."""

SPACING_TOLERANCE = 1e-4
"""Largest relative difference of the pixel spacing within a series: a twentieth of a pixel over 512 pixels."""

_NEEDED = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}


@dataclass(frozen=True)
class _Placed:
    """Slices in order along the normal; ``along_mm (N,)`` are their positions on it."""

    files: tuple[DicomFile, ...]
    along_mm: NDArray[np.float64]


def read_dicom_series(
    path: Path, series: str | None = None
) -> tuple[NDArray[Any], Geometry, tuple[DicomFile, ...], tuple[str, ...]]:
    """HU ``(Z, Y, X)`` int16 or float32, the grid, the file or frame of each slice, and warnings, of the CT volume in a DICOM folder.

    Slices run along the normal of their orientation (row x column), so the direction is right-handed, as in ITK. Each slice
    is decoded by GDCM with its own rescale slope and intercept. Frames of an enhanced CT are slices, in whatever order; of files
    that are the same byte for byte, one is used.

    Raises: ImageError where the slices are not one whole, evenly spaced, straight volume, or cannot be decoded.
    """
    chosen = choose_series(path, series)
    source = f"{path} (series {chosen.title})"
    _ = chosen.patient_id  # of one patient
    slices, copies = _without_copies(chosen.slices, source)
    values = {keyword: _numbers(slices, keyword, size, source) for keyword, size in _NEEDED.items()}
    _check_uniform(slices, values, source)
    size = (int(values["Columns"][0, 0]), int(values["Rows"][0, 0]))
    row_mm, column_mm = (float(s) for s in values["PixelSpacing"][0])
    direction, turned = _direction(values["ImageOrientationPatient"][0], size, (column_mm, row_mm), source)
    along = values["ImagePositionPatient"] @ direction[:, 2]
    order = np.argsort(along, kind="stable")
    placed = _Placed(tuple(slices[i] for i in order), along[order])
    step_mm, uneven = _slice_spacing(placed, source)
    positions = values["ImagePositionPatient"][order]
    beside = _check_drift(placed, positions, direction[:, 2], min(row_mm, column_mm), source)
    first = (float(positions[0, 0]), float(positions[0, 1]), float(positions[0, 2]))
    try:
        geometry = Geometry(
            (*size, len(order)), (column_mm, row_mm, step_mm), first, tuple(float(d) for d in direction.ravel())
        )
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from error
    array = _pixels(placed.files, geometry.shape_zyx, source)
    missing = missing_references(placed.files)
    return array, geometry, placed.files, (*missing, *chosen.warnings, *copies, *turned, *uneven, *beside, *_doubts(slices))


def _without_copies(files: Sequence[DicomFile], source: str) -> tuple[list[DicomFile], list[str]]:
    """The files without those that are copies, byte for byte, of another one, and a warning that names these."""
    kept: list[DicomFile] = []
    copies: list[DicomFile] = []
    at: dict[tuple[str, str], list[DicomFile]] = defaultdict(list)
    for file in files:
        same_place = at[file.instance, file.text("ImagePositionPatient")]
        twin = file.frame is None and any(filecmp.cmp(file.path, other.path, shallow=False) for other in same_place)
        (copies if twin else kept).append(file)
        same_place.append(file)
    if not copies:
        return kept, []
    if len(kept) < 2:
        raise ImageError(f"{source}: expected a volume, found one slice and {len(copies)} copies of it; give the whole series")
    return kept, [f"{len(copies)} files are copies of other slices and are not used: {named(copies)}"]


def _direction(
    cosines: NDArray[np.float64], size_xy: tuple[int, int], spacing_mm: tuple[float, float], source: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """``(3, 3)`` axes of a slice and its normal at right angles, from six direction cosines that a header may have rounded."""
    row, column = cosines.reshape(2, 3)
    normal = np.cross(row, column)
    length = float(np.linalg.norm(normal))
    stated = np.stack([row, column, normal / (length or 1.0)], axis=1)
    grid, warnings = straighten(
        (*size_xy, 1), (*spacing_mm, 1.0), (0.0, 0.0, 0.0), stated, f"{source}: ImageOrientationPatient"
    )
    return grid.direction_matrix, warnings


def _numbers(files: Sequence[DicomFile], keyword: str, size: int, source: str) -> NDArray[np.float64]:
    """``(files, size) float64``; every file must state the value."""
    rows = []
    for file in files:
        value = file.header.get(keyword)
        parts = [] if value is None else [value] if size == 1 else list(value)
        if len(parts) != size or not np.isfinite([float(p) for p in parts]).all():
            raise ImageError(
                f"{source}: {file.name} states no usable {keyword} (found {value!r}), so the slice cannot be placed; "
                "export the series again"
            )
        rows.append([float(p) for p in parts])
    return np.array(rows, np.float64)


def _check_uniform(files: Sequence[DicomFile], values: dict[str, NDArray[np.float64]], source: str) -> None:
    spacing = values["PixelSpacing"]
    if (spacing <= 0).any():
        raise ImageError(f"{source}: PixelSpacing must be positive, found {spacing.min():g} mm; export the series again")
    checks = (
        ("Rows", "size", 0.0),
        ("Columns", "size", 0.0),
        ("PixelSpacing", "pixel spacing", SPACING_TOLERANCE * float(spacing.min())),
        ("ImageOrientationPatient", "orientation", ORIENTATION_TOLERANCE),
    )
    for keyword, name, tolerance in checks:
        array = values[keyword]
        other = int(np.abs(array - array[0]).max(axis=1).argmax())
        if np.abs(array[other] - array[0]).max() > tolerance:
            raise ImageError(
                f"{source}: expected slices of one {name}, but {keyword} is {array[0].tolist()} in {files[0].name} and "
                f"{array[other].tolist()} in {files[other].name}; give one reconstruction only"
            )


def _slice_spacing(placed: _Placed, source: str) -> tuple[float, list[str]]:
    """The mean step in mm. Raises ImageError for slices at one place, missing ones, and uneven steps."""
    steps = np.diff(placed.along_mm)
    twice = np.flatnonzero(steps < DUPLICATE_MM)
    if twice.size:
        first, second = placed.files[twice[0]], placed.files[twice[0] + 1]
        raise ImageError(
            f"{source}: {twice.size} slices lie where another one lies, such as {first.name} and {second.name}"
            f"{_phases(placed.files)}; keep one volume only"
        )
    mean, median = float(steps.mean()), float(np.median(steps))
    even = placed.along_mm[0] + mean * np.arange(len(placed.files))
    error = np.abs(placed.along_mm - even).max()
    if error > MAX_POSITION_ERROR_SLICES * median:
        widest = int(np.abs(steps - median).argmax())
        missing = round(steps[widest] / median) - 1
        what = f"{missing} slices are missing" if missing > 0 else "the slices are not evenly spaced"
        raise ImageError(
            f"{source}: {what}: expected steps of {median:.3g} mm, found {steps[widest]:.3g} mm between "
            f"{placed.files[widest].name} and {placed.files[widest + 1].name}{_phases(placed.files)}; export the whole series again"
        )
    if error > SAME_GRID_TOLERANCE_VOXELS * mean:
        return mean, [f"slices lie up to {error:.2f} mm from even steps of {mean:.3f} mm; even steps are assumed"]
    return mean, []


def _phases(files: Sequence[DicomFile]) -> str:
    """In brackets, what tells slices of one series apart, where something does: acquisitions, or stacks and times of frames."""
    words = []
    for name, keyword in (("acquisitions", "AcquisitionNumber"), ("stacks", "StackID"), ("times", "TemporalPositionIndex")):
        numbers = sorted({f.text(keyword) for f in files} - {""})
        words += [f"{name} {', '.join(numbers[:9])}"] if len(numbers) > 1 else []
    return f" ({'; '.join(words)}: several phases in one series?)" if words else ""


def _check_drift(
    placed: _Placed, positions_mm: NDArray[np.float64], normal: NDArray[np.float64], pixel_mm: float, source: str
) -> list[str]:
    """A warning where slices lie visibly beside the straight line through the first. Raises ImageError for more than that."""
    beside = positions_mm - positions_mm[0] - np.outer(placed.along_mm - placed.along_mm[0], normal)
    drift = np.linalg.norm(beside, axis=1)
    worst = int(drift.argmax())
    if drift[worst] <= SAME_GRID_TOLERANCE_VOXELS * pixel_mm:
        return []
    tilt = np.degrees(np.arctan2(drift[-1], placed.along_mm[-1] - placed.along_mm[0]))
    if drift[worst] <= MAX_DRIFT_PIXELS * pixel_mm:
        return [
            f"slices lie up to {drift[worst]:.2f} mm beside a straight line, as by {tilt:.2f} degrees; a straight grid is assumed"
        ]
    stated = placed.files[0].text("GantryDetectorTilt")
    raise ImageError(
        f"{source}: the slices do not lie straight above each other: {placed.files[worst].name} is {drift[worst]:.2f} mm "
        f"beside the first one, as after a gantry tilt of {tilt:.1f} degrees (GantryDetectorTilt: {stated or 'not stated'}); "
        "resample it to a straight grid first, for example with dcm2niix"
    )


def _pixels(files: Sequence[DicomFile], shape_zyx: tuple[int, int, int], source: str) -> NDArray[Any]:
    volume: NDArray[Any] = np.empty(shape_zyx, np.int16)
    with TemporaryDirectory(prefix="flrplan-dicom-") as scratch:
        plain = PlainFiles(Path(scratch))
        for z, file in enumerate(files):
            slope = float(file.text("RescaleSlope") or 1)
            if slope == 0 or not np.isfinite([slope, float(file.text("RescaleIntercept") or 0)]).all():
                raise ImageError(f"{source}: {file.name} has the rescale slope {slope:g}, so it holds no HU; export it again")
            plane = as_hu(_decoded(file, plain.of(file)), f"{file.path.parent / file.name}")
            if plane.shape != (1, *shape_zyx[1:]):
                raise ImageError(
                    f"{file.path.parent / file.name}: expected {shape_zyx[1:]} pixels as its header says, found {plane.shape}; "
                    "export it again"
                )
            if plane.dtype != volume.dtype and volume.dtype == np.int16:
                volume = volume.astype(np.float32)
            volume[z] = plane[0]
    return volume


def _decoded(file: DicomFile, path: Path) -> NDArray[Any]:
    """One slice ``(1, Y, X)`` after its own rescale; GDCM picks a type that holds the result exactly."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(itk_path(path))
    try:
        return np.asarray(sitk.GetArrayFromImage(reader.Execute()))
    except RuntimeError as error:
        syntax = getattr(getattr(file.header, "file_meta", None), "TransferSyntaxUID", None)
        name = getattr(pydicom.uid.UID(str(syntax)), "name", syntax) if syntax else "unknown"
        raise ImageError(
            f"{file.path.parent / file.name}: its pixels cannot be decoded (transfer syntax {name}): the file is cut off, damaged or "
            "compressed in an unknown way; export the series again without compression"
        ) from error


def _doubts(slices: Sequence[DicomFile]) -> list[str]:
    doubts = []
    if any("RescaleIntercept" not in f.header for f in slices):
        doubts.append("slices state no RescaleIntercept; their values are taken as HU")
    if any(f.text("LossyImageCompression") == "01" for f in slices):
        doubts.append("the slices were compressed with loss; small lesions may differ from the original")
    return doubts
