"""One CT volume from the slices of a DICOM series, placed by their positions, never by SliceThickness. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.errors import ImageError
from flrplan.geometry import SAME_GRID_TOLERANCE_VOXELS, Geometry
from flrplan.io.dicom_files import DicomFile, Series, choose_series
from flrplan.io.hounsfield import as_hu

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


def read_dicom_series(path: Path, series: str | None = None) -> tuple[NDArray[Any], Geometry, tuple[str, ...]]:
    """HU ``(Z, Y, X)`` int16 or float32, the grid, and warnings, of the CT volume in a DICOM folder.

    Slices run along the normal of their orientation (row x column), so the direction is right-handed, as in ITK. Each slice
    is decoded by GDCM with its own rescale slope and intercept.

    Raises: ImageError where the slices are not one whole, evenly spaced, straight volume, or cannot be decoded.
    """
    chosen = choose_series(path, series)
    source = f"{path} (series {chosen.uid})"
    values = {keyword: _numbers(chosen.slices, keyword, size, source) for keyword, size in _NEEDED.items()}
    _check_uniform(chosen.slices, values, source)
    cosines = values["ImageOrientationPatient"][0].reshape(2, 3)
    normal = np.cross(cosines[0], cosines[1])
    along = values["ImagePositionPatient"] @ normal
    order = np.argsort(along, kind="stable")
    placed = _Placed(tuple(chosen.slices[i] for i in order), along[order])
    step_mm, warnings = _slice_spacing(placed, source)
    row_mm, column_mm = values["PixelSpacing"][0]
    positions = values["ImagePositionPatient"][order]
    _check_drift(placed, positions, normal, min(row_mm, column_mm), source)
    direction = np.stack([cosines[0], cosines[1], normal], axis=1)
    try:
        geometry = Geometry(
            (int(values["Columns"][0, 0]), int(values["Rows"][0, 0]), len(order)),
            (float(column_mm), float(row_mm), step_mm),
            (float(positions[0, 0]), float(positions[0, 1]), float(positions[0, 2])),
            tuple(float(d) for d in direction.ravel()),
        )
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from error
    array = _pixels(placed.files, geometry.shape_zyx, source)
    return array, geometry, (*warnings, *_doubts(chosen))


def _numbers(files: Sequence[DicomFile], keyword: str, size: int, source: str) -> NDArray[np.float64]:
    """``(files, size) float64``; every file must state the value."""
    rows = []
    for file in files:
        value = file.header.get(keyword)
        parts = [] if value is None else [value] if size == 1 else list(value)
        if len(parts) != size or not np.isfinite([float(p) for p in parts]).all():
            raise ImageError(
                f"{source}: {file.path.name} states no usable {keyword} (found {value!r}), so the slice cannot be placed; "
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
                f"{source}: expected slices of one {name}, but {keyword} is {array[0].tolist()} in {files[0].path.name} and "
                f"{array[other].tolist()} in {files[other].path.name}; give one reconstruction only"
            )


def _slice_spacing(placed: _Placed, source: str) -> tuple[float, list[str]]:
    """The mean step in mm. Raises ImageError for slices at one place, missing ones, and uneven steps."""
    steps = np.diff(placed.along_mm)
    twice = np.flatnonzero(steps < DUPLICATE_MM)
    if twice.size:
        first, second = placed.files[twice[0]], placed.files[twice[0] + 1]
        numbers = sorted({f.text("AcquisitionNumber") for f in placed.files} - {""})
        phases = f" (acquisitions {', '.join(numbers)}: several phases in one series?)" if len(numbers) > 1 else ""
        raise ImageError(
            f"{source}: {twice.size} slices lie where another one lies, such as {first.path.name} and {second.path.name}{phases}; "
            "keep one volume only"
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
            f"{placed.files[widest].path.name} and {placed.files[widest + 1].path.name}; export the whole series again"
        )
    if error > SAME_GRID_TOLERANCE_VOXELS * mean:
        return mean, [f"slices lie up to {error:.2f} mm from even steps of {mean:.3f} mm; even steps are assumed"]
    return mean, []


def _check_drift(
    placed: _Placed, positions_mm: NDArray[np.float64], normal: NDArray[np.float64], pixel_mm: float, source: str
) -> None:
    beside = positions_mm - positions_mm[0] - np.outer(placed.along_mm - placed.along_mm[0], normal)
    drift = np.linalg.norm(beside, axis=1)
    worst = int(drift.argmax())
    if drift[worst] <= MAX_DRIFT_PIXELS * pixel_mm:
        return
    tilt = np.degrees(np.arctan2(drift[-1], placed.along_mm[-1] - placed.along_mm[0]))
    stated = placed.files[0].text("GantryDetectorTilt")
    raise ImageError(
        f"{source}: the slices do not lie straight above each other: {placed.files[worst].path.name} is {drift[worst]:.2f} mm "
        f"beside the first one, as after a gantry tilt of {tilt:.1f} degrees (GantryDetectorTilt: {stated or 'not stated'}); "
        "resample it to a straight grid first, for example with dcm2niix"
    )


def _pixels(files: Sequence[DicomFile], shape_zyx: tuple[int, int, int], source: str) -> NDArray[Any]:
    volume: NDArray[Any] = np.empty(shape_zyx, np.int16)
    for z, file in enumerate(files):
        slope = float(file.text("RescaleSlope") or 1)
        if slope == 0 or not np.isfinite([slope, float(file.text("RescaleIntercept") or 0)]).all():
            raise ImageError(f"{source}: {file.path.name} has the rescale slope {slope:g}, so it holds no HU; export it again")
        plane = as_hu(_decoded(file), str(file.path))
        if plane.shape != (1, *shape_zyx[1:]):
            raise ImageError(
                f"{file.path}: expected {shape_zyx[1:]} pixels as its header says, found {plane.shape}; export it again"
            )
        if plane.dtype != volume.dtype and volume.dtype == np.int16:
            volume = volume.astype(np.float32)
        volume[z] = plane[0]
    return volume


def _decoded(file: DicomFile) -> NDArray[Any]:
    """One slice ``(1, Y, X)`` after its own rescale; GDCM picks a type that holds the result exactly."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file.path))
    try:
        return np.asarray(sitk.GetArrayFromImage(reader.Execute()))
    except RuntimeError as error:
        syntax = getattr(getattr(file.header, "file_meta", None), "TransferSyntaxUID", None)
        name = getattr(pydicom.uid.UID(str(syntax)), "name", syntax) if syntax else "unknown"
        raise ImageError(
            f"{file.path}: its pixels cannot be decoded (transfer syntax {name}): the file is cut off, damaged or compressed in "
            "an unknown way; export the series again without compression"
        ) from error


def _doubts(chosen: Series) -> list[str]:
    doubts = []
    if any("RescaleIntercept" not in f.header for f in chosen.slices):
        doubts.append("slices state no RescaleIntercept; their values are taken as HU")
    if any(f.text("LossyImageCompression") == "01" for f in chosen.slices):
        doubts.append("the slices were compressed with loss; small lesions may differ from the original")
    if chosen.refused:
        reasons = ", ".join(sorted({reason for _, reason in chosen.refused}))
        doubts.append(f"{len(chosen.refused)} images of the series are not used: {reasons}")
    return doubts
