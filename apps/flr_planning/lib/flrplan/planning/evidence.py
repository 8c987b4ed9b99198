"""What can be seen of one plan, without its truth, that says how sure it is: how the folds differ, and how far it is like other cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask, Structure, to_compartments
from flrplan.image import CT, Geometry
from flrplan.method import CascadeResult, Probability, Source
from flrplan.planning.coherent import COHERENT, coherent_flr
from flrplan.planning.volumetry import measure_volumes
from flrplan.qc import QcCase, Severity, check_case

_UNLIKE = ("in_view", "not_liver", "swapped", "volumes")
"""Rules of label QC after whose errors a liver is not one that a network was trained on, or not a whole one."""


@dataclass(frozen=True)
class Evidence:
    """Numbers of one coherent plan.

    inputs: ``given``: liver and metastases were, ``predicted``: neither was, else which was.
    flr_fraction: FLR over all parenchyma (0..1); raw_flr_fraction: of the networks' own mask; fold_fractions: of the coherent plan of each
        fold by itself, on the same liver and metastases.
    soft_fraction: mean probability of the FLR over the parenchyma; undecided: mean of ``4 p (1 - p)``, 0 where the network is sure, 1
        where p is 0.5. Both weighted as the coherent plan trusts the probability: less near the capsule.
    parenchyma_ml, crlm_ml, slice_mm (the largest spacing), liver_hu (median of the parenchyma), aorta_hu (None where it is not seen): how
        the case is like others.
    unlike: what label QC says against the liver, in sentences.
    architecture_fractions: by architecture the FLR (0..1) of its own coherent plan on the same liver and metastases, the plan's own first;
        empty without second opinions.
    """

    inputs: str
    flr_fraction: float
    raw_flr_fraction: float
    fold_fractions: tuple[float, ...]
    soft_fraction: float
    undecided: float
    parenchyma_ml: float
    crlm_ml: float
    slice_mm: float
    liver_hu: float
    aorta_hu: float | None = None
    unlike: tuple[str, ...] = ()
    architecture_fractions: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, four digits of each; nothing of an aorta that is not seen or of second opinions that there are not."""
        return {n: _short(v) for n, v in asdict(self).items() if v not in (None, {})}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Evidence:
        """From plain values. Raises TypeError or KeyError for others."""
        lists = {name: tuple(content[name]) for name in ("fold_fractions", "unlike")}
        return cls(**{**content, **lists})


def _short(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_short(v) for v in value]
    if isinstance(value, dict):
        return {name: _short(v) for name, v in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def evidence_of(
    raw: CascadeResult, flr: Mask, probability: Probability, folds: Sequence[Probability], case: QcCase | None = None
) -> Evidence | None:
    """The evidence of a plan; None where the liver holds no parenchyma.

    raw: what the cascade gave. flr: the coherent one. probability: the FLR's, of the ensemble and of each fold, as the cascade hands them on.
    case: the plan's masks as label QC sees them; what is found here need not be looked for again.
    """
    liver, crlm = raw.masks[Structure.LIVER], raw.masks[Structure.CRLM]
    box = ndimage.find_objects(liver.view(np.uint8))[0] if liver.any() else None
    if box is None:
        return None
    whole = raw.ct.geometry
    geometry = whole.crop(box)
    liver, crlm = liver[box], crlm[box]
    parenchyma = liver & ~crlm
    if not parenchyma.any():
        return None

    def fraction(remnant: Mask) -> float:
        label, _ = to_compartments(liver, crlm, remnant & liver)
        return measure_volumes(label, geometry.voxel_volume_ml).flr_fraction

    given = [s.value for s in (Structure.LIVER, Structure.CRLM) if raw.sources[s] is Source.GIVEN]
    p = probability[box][parenchyma].astype(np.float32) / np.float32(255)
    weight = _trusted(liver, parenchyma, geometry)
    seen = _as_qc_sees(raw.ct, raw.masks[Structure.LIVER], case)
    return Evidence(
        inputs={0: Source.PREDICTED.value, 2: Source.GIVEN.value}.get(len(given), f"{''.join(given)} given"),
        flr_fraction=fraction(flr[box]),
        raw_flr_fraction=fraction(raw.masks[Structure.FLR][box]),
        fold_fractions=tuple(fraction(coherent_flr(liver, crlm, fold[box], geometry)) for fold in folds),
        soft_fraction=float(np.average(p, weights=weight)),
        undecided=float(np.average(4 * p * (1 - p), weights=weight)),
        parenchyma_ml=float(np.count_nonzero(parenchyma)) * geometry.voxel_volume_ml,
        crlm_ml=float(np.count_nonzero(crlm & liver)) * geometry.voxel_volume_ml,
        slice_mm=float(max(geometry.spacing_mm)),
        liver_hu=float(np.median(raw.ct.array_zyx[box][parenchyma])),
        aorta_hu=seen.aorta_hu,
        unlike=_against(seen),
    )


def disagreement_of(liver: Mask, folds: Sequence[Probability]) -> NDArray[np.uint8]:
    """How far the folds differ about each voxel of the liver: the standard deviation of their FLR probability in percent.

    folds: of all architectures that take part. ``(Z, Y, X) uint8``, 0 to 50; 0 outside the liver, and everywhere with one fold.
    """
    result = np.zeros(liver.shape, np.uint8)
    for z in np.flatnonzero(liver.any(axis=(1, 2))):
        of_folds = np.stack([fold[z] for fold in folds]).astype(np.float32)
        result[z] = np.where(liver[z], np.rint(of_folds.std(axis=0) * np.float32(100 / 255)), 0)
    return result


def _trusted(liver: Mask, where: Mask, geometry: Geometry) -> NDArray[np.floating[Any]]:
    """As the coherent plan weighs the probability, at the voxels of ``where``, which lie in the liver."""
    nearest = ndimage.distance_transform_edt(
        np.pad(liver, 1), sampling=geometry.spacing_zyx_mm, return_distances=False, return_indices=True
    )
    places = np.nonzero(np.pad(where, 1))
    away_mm = [(of[places] - here) * mm for of, here, mm in zip(nearest, places, geometry.spacing_zyx_mm, strict=True)]
    depth = np.sqrt(sum(mm * mm for mm in away_mm))
    return np.asarray(np.minimum(depth / COHERENT.trusted_depth_mm, 1.0) ** 2 + 1e-3)


def _as_qc_sees(ct: CT, liver: Mask, case: QcCase | None) -> QcCase:
    """The liver alone; ``case`` where that is of this liver and its other masks do not widen the region that the rules look at."""
    alone = QcCase(ct.name, ct.geometry, {Structure.LIVER: liver}, ct)
    return alone if case is None or case.masks[Structure.LIVER] is not liver or case.box != alone.box else case


def _against(case: QcCase) -> tuple[str, ...]:
    """Sentences."""
    found = check_case(case, rules=_UNLIKE).findings
    return tuple(f.message for f in found if f.severity is Severity.ERROR and f.structure is Structure.LIVER)
