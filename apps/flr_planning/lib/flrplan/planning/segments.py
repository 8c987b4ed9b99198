"""Couinaud's segments of a liver, by a map that a person gives: which of them a voxel belongs to, and what of each is resected."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from flrplan.anatomy import Mask
from flrplan.errors import LabelError
from flrplan.image import CT, Geometry
from flrplan.image.masks import read_layers
from flrplan.metrics.region import Region
from flrplan.planning.criteria import RESECTIONS, SEGMENTS, SEGMENTS_SOURCE

OUTSIDE = "outside the map"
_NUMBER = re.compile(r"(?:s|sg|seg|segment)?([0-9]+|viii|vii|vi|v|iv|iii|ii|i)[ab]?", re.IGNORECASE)
_DEFAULT_NAME = re.compile(r"Segment_[0-9]+")
"""What 3D Slicer calls a new segment, in the order in which they are drawn."""
_WRITE_IT = "TotalSegmentator -ta liver_segments --ml writes such a map"


@dataclass(frozen=True)
class SegmentSettings:
    """reach_mm: liver so near to the map belongs to the nearest segment, what is farther to none: two outlines of a liver, and the hole that
        a map leaves at a small metastasis, differ by a few mm.
    least_fraction: less of a metastasis, a segment or the liver is not worth words: the borders between segments are no better known.
    least_inside: a map of which less lies in the liver is of another patient.
    """

    reach_mm: float = 5.0
    least_fraction: float = 0.05
    least_inside: float = 0.5


SETTINGS = SegmentSettings()


@dataclass(frozen=True, eq=False)
class LiverSegments:
    """Which segment each voxel of a liver belongs to.

    label_zyx: ``(Z, Y, X) uint8``, 1 to 8; 0 outside the liver, and in it where there is no segment. said: how the map became this.
    warnings: what a person should check, one sentence each.
    """

    label_zyx: NDArray[np.uint8]
    said: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentVolume:
    """What of a segment (None: of the liver outside the map) there is and goes, metastases included."""

    segment: str | None
    volume_ml: float
    resected_ml: float

    @property
    def resected_fraction(self) -> float:
        """0 to 1; NaN for a segment without voxels."""
        return self.resected_ml / self.volume_ml if self.volume_ml else math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain values; an undefined fraction is None."""
        fraction = None if math.isnan(self.resected_fraction) else round(self.resected_fraction, 6)
        volumes = {"volume_ml": round(self.volume_ml, 4), "resected_ml": round(self.resected_ml, 4)}
        return {"segment": self.segment, **volumes, "resected_fraction": fraction}


def read_segment_map(path: Path, ct: CT) -> NDArray[np.uint8]:
    """The map of a file, ``(Z, Y, X) uint8`` on the CT's grid: 0, and 1 to 8 for segments I to VIII.

    Segments with names (``.seg.nrrd``, DICOM SEG) are told by them: such as ``liver_segment_4``, ``IV`` or ``S4a``.
    Raises: ImageError, GridError; LabelError for other values or names, and segments that overlap.
    """
    layers, whole = read_layers(path, ct), np.zeros(ct.geometry.shape_zyx, np.uint8)
    every = [name for _, names in layers for name in names or ()]
    if every and all(map(_DEFAULT_NAME.fullmatch, every)):
        raise LabelError(
            f"{path}: its segments have the names that 3D Slicer gives by itself ({', '.join(every)}), which say nothing of the liver; name them "
            "I to VIII"
        )
    for label, names in layers:
        if names is None:
            return checked_segment_map(label, str(path))
        for name, value in names.items():
            number, here = _number_of(name), label == value
            if number is None:
                raise LabelError(
                    f"{path}: expected segments named by Couinaud's numbers, such as liver_segment_4 or IV, found {name!r}; rename it, or save the "
                    "liver segments alone"
                )
            if whole[here].any():
                raise LabelError(f"{path}: segment {name!r} overlaps another one; give each voxel to one segment")
            whole[here] = number
    return checked_segment_map(whole, str(path))


def _number_of(name: str) -> int | None:
    """1 to 8 for the name of one segment, which ends in its number and holds no other; None for what could be several, or something else."""
    words = re.split(r"[\W_]+", name.strip())
    found = [match[1].upper() for word in words if (match := _NUMBER.fullmatch(word))]
    if len(found) != 1 or not _NUMBER.fullmatch(words[-1]):
        return None
    number = int(found[0]) if found[0].isdecimal() else 1 + SEGMENTS.index(found[0])
    return number if 1 <= number <= len(SEGMENTS) else None


def checked_segment_map(array: NDArray[Any], source: str) -> NDArray[np.uint8]:
    """The map as uint8, a copy. Raises: LabelError for other values than 0 to 8, and for fewer than two segments: a mask is no map."""
    values = np.unique(array).tolist()
    if len({*values} - {0}) < 2 or not {*values} <= {*range(9)}:
        raise LabelError(
            f"{source}: expected a map of liver segments, the values 1 to 8 for Couinaud's I to VIII and 0 elsewhere, found "
            f"the values {values[:12]}; {_WRITE_IT}"
        )
    return array.astype(np.uint8)


def segments_of(map_zyx: NDArray[np.uint8], liver: Mask, crlm: Mask, geometry: Geometry, source: str) -> LiverSegments:
    """The segments of a liver ``(Z, Y, X) bool`` by a map on its grid; what lies beside the map is of the nearest segment, or of none.

    crlm: its metastases, like ``liver``.

    Raises: LabelError where less of the map than ``least_inside`` lies in the liver.
    """
    inside = np.count_nonzero(map_zyx[liver]) / np.count_nonzero(map_zyx)
    if inside < SETTINGS.least_inside:
        raise LabelError(
            f"{source}: {100 * inside:.0f} % of its liver segments lie in the liver of this CT, expected at least {100 * SETTINGS.least_inside:.0f} %: "
            "is the map of this patient? Give the one of this CT, or leave it out"
        )
    spacing = np.asarray(geometry.spacing_zyx_mm)
    around = Region.of(liver | (map_zyx > 0), geometry.spacing_zyx_mm).box
    mapped, of_liver = map_zyx[around], liver[around]
    lesion, count = ndimage.label(crlm[around] & of_liver, np.ones((3, 3, 3)))
    surface = np.argwhere((mapped > 0) & ~ndimage.binary_erosion(mapped > 0))
    missing = np.argwhere(of_liver & (mapped == 0))
    distance, nearest = cKDTree(surface * spacing).query(missing * spacing)
    near = distance <= SETTINGS.reach_mm * (1 + 1e-9)
    left_out = lesion[tuple(missing.T)]
    reached = np.zeros(count + 1, bool)
    reached[left_out[near]] = True
    reached[lesion[mapped > 0]] = True
    reached[0] = False
    near |= reached[left_out]
    filled = np.where(of_liver, mapped, 0).astype(np.uint8)
    filled[tuple(missing[near].T)] = mapped[tuple(surface[nearest[near]].T)]
    label = np.zeros_like(map_zyx)
    label[around] = filled
    label.setflags(write=False)
    far = len(near) - np.count_nonzero(near)
    near_ml, far_ml = ((n * geometry.voxel_volume_ml) for n in (len(near) - far, far))
    said = (
        f"a given map ({SEGMENTS_SOURCE}); {near_ml:.1f} ml of the liver within {SETTINGS.reach_mm:g} mm of it, or of metastases that it leaves out, "
        f"are of the nearest segment, {far_ml:.1f} ml farther away of none"
    )
    warnings = []
    there = [name for n, name in enumerate(SEGMENTS, 1) if (label == n).any()]
    if len(there) < len(SEGMENTS):
        warnings.append(
            f"the map of liver segments holds {', '.join(there)} alone; check that its values 1 to 8 are Couinaud's segments"
        )
    share = far / np.count_nonzero(liver)
    if share > SETTINGS.least_fraction:
        warnings.append(
            f"{far_ml:.0f} ml of the liver ({100 * share:.0f} %) are of no segment: they lie farther than {SETTINGS.reach_mm:g} mm from the given map"
        )
    return LiverSegments(label, said, tuple(warnings))


def shares(label: NDArray[np.uint8]) -> tuple[tuple[str | None, float], ...]:
    """Of some voxels, at least one, how much (0 to 1) lies in which segment, the most first; None: outside the map."""
    counts = np.bincount(label.ravel(), minlength=9)
    names = (None, *SEGMENTS)
    return tuple((names[k], counts[k] / label.size) for k in np.argsort(-counts, kind="stable").tolist() if counts[k])


def describe_shares(found: Sequence[tuple[str | None, float]]) -> str:
    """``VII``, or ``VII 83 %, VIII 17 %``."""
    told = [(name or OUTSIDE, fraction) for name, fraction in found if fraction >= SETTINGS.least_fraction]
    return told[0][0] if len(told) == 1 else ", ".join(f"{name} {100 * fraction:.0f} %" for name, fraction in told)


def segment_volumes(label: NDArray[np.uint8], liver: Mask, resection: Mask, voxel_ml: float) -> tuple[SegmentVolume, ...]:
    """Of each segment and, last, of the liver outside the map; all arrays of one shape."""
    volumes, resected = (voxel_ml * np.bincount(label[mask], minlength=9) for mask in (liver, resection))
    return tuple(
        SegmentVolume(name, float(volumes[k]), float(resected[k])) for k, name in ((*enumerate(SEGMENTS, 1), (0, None)))
    )


def describe_resected(found: Sequence[SegmentVolume]) -> str:
    """``V, VI, VII, VIII whole (right hepatectomy), IV 30 %``; ``none``.

    An operation has its name where just its segments go whole, I aside, of no other one more than half, and the map knows the liver: each
    segment but I, and nearly all of it.
    """
    least = SETTINGS.least_fraction
    known = sum(s.volume_ml for s in found if s.segment is None) <= least * sum(s.volume_ml for s in found)
    told = [s for s in found if s.volume_ml and not (known and s.segment is None)]
    goes = [(s.segment or OUTSIDE, s.resected_fraction) for s in told if s.resected_fraction >= least]
    whole = [name for name, fraction in goes if fraction > 1 - least]
    parts = [(name, fraction) for name, fraction in goes if name not in whole]
    is_whole = all(s.volume_ml for s in found if s.segment not in ("I", None))
    is_one = known and is_whole and all(fraction <= 0.5 for name, fraction in parts if name != "I")
    operation = RESECTIONS.get(frozenset(whole) - {"I"}) if is_one else None
    said = [f"{', '.join(whole)} whole{f' ({operation})' if operation else ''}"] if whole else []
    return ", ".join([*said, *(f"{name} {100 * fraction:.0f} %" for name, fraction in parts)]) or "none"
