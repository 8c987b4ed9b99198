"""What a planning map is made of: the parts of resection and remnant, and each metastasis, where it lies and how near to the cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, cKDTree
from scipy.spatial.distance import pdist

from flrplan.anatomy import Mask, Structure, structure_mask
from flrplan.image import Geometry
from flrplan.metrics.cut import Fate, cut_of
from flrplan.metrics.region import Region, regions_of
from flrplan.planning.coherent import COHERENT, TOUCHING
from flrplan.planning.segments import SegmentVolume, segment_volumes, shares

PointLPS = tuple[float, float, float]
"""A place in the patient, LPS, mm."""

LIVER_PART = (
    "not computable: sectors and segments end at planes through the hepatic veins, the gallbladder, the cava and the portal fork, none of "
    "which is segmented; --liver-segments takes a map of them"
)
"""Which part of the liver a metastasis lies in, without a map. A rule on the outline of the liver alone would be a guess."""
BY_MAP = "Couinaud's segments by the given map"
_FEW_POINTS = 1000


@dataclass(frozen=True)
class Part:
    """A connected part (26 neighbours) of the resection or of the remnant, with the metastases in it.

    lesions: numbers of the metastases that have voxels in it.
    """

    volume_ml: float
    lesions: tuple[int, ...]


@dataclass(frozen=True)
class Lesion:
    """One metastasis (26 neighbours) inside the liver; numbered from 1 by falling volume.

    diameter_mm: the largest distance between centres of its voxels, in any direction; 0 for one voxel.
    fate: resected, cut through or left in the remnant.
    margin_mm: from its surface to the nearest point of the cut, 0 where it touches the cut or is cut through; NaN where it is left in
        the remnant (its distance is no safety), and where the plan has no cut.
    nearest_lps_mm: where on the cut that is; None with NaN.
    segments: how much of it (0 to 1) lies in which segment of the liver, the most first, None for outside the map; None without a map.
    """

    number: int
    volume_ml: float
    diameter_mm: float
    centre_lps_mm: PointLPS
    fate: Fate
    margin_mm: float
    nearest_lps_mm: PointLPS | None
    segments: tuple[tuple[str | None, float], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, mm to a hundredth; an undefined margin is None."""
        margin = None if math.isnan(self.margin_mm) else round(self.margin_mm, 2)
        rounded = {"volume_ml": round(self.volume_ml, 4), "diameter_mm": round(self.diameter_mm, 2)}
        found = None if self.segments is None else [{"segment": n, "fraction": round(f, 6)} for n, f in self.segments]
        return {**asdict(self), **rounded, "fate": str(self.fate), "margin_mm": margin, "segments": found}


@dataclass(frozen=True)
class Parts:
    """The parts of a plan, each side by falling volume, its metastases and, of a map of them, the segments of the liver."""

    resection: tuple[Part, ...]
    remnant: tuple[Part, ...]
    lesions: tuple[Lesion, ...]
    segments: tuple[SegmentVolume, ...] | None = None

    @property
    def closest(self) -> Lesion | None:
        """The resected metastasis with the smallest margin, or one that is cut through; None where no margin is defined."""
        return min((n for n in self.lesions if not math.isnan(n.margin_mm)), key=lambda n: n.margin_mm, default=None)

    @property
    def liver_part(self) -> str:
        """What a part of the liver is here, or why there is none."""
        return LIVER_PART if self.segments is None else BY_MAP

    def to_json(self) -> dict[str, Any]:
        """``resection_parts``, ``remnant_parts``, ``lesions``, ``smallest_margin`` (mm, lesion, place), ``liver_part`` and ``segments`` as plain values."""
        closest = self.closest
        margin = None
        if closest is not None:
            margin = {"mm": round(closest.margin_mm, 2), "lesion": closest.number, "nearest_lps_mm": closest.nearest_lps_mm}
        return {
            "resection_parts": [_part_json(part) for part in self.resection],
            "remnant_parts": [_part_json(part) for part in self.remnant],
            "lesions": [lesion.to_json() for lesion in self.lesions],
            "liver_part": self.liver_part,
            "segments": None if self.segments is None else [segment.to_json() for segment in self.segments],
            "smallest_margin": margin,
        }


def _part_json(part: Part) -> dict[str, Any]:
    return {"volume_ml": round(part.volume_ml, 4), "lesions": list(part.lesions)}


def parts_of(label_zyx: NDArray[np.uint8], geometry: Geometry, segments_zyx: NDArray[np.uint8] | None = None) -> Parts:
    """The parts and metastases of a planning map ``(Z, Y, X) uint8``; an empty map has none of any. segments_zyx: 1 to 8, of the same shape."""
    liver = Region.of(structure_mask(label_zyx, Structure.LIVER), geometry.spacing_zyx_mm)
    if liver.is_empty:
        return Parts((), (), ())
    grid, label = geometry.crop(liver.box), label_zyx[liver.box]
    flr = structure_mask(label, Structure.FLR)
    lesions = numbered_lesions(structure_mask(label, Structure.CRLM))
    resection = liver.crop_zyx & ~flr
    segments = None if segments_zyx is None else segments_zyx[liver.box]
    return Parts(
        _side(resection, lesions, grid.voxel_volume_ml),
        _side(flr, lesions, grid.voxel_volume_ml),
        _lesions(lesions, liver.crop_zyx, flr, grid, segments),
        None if segments is None else segment_volumes(segments, liver.crop_zyx, resection, grid.voxel_volume_ml),
    )


def numbered_lesions(crlm: Mask) -> NDArray[np.int32]:
    """The metastases (26 neighbours) of a mask ``(Z, Y, X) bool``, numbered from 1 by falling volume; 0 elsewhere."""
    found, count = ndimage.label(crlm, TOUCHING)
    order = np.argsort(-np.bincount(found.ravel(), minlength=count + 1)[1:], kind="stable")
    number = np.zeros(count + 1, np.int32)
    number[order + 1] = np.arange(1, count + 1)
    numbered: NDArray[np.int32] = number[found]
    return numbered


def _side(side: Mask, lesions: NDArray[np.int32], voxel_ml: float) -> tuple[Part, ...]:
    labels, count = ndimage.label(side, TOUCHING)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    within: list[list[int]] = [[] for _ in range(count)]
    both = (labels > 0) & (lesions > 0)
    for part, lesion in np.unique(np.stack([labels[both], lesions[both]]), axis=1).T.tolist():
        within[part - 1].append(lesion)
    order = np.argsort(-sizes, kind="stable").tolist()
    return tuple(Part(float(sizes[k]) * voxel_ml, tuple(within[k])) for k in order)


def _lesions(
    lesions: NDArray[np.int32], liver: Mask, flr: Mask, grid: Geometry, segments: NDArray[np.uint8] | None
) -> tuple[Lesion, ...]:
    spacing = grid.spacing_zyx_mm
    regions = regions_of(lesions, spacing)
    if not regions:
        return ()
    corners = cut_of(Region.of(liver, spacing), Region.of(flr, spacing)).points_zyx
    cut = cKDTree(corners * spacing) if len(corners) else None
    out = []
    for number, region in sorted(regions.items()):
        left = int(np.count_nonzero(flr[region.box] & region.crop_zyx))
        fate = Fate.RESECTED if not left else Fate.LEFT if left == region.voxels else Fate.CUT_THROUGH
        margin, place = math.nan, None
        if fate is not Fate.LEFT and cut is not None:
            distances, nearest = cut.query(region.surface.points_zyx * spacing)
            closest = int(distances.argmin())
            margin = float(distances[closest])
            place = _place(grid, corners[nearest[closest]] - 0.5)  # a corner lies half a voxel before its voxel's centre
        voxels = np.argwhere(region.crop_zyx) + region.start_zyx
        centre = _place(grid, voxels.mean(axis=0))
        found = None if segments is None else shares(segments[region.box][region.crop_zyx])
        out.append(Lesion(number, region.volume_ml, _diameter_mm(voxels * spacing), centre, fate, margin, place, found))
    return tuple(out)


def _place(grid: Geometry, index_zyx: NDArray[np.floating[Any]]) -> PointLPS:
    x, y, z = np.round(grid.world_mm(index_zyx[None, ::-1])[0], 2).tolist()
    return (x, y, z)


def _diameter_mm(points_mm: NDArray[np.floating[Any]]) -> float:
    """The largest distance between two of some points ``(N, 3)``; both are corners of the convex hull."""
    if len(points_mm) > _FEW_POINTS:
        points_mm = points_mm[ConvexHull(points_mm, qhull_options="QJ").vertices]  # QJ: also where all lie in one slice
    return float(pdist(points_mm).max()) if len(points_mm) > 1 else 0.0


@dataclass(frozen=True)
class Vessel:
    """The hepatic or the portal veins of a mask: how much of them stays, how much goes, and how near the cut comes to those that stay.

    distance_mm: from the voxels that stay to the nearest point of the cut, 0 where the cut goes through the veins; NaN where none stays or
    the plan has no cut.
    """

    name: str
    remnant_ml: float
    resection_ml: float
    outside_ml: float
    distance_mm: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; an undefined distance is None."""
        volumes = {k: round(v, 4) for k, v in asdict(self).items() if k.endswith("_ml")}
        return {
            "name": self.name,
            **volumes,
            "distance_mm": None if math.isnan(self.distance_mm) else round(self.distance_mm, 2),
        }


def vessel_of(name: str, vein: Mask, label_zyx: NDArray[np.uint8], geometry: Geometry) -> Vessel:
    """The veins of a mask ``(Z, Y, X) bool`` in a planning map on the same grid. An empty mask has 0 ml and no distance."""
    spacing, distance = geometry.spacing_zyx_mm, math.nan
    around = Region.of(label_zyx > 0, spacing)
    label, inside = label_zyx[around.box], vein[around.box]
    liver, flr = around.crop_zyx, structure_mask(label, Structure.FLR)
    kept, gone = inside & flr, inside & liver & ~flr
    if kept.any() and gone.any() and (ndimage.binary_dilation(kept) & gone).any():
        distance = 0.0
    elif kept.any():
        corners = cut_of(Region.of(liver, spacing), Region.of(flr, spacing)).points_zyx
        if len(corners):
            surface = Region.of(kept, spacing).surface.points_zyx
            distance = float(cKDTree(corners * spacing).query(surface * spacing)[0].min())
    stay, go, all_of_it = (np.count_nonzero(m) for m in (kept, gone, vein))
    kept_ml, gone_ml, outside_ml = (n * geometry.voxel_volume_ml for n in (stay, go, all_of_it - stay - go))
    return Vessel(name, kept_ml, gone_ml, outside_ml, distance)


def plan_findings(parts: Parts) -> list[str]:
    """What a person should look at in a plan, one sentence each; empty if there is nothing."""
    least = COHERENT.smallest_part_ml
    findings = []
    for side, of_side in (("remnant", parts.remnant), ("resection", parts.resection)):
        if (parts.remnant or parts.resection) and not of_side:
            findings.append(f"the {side} is empty")
        crumbs = sum(part.volume_ml < least for part in of_side)
        if crumbs:
            findings.append(f"{crumbs} of {len(of_side)} parts of the {side} are smaller than {least:g} ml")
    remnant = [part.volume_ml for part in parts.remnant if part.volume_ml >= least]
    if len(remnant) > 1:
        findings.append(f"the remnant is not connected: parts of {_listed(remnant)} ml")
    blind = [part.volume_ml for part in parts.resection if not part.lesions and part.volume_ml >= least]
    if blind:
        findings.append(
            f"no metastasis is seen in {len(blind)} of the parts of the resection ({_listed(blind)} ml): one that vanished under "
            "chemotherapy, or one missed, or no reason to resect"
        )
    for fate, advice in (
        (Fate.LEFT, "a second stage, ablation, or a part of the resection that was missed"),
        (Fate.CUT_THROUGH, "move the cut"),
    ):
        lesions = [lesion.volume_ml for lesion in parts.lesions if lesion.fate is fate]
        if lesions:
            findings.append(f"metastases {fate}: {len(lesions)} ({_listed(lesions)} ml): {advice}")
    return findings


def _listed(volumes_ml: Sequence[float], most: int = 5) -> str:
    """The first of some volumes in words: ``34, 2.8 and 1.0``."""
    texts = [f"{v:.0f}" if v >= 10 else f"{v:.1f}" for v in volumes_ml[:most]]
    if len(volumes_ml) > most:
        texts.append(f"{len(volumes_ml) - most} more")
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]
