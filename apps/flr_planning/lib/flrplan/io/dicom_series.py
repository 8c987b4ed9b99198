"""One CT volume from a DICOM series: slices sorted and spaced by their positions, never by SliceThickness."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from flrplan.errors import ImageError

logger = logging.getLogger(__name__)

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
TILT_TOLERANCE_DEGREES = 0.5
"""Angle between the slices' normal and the line through their positions: rounding gives hundredths, a tilt several degrees."""
GAP_TOLERANCE = 0.1
"""A step between slices may differ from the median step by this part of it (rounding to 0.1 mm at 1 mm slices)."""
DUPLICATE_MM = 0.01

_TAGS = [
    "SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesDescription", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "RescaleSlope",
    "RescaleIntercept", "InstanceNumber",
]  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """Header of one file that matters for the volume."""

    path: Path
    header: Any

    def text(self, name: str) -> str:
        """A header value as text, empty where it is absent."""
        return str(getattr(self.header, name, "") or "")


def is_dicom_file(path: Path) -> bool:
    """True for a file with DICOM's mark at byte 128."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_series(path: Path, series: str | None = None) -> tuple[sitk.Image, list[str]]:
    """The CT series in a folder (searched with its subfolders), or the series that one file belongs to, and warnings.

    Raises: ImageError where there is no CT series, more than one to choose from, or the slices do not make one volume.
    """
    folder = path if path.is_dir() else path.parent
    by_series = _series_in(folder)
    if path.is_file() and series is None:
        series = _header(path).text("SeriesInstanceUID")
    slices = _choose(by_series, folder, series)
    source = f"{folder} (series {slices[0].text('SeriesDescription') or slices[0].text('SeriesInstanceUID')})"
    ordered, spacing, origin, direction = _volume_grid(slices, source)
    image = _pixels(ordered, source)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image, []


def _header(path: Path) -> Slice:
    return Slice(path, pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS))


def _series_in(folder: Path) -> dict[str, list[Slice]]:
    found: dict[str, list[Slice]] = defaultdict(list)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and is_dicom_file(p)):
        try:
            item = _header(path)
        except (InvalidDicomError, OSError, EOFError, ValueError, KeyError) as error:
            raise ImageError(f"{path}: its DICOM header cannot be read ({error}); copy or export the series again") from error
        if item.text("SeriesInstanceUID"):
            found[item.text("SeriesInstanceUID")].append(item)
    if not found:
        raise ImageError(f"{folder}: no DICOM image and no NIfTI or NRRD file given; give a folder with one CT series")
    return dict(found)


def _why_not_ct(slices: Sequence[Slice]) -> str | None:
    first = slices[0]
    if first.text("Modality") != "CT":
        return f"modality {first.text('Modality') or 'unknown'}, not CT"
    if first.text("SOPClassUID") in ENHANCED_CT_STORAGE:
        return "enhanced multi-frame CT, which is not supported: convert it to NIfTI (for example with dcm2niix)"
    if first.text("SOPClassUID") != CT_STORAGE:
        return "not CT image storage (a secondary capture or a derived object)"
    if any("LOCALIZER" in s.text("ImageType") for s in slices):
        return "a localizer"
    if int(getattr(first.header, "SamplesPerPixel", 1)) != 1:
        return "a colour image"
    if int(getattr(first.header, "BitsAllocated", 16)) == 8:
        return "8-bit values, which cannot hold HU"
    return None


def _choose(by_series: dict[str, list[Slice]], folder: Path, series: str | None) -> list[Slice]:
    reasons = {uid: _why_not_ct(slices) for uid, slices in by_series.items()}

    def listing() -> str:
        return "\n".join(
            f"  {uid}: {slices[0].text('SeriesDescription') or 'no description'}, {len(slices)} images, {reasons[uid] or 'CT'}"
            for uid, slices in by_series.items()
        )

    if series is not None:
        if series not in by_series:
            raise ImageError(f"{folder} holds no series {series}; found:\n{listing()}")
        if reasons[series]:
            raise ImageError(f"{folder}: series {series} is {reasons[series]}; found:\n{listing()}")
        return by_series[series]
    usable = [uid for uid, reason in reasons.items() if reason is None]
    volumes = [uid for uid in usable if len(by_series[uid]) > 1]
    if len(volumes) == 1:
        return by_series[volumes[0]]
    if len(volumes) > 1:
        raise ImageError(
            f"{folder} holds {len(volumes)} CT series; choose one by its UID (--series UID) or its folder:\n{listing()}"
        )
    if usable:
        raise ImageError(f"{folder}: a volume is needed, found a single slice; give the whole series:\n{listing()}")
    raise ImageError(f"{folder} holds no CT series that can be used:\n{listing()}")


Vector = tuple[float, float, float]


def _volume_grid(slices: Sequence[Slice], source: str) -> tuple[list[Slice], Vector, Vector, tuple[float, ...]]:
    """Slices in the order of their positions, and spacing, origin and direction of the volume (ITK's conventions)."""
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        lacking = [s.path.name for s in slices if getattr(s.header, name, None) in (None, "")]
        if lacking:
            raise ImageError(
                f"{source}: {name} is missing in {lacking[:3]}; without it the slices cannot be placed, export them again"
            )
    orientations = np.array([[float(v) for v in s.header.ImageOrientationPatient] for s in slices])
    spacings = np.array([[float(v) for v in s.header.PixelSpacing] for s in slices])
    sizes = {(int(s.header.Columns), int(s.header.Rows)) for s in slices}
    if len(sizes) > 1 or np.ptp(orientations, axis=0).max() > 1e-3 or np.ptp(spacings, axis=0).max() > 1e-3:
        raise ImageError(
            f"{source}: its slices differ in size, pixel spacing or orientation (sizes {sorted(sizes)}, spacing "
            f"{spacings.min(axis=0).tolist()} to {spacings.max(axis=0).tolist()} mm); give one reconstruction only"
        )
    row, column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(row, column)
    positions = np.array([[float(v) for v in s.header.ImagePositionPatient] for s in slices])
    order = np.argsort(positions @ normal)
    steps = np.diff((positions @ normal)[order])
    _check_steps(steps, [slices[i] for i in order], source)
    first, last = positions[order[0]], positions[order[-1]]
    along = (last - first) / np.linalg.norm(last - first)
    tilt = float(np.degrees(np.arccos(np.clip(along @ normal, -1, 1))))
    if tilt > TILT_TOLERANCE_DEGREES:
        raise ImageError(
            f"{source}: the gantry was tilted by {tilt:.1f} degrees, so the slices make a sheared volume; resample it onto a "
            "regular grid first (for example dcm2niix, which corrects the tilt)"
        )
    z_mm = float(np.linalg.norm(last - first) / (len(slices) - 1))
    direction = np.stack([row, column, normal], axis=1)
    spacing = (float(spacings[0, 1]), float(spacings[0, 0]), z_mm)
    origin = (float(first[0]), float(first[1]), float(first[2]))
    return [slices[i] for i in order], spacing, origin, tuple(float(v) for v in direction.ravel())


def _check_steps(steps: NDArray[np.float64], ordered: Sequence[Slice], source: str) -> None:
    double = np.flatnonzero(steps < DUPLICATE_MM)
    if double.size:
        names = [(ordered[i].path.name, ordered[i + 1].path.name) for i in double[:3]]
        raise ImageError(
            f"{source}: {double.size} slices lie on the place of another one, for example {names}; remove the duplicates"
        )
    median = float(np.median(steps))
    gaps = np.flatnonzero(np.abs(steps - median) > GAP_TOLERANCE * median)
    if gaps.size:
        i = int(gaps[0])
        raise ImageError(
            f"{source}: slices are missing or unevenly spaced: the usual step is {median:.2f} mm, but it is {steps[i]:.2f} mm between "
            f"{ordered[i].path.name} and {ordered[i + 1].path.name} ({gaps.size} such places); export the whole series again"
        )


def _pixels(ordered: Sequence[Slice], source: str) -> sitk.Image:
    """HU of all slices in order, each with its own rescale slope and intercept (applied by GDCM)."""
    rescale = [
        (float(getattr(s.header, "RescaleSlope", 1) or 1), float(getattr(s.header, "RescaleIntercept", 0) or 0))
        for s in ordered
    ]
    whole = all(slope.is_integer() and intercept.is_integer() for slope, intercept in rescale)
    reader = sitk.ImageSeriesReader()
    reader.SetOutputPixelType(sitk.sitkInt32 if whole else sitk.sitkFloat32)
    reader.SetFileNames([str(s.path) for s in ordered])
    try:
        return reader.Execute()
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ImageError(
            f"{source}: its pixels cannot be decoded ({lines[-1] if lines else error}); a file is damaged or compressed in a way that is "
            "not supported: export it uncompressed"
        ) from error
