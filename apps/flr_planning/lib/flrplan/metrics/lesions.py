"""Which metastases were found: connected components of both masks, matched one to one by their IoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.metrics.empty import Emptiness, Outcome, on_empty
from flrplan.metrics.region import Region

IOU_THRESHOLDS: tuple[float, ...] = (0.1, 0.5)
"""A lesion is found if a predicted one overlaps it by MORE than this: 0.1 = "it was pointed at", 0.5 = "it was outlined"."""

_CONNECTIVITY = np.ones((3, 3, 3), np.int8)
"""26 neighbours: voxels that touch at a corner are one lesion. Touching metastases count as one."""


class SizeClass(str, Enum):
    """Size of a lesion by the diameter of the sphere of its volume; exactly 10 and 20 mm lie in the middle class."""

    SMALL = "<10 mm"
    MEDIUM = "10-20 mm"
    LARGE = ">20 mm"

    @classmethod
    def of(cls, diameter_mm: float) -> SizeClass:
        """The class of a diameter."""
        if diameter_mm < 10.0:
            return cls.SMALL
        return cls.MEDIUM if diameter_mm <= 20.0 else cls.LARGE


def iou_key(threshold: float) -> str:
    """How a threshold is written in the name of a metric: 0.1 -> ``iou10``."""
    return f"iou{round(100 * threshold)}"


def components(region: Region) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The lesions of a mask: labels 1..n on the region's crop ``(Z, Y, X) int32``, and the voxels of each ``(n,)``."""
    if region.is_empty:
        return np.zeros((0, 0, 0), np.int32), np.zeros(0, np.int64)
    labels, count = ndimage.label(region.crop_zyx, structure=_CONNECTIVITY)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return labels.astype(np.int32, copy=False), sizes.astype(np.int64)


@dataclass(frozen=True)
class LesionMatching:
    """All lesions of a reference and a predicted CRLM mask, and every pair that overlaps.

    reference_diameters_mm, prediction_diameters_mm: diameter of the sphere of equal volume, in raster order of the lesions.
    pairs: ``(iou, reference lesion, predicted lesion)`` by falling IoU, lesions counted from 0.
    """

    reference_diameters_mm: tuple[float, ...]
    prediction_diameters_mm: tuple[float, ...]
    pairs: tuple[tuple[float, int, int], ...]

    def matched(self, iou_above: float) -> list[tuple[float, int, int]]:
        """The pairs left when each lesion is used at most once, best IoU first, and only an IoU above the threshold counts."""
        used_reference: set[int] = set()
        used_prediction: set[int] = set()
        chosen = []
        for iou, reference, prediction in self.pairs:
            if iou > iou_above and reference not in used_reference and prediction not in used_prediction:
                chosen.append((iou, reference, prediction))
                used_reference.add(reference)
                used_prediction.add(prediction)
        return chosen


def match_lesions(reference: Region, prediction: Region) -> LesionMatching:
    """Components of both masks and their overlaps. Empty masks have no lesions. Raises GridError for different grids."""
    reference_labels, reference_sizes = components(reference)
    prediction_labels, prediction_sizes = components(prediction)
    pairs: list[tuple[float, int, int]] = []
    boxes = reference.shared_box(prediction)
    if boxes is not None:
        one, two = reference_labels[boxes[0]], prediction_labels[boxes[1]]
        both = (one > 0) & (two > 0)
        key = (one[both].astype(np.int64) - 1) * len(prediction_sizes) + (two[both] - 1)
        for code, shared in zip(*np.unique(key, return_counts=True), strict=True):
            i, j = divmod(int(code), len(prediction_sizes))
            pairs.append((float(shared / (reference_sizes[i] + prediction_sizes[j] - shared)), i, j))
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    voxel_mm3 = float(np.prod(reference.spacing_zyx_mm))
    return LesionMatching(
        _sphere_diameters_mm(reference_sizes, voxel_mm3), _sphere_diameters_mm(prediction_sizes, voxel_mm3), tuple(pairs)
    )


def _sphere_diameters_mm(sizes: NDArray[np.int64], voxel_mm3: float) -> tuple[float, ...]:
    return tuple(float(d) for d in np.cbrt(6.0 * sizes * voxel_mm3 / np.pi))


def lesion_outcomes(matching: LesionMatching, thresholds: Sequence[float] = IOU_THRESHOLDS) -> dict[str, Outcome]:
    """Numbers of lesions, and lesion recall, precision and F1 at each IoU threshold; each 0..1.

    Empty masks (:data:`flrplan.metrics.empty.EMPTY_MASKS`):

    ================  ==================  ===================  ==========
    metric            no lesion in truth  no lesion predicted  neither
    ================  ==================  ===================  ==========
    lesion_recall     undefined           0                    undefined
    lesion_precision  0                   undefined            undefined
    lesion_f1         0                   0                    undefined
    ================  ==================  ===================  ==========
    """
    n_reference, n_prediction = len(matching.reference_diameters_mm), len(matching.prediction_diameters_mm)
    outcomes: dict[str, Outcome] = {"lesions_reference": float(n_reference), "lesions_predicted": float(n_prediction)}
    emptiness = Emptiness.of(n_reference, n_prediction)
    for threshold in thresholds:
        suffix = iou_key(threshold)
        if emptiness is not Emptiness.NONE:
            names = ("lesion_recall", "lesion_precision", "lesion_f1")
            outcomes |= {f"{name}_{suffix}": on_empty(name, emptiness) for name in names}
            continue
        found = len(matching.matched(threshold))
        outcomes[f"lesion_recall_{suffix}"] = found / n_reference
        outcomes[f"lesion_precision_{suffix}"] = found / n_prediction
        outcomes[f"lesion_f1_{suffix}"] = 2.0 * found / (n_reference + n_prediction)
    return outcomes
