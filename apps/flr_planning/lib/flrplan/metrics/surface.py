"""The surface of a mask as weighted points, the exact distances between two surfaces, and NSD, HD95 and ASSD from them.

The definitions are surface-distance's (Nikolov 2018, arXiv:1809.04430): surface points are the corners between voxels that
do not all agree, each weighted by the area of the surface element there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Mask
from flrplan.metrics.empty import Emptiness, Outcome, on_empty
from flrplan.metrics.nearest import nearest_distances_mm
from flrplan.metrics.surface_elements import area_table_mm2

HAUSDORFF_FRACTION = 0.95
"""HD95 is the distance below which this part of a surface's area lies, taken on both surfaces; the larger one counts."""

SURFACE_METRICS = ("nsd", "hd95_mm", "assd_mm")


def neighbourhoods(mask_zyx: Mask) -> NDArray[np.uint8]:
    """``(Z+1, Y+1, X+1) uint8``: the eight voxels around each corner, which lies before the voxel of its index.

    Bit ``4*dz + 2*dy + dx`` (:mod:`flrplan.metrics.surface_elements`); voxels beyond the array are outside the mask.
    """
    voxels = np.pad(mask_zyx, 1).view(np.uint8)
    code = voxels[:, :, :-1] | (voxels[:, :, 1:] << 1)
    code = code[:, :-1] | (code[:, 1:] << 2)
    return np.asarray(code[:-1] | (code[1:] << 4))


@dataclass(frozen=True, eq=False)
class Surface:
    """Surface elements of one mask.

    points_zyx: ``(N, 3) int32``, in raster order; point ``i`` is the corner before voxel ``i`` of the grid.
    areas_mm2: ``(N,) float64``. An empty mask has N = 0.
    """

    points_zyx: NDArray[np.int32]
    areas_mm2: NDArray[np.float64]
    spacing_zyx_mm: tuple[float, float, float]

    @classmethod
    def of_crop(cls, crop_zyx: Mask, start_zyx: tuple[int, int, int], spacing_zyx_mm: tuple[float, float, float]) -> Surface:
        """The surface of a mask that is given inside its bounding box, which starts at ``start_zyx`` of the grid.

        Voxels outside the box count as outside the mask, so a mask that touches the image border is closed there.
        """
        if not crop_zyx.any():
            return cls(np.zeros((0, 3), np.int32), np.zeros(0), spacing_zyx_mm)
        code = neighbourhoods(crop_zyx)
        # 0 (all outside) and 255 (all inside) become 1 and 0 in this arithmetic modulo 256; all others are surface.
        flat = np.flatnonzero((code + np.uint8(1)) > 1)
        points = np.stack(np.unravel_index(flat, code.shape), axis=1).astype(np.int32) + np.array(start_zyx, np.int32)
        return cls(points, area_table_mm2(spacing_zyx_mm)[code.ravel()[flat]], spacing_zyx_mm)

    @property
    def area_mm2(self) -> float:
        """Total area; 0 for an empty mask."""
        return float(self.areas_mm2.sum())

    def distances_to_mm(self, other: Surface) -> NDArray[np.float64]:
        """``(N,) float64``: from each point of this surface to the nearest point of the other, which must not be empty."""
        return nearest_distances_mm(self.points_zyx, other.points_zyx, self.spacing_zyx_mm)


def _area_percentile(distances_mm: NDArray[np.float64], areas_mm2: NDArray[np.float64], fraction: float) -> float:
    # Equal distances are ordered by area, as in surface-distance: the rounding of the running sum is then the same.
    order = np.lexsort((areas_mm2, distances_mm))
    covered = np.cumsum(areas_mm2[order]) / np.sum(areas_mm2)
    return float(distances_mm[order[min(int(np.searchsorted(covered, fraction)), len(order) - 1)]])


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances between two surfaces, neither of them empty: for each of the two, from its points to the other, with its areas."""

    sides: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]

    @property
    def _area_mm2(self) -> float:
        return sum(float(areas.sum()) for _, areas in self.sides)

    def nsd(self, tolerance_mm: float) -> float:
        """Area of both surfaces that lies within ``tolerance_mm`` (inclusive) of the other, over the area of both; 0..1."""
        return sum(float(areas[distances <= tolerance_mm].sum()) for distances, areas in self.sides) / self._area_mm2

    def hd95_mm(self) -> float:
        """The larger of the two directed area-weighted 95 % percentiles."""
        return max(_area_percentile(distances, areas, HAUSDORFF_FRACTION) for distances, areas in self.sides)

    def mean_mm(self) -> float:
        """Area-weighted mean over both surfaces together (Heimann 2009: pooled, not the mean of two means)."""
        return sum(float(np.dot(distances, areas)) for distances, areas in self.sides) / self._area_mm2


@lru_cache(maxsize=2)
def distances_between(reference: Surface, prediction: Surface) -> SurfaceDistances:
    """Both directions. The last are kept, for a prediction that is scored beside several livers."""
    one = reference.distances_to_mm(prediction), reference.areas_mm2
    return SurfaceDistances((one, (prediction.distances_to_mm(reference), prediction.areas_mm2)))


def surface_outcomes(reference: Surface, prediction: Surface, tolerance_mm: float) -> dict[str, Outcome]:
    """NSD at a tolerance (0..1), HD95 and ASSD (mm) of two surfaces on one grid (:class:`SurfaceDistances`).

    Empty masks (:data:`flrplan.metrics.empty.EMPTY_MASKS`):

    =======  ===============  ================  ==========
    metric   reference empty  prediction empty  both empty
    =======  ===============  ================  ==========
    nsd      0                0                 undefined
    hd95_mm  undefined        undefined         undefined
    assd_mm  undefined        undefined         undefined
    =======  ===============  ================  ==========
    """
    emptiness = Emptiness.of(len(reference.points_zyx), len(prediction.points_zyx))
    if emptiness is not Emptiness.NONE:
        return {name: on_empty(name, emptiness) for name in SURFACE_METRICS}
    distances = distances_between(reference, prediction)
    return {"nsd": distances.nsd(tolerance_mm), "hd95_mm": distances.hd95_mm(), "assd_mm": distances.mean_mm()}
