"""Which metastases were found: lesions of the truth and components of the prediction, matched one to one by their IoU.

Lesions of the truth are its instances where they are known (they may touch and overlap), else its components. A prediction is a
mask, so its lesions are components: one that covers two touching lesions finds the one it overlaps best, the other is missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.metrics.empty import Emptiness, Outcome, Undefined, on_empty
from flrplan.metrics.region import Region, regions_of

IOU_THRESHOLDS: tuple[float, ...] = (0.1, 0.5)
"""A lesion is found if a predicted one overlaps it by MORE than this: 0.1 = "it was pointed at", 0.5 = "it was outlined"."""

LESION_RATIOS: Mapping[str, str] = MappingProxyType(
    {
        "lesion_recall": "lesion recall",
        "lesion_precision": "lesion precision",
        "lesion_f1": "lesion F1 = recognition quality RQ",
        "lesion_pq": "panoptic quality PQ of lesions",
        "lesion_sq": "segmentation quality SQ of found lesions",
    }
)
"""The metrics that exist at each of :data:`IOU_THRESHOLDS`, with their titles. PQ = SQ x RQ (Kirillov 2019, arXiv:1801.00868)."""

_CONNECTIVITY = np.ones((3, 3, 3), np.int8)
"""26 neighbours: voxels that touch at a corner are one lesion. Touching metastases count as one component."""


class SizeClass(StrEnum):
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


def lesions_of(region: Region) -> tuple[Region, ...]:
    """The components of a mask as regions of their own, in raster order. Empty for an empty mask."""
    return tuple(regions_of(components(region)[0], region.spacing_zyx_mm, region).values())


@dataclass(frozen=True)
class LesionMatching:
    """All lesions of a reference and a predicted CRLM mask, and every pair that overlaps.

    reference_diameters_mm, prediction_diameters_mm: diameter of the sphere of equal volume; instances in their order, components
        in raster order.
    pairs: ``(iou, reference lesion, predicted lesion)`` by falling IoU, lesions counted from 0. A voxel of two overlapping
        instances counts in the IoU of both.
    covered: for each reference lesion, whether more than half of it lies in ONE predicted lesion, whatever that is matched to.
    """

    reference_diameters_mm: tuple[float, ...]
    prediction_diameters_mm: tuple[float, ...]
    pairs: tuple[tuple[float, int, int], ...]
    covered: tuple[bool, ...]

    def matched(self, iou_above: float, scores: Sequence[float] | None = None) -> list[tuple[float, int, int]]:
        """The pairs left when each lesion is used at most once, best IoU first, and only an IoU above the threshold counts.

        ``scores``, one per predicted lesion: those of higher score choose first, each the best lesion that is left.
        """
        pairs = self.pairs if scores is None else sorted(self.pairs, key=lambda pair: -scores[pair[2]])
        used_reference: set[int] = set()
        used_prediction: set[int] = set()
        chosen = []
        for iou, reference, prediction in pairs:
            if iou > iou_above and reference not in used_reference and prediction not in used_prediction:
                chosen.append((iou, reference, prediction))
                used_reference.add(reference)
                used_prediction.add(prediction)
        return chosen


def match_lesions(reference: Region, prediction: Region, instances: Sequence[Region] | None = None) -> LesionMatching:
    """The lesions of both masks and their overlaps. Empty masks have no lesions.

    ``instances``: the lesions of the reference told apart; None: its components. Raises GridError for different grids.
    """
    lesions = lesions_of(reference) if instances is None else instances
    reference.shared_box(prediction)  # refuses another grid, also where there is no lesion
    labels, sizes = components(prediction)
    pairs: list[tuple[float, int, int]] = []
    covered = []
    for i, lesion in enumerate(lesions):
        boxes = lesion.shared_box(prediction)
        inside = labels[boxes[1]][lesion.crop_zyx[boxes[0]]] if boxes is not None else labels[:0].ravel()
        shared = np.bincount(inside, minlength=len(sizes) + 1)[1:]
        pairs += [(float(shared[j] / (lesion.voxels + sizes[j] - shared[j])), i, int(j)) for j in np.flatnonzero(shared)]
        covered.append(bool(2 * shared.max(initial=0) > lesion.voxels))
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    voxel_mm3 = float(np.prod(reference.spacing_zyx_mm))
    of_reference = np.array([lesion.voxels for lesion in lesions], np.int64)
    diameters = (_sphere_diameters_mm(of_reference, voxel_mm3), _sphere_diameters_mm(sizes, voxel_mm3))
    return LesionMatching(*diameters, tuple(pairs), tuple(covered))


def _sphere_diameters_mm(sizes: NDArray[np.int64], voxel_mm3: float) -> tuple[float, ...]:
    return tuple(float(d) for d in np.cbrt(6.0 * sizes * voxel_mm3 / np.pi))


def lesion_outcomes(matching: LesionMatching, thresholds: Sequence[float] = IOU_THRESHOLDS) -> dict[str, Outcome]:
    """Numbers of lesions, and :data:`LESION_RATIOS` at each IoU threshold; each 0..1.

    With TP matched pairs, FN missed lesions and FP false ones: RQ = F1 = TP / (TP + FP/2 + FN/2), SQ = mean IoU of the pairs,
    PQ = SQ x RQ. Empty masks (:data:`flrplan.metrics.empty.EMPTY_MASKS`):

    ====================  ==================  ===================  ==========
    metric                no lesion in truth  no lesion predicted  neither
    ====================  ==================  ===================  ==========
    lesion_recall         undefined           0                    undefined
    lesion_precision      0                   undefined            undefined
    lesion_f1, lesion_pq  0                   0                    undefined
    lesion_sq             undefined           undefined            undefined
    ====================  ==================  ===================  ==========

    ``lesion_sq`` is also undefined where no pair is matched.
    """
    n_reference, n_prediction = len(matching.reference_diameters_mm), len(matching.prediction_diameters_mm)
    outcomes: dict[str, Outcome] = {"lesions_reference": float(n_reference), "lesions_predicted": float(n_prediction)}
    emptiness = Emptiness.of(n_reference, n_prediction)
    for threshold in thresholds:
        values: dict[str, Outcome]
        if emptiness is not Emptiness.NONE:
            values = {name: on_empty(name, emptiness) for name in LESION_RATIOS}
        else:
            ious = [iou for iou, _, _ in matching.matched(threshold)]
            values = {
                "lesion_recall": len(ious) / n_reference,
                "lesion_precision": len(ious) / n_prediction,
                "lesion_f1": 2.0 * len(ious) / (n_reference + n_prediction),
                "lesion_pq": 2.0 * sum(ious) / (n_reference + n_prediction),
                "lesion_sq": sum(ious) / len(ious) if ious else Undefined.NO_LESION_MATCHED,
            }
        outcomes |= {f"{name}_{iou_key(threshold)}": value for name, value in values.items()}
    return outcomes
