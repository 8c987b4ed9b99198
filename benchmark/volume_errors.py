"""What slices cost: volumes of a plan at slice spacings of 0.8, 2.5, 5 and 7.5 mm against the same anatomy finely sampled.

    python benchmark/volume_errors.py --out W --cases 100 --seed 41

The anatomy, lesions and resection of synthetic cases, without a picture and without a network, sampled every 0.4 mm through the slices and
every 2.5 mm within them. A slice is as thick as its spacing; where the first one lies is drawn. Outlined is, without a fault within the slice,
``half``: what fills at least half of its thickness, or ``all``: what fills a tenth of it, as one draws all that shows. So this is the slices'
part of the error alone. 1 s of CPU a case. Writes ``W/volume_errors.csv``, a line a case, spacing and way to outline, and prints the table.

error: minus the truth. FLR: remnant parenchyma; points: of FLR%. bound: ``flr_partial_volume_ml``, half a voxel at both ends of every column.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import logging
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import PLANNED, structure_mask, to_compartments
from flrplan.cohort.case import body_frame, plan_case
from flrplan.cohort.fields import FineGrid
from flrplan.cohort.lesions import LiverMap
from flrplan.cohort.liver import draw_liver_shape, make_liver
from flrplan.cohort.organs import Organ, Stream, stream
from flrplan.cohort.paint import paint, paint_lesions, planning_map
from flrplan.cohort.patient import draw_patient
from flrplan.cohort.settings import case_name
from flrplan.cohort.trunk import make_cavity
from flrplan.files import replacing
from flrplan.image import Geometry
from flrplan.planning.volumetry import measure_volumes, partial_volume_ml
from script import at_least, run_script

log = logging.getLogger("volume_errors")

SPACINGS_MM = (0.8, 2.5, 5.0, 7.5)
FINE_MM, IN_PLANE_MM = 0.4, 2.5
OUTLINED = {"half": 0.5, "all": 0.1}
Label = NDArray[np.uint8]


@dataclass(frozen=True)
class Measured:
    """One case at one spacing, outlined in one way."""

    case: str
    slice_mm: float
    outlined: str
    liver_ml: float
    liver_error_ml: float
    crlm_error_ml: float
    flr_ml: float
    flr_error_ml: float
    flr_error_points: float
    bound_ml: float


def truth_of(seed: int, index: int) -> Label:
    """The planning map of a case ``(Z, Y, X)``, :data:`FINE_MM` by :data:`IN_PLANE_MM`, as far as its liver goes."""
    patient = draw_patient(seed, index)
    frame = body_frame(seed, index, patient)
    shape = draw_liver_shape(stream(seed, index, Stream.LIVER))
    liver = make_liver(frame, make_cavity(frame, patient), patient, shape)
    plan = plan_case(seed, index, LiverMap.of(liver, (patient.z_low_mm + 4, patient.z_high_mm - 4)))
    inside = liver.liver.values > 0
    z, y, x = (
        np.arange(axis[hit[0]] - 8, axis[hit[-1]] + 8, step)
        for axis, step, hit in zip(
            liver.liver.axes_mm,
            (FINE_MM, IN_PLANE_MM, IN_PLANE_MM),
            (np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {a}))) for a in range(3)),
            strict=True,
        )
    )
    grid = FineGrid((z, y, x))
    organs = np.zeros(grid.shape_zyx, np.uint8)
    paint(organs, grid, [(Organ.LIVER, liver.liver), (Organ.GALLBLADDER, liver.gallbladder_lumen)])
    zones, removed = paint_lesions(organs, grid, plan.lesions, plan.resection)
    return planning_map(organs, grid, liver, plan.resection, zones, removed)


def sliced(fine: Label, fine_mm: float, slice_mm: float, start_mm: float, least: float = 0.5) -> Label:
    """A planning map as slices of ``slice_mm`` show it, the first of which begins ``start_mm`` (0 to ``slice_mm``) before the fine one does.

    A slice holds of each structure the voxels of which it fills at least a share ``least`` of the thickness.
    """
    length = len(fine) * fine_mm
    edges = np.arange(-start_mm, length + slice_mm, slice_mm)
    at = np.clip(edges / fine_mm, 0, len(fine))
    whole, part = np.floor(at).astype(int), (at % 1).astype(np.float32)[:, None, None]
    masks = []
    for structure in PLANNED:
        inside = structure_mask(fine, structure)
        below = np.concatenate([np.zeros((1, *fine.shape[1:]), np.float32), np.cumsum(inside, axis=0, dtype=np.float32)])
        next_one = np.concatenate([inside, np.zeros((1, *fine.shape[1:]), bool)])
        filled = below[whole] + part * next_one[whole]
        masks.append(np.diff(filled, axis=0) * fine_mm >= least * slice_mm)
    liver, crlm, flr = masks
    return to_compartments(liver, crlm & liver, flr & liver)[0]


def measured(case: str, truth: Label, slice_mm: float, start_mm: float, outlined: str) -> Measured:
    """The errors of a case at one spacing, outlined in one way."""
    y, x = truth.shape[1:]
    fine = measure_volumes(truth, FINE_MM * IN_PLANE_MM**2 / 1000)
    label = sliced(truth, FINE_MM, slice_mm, start_mm, OUTLINED[outlined])
    grid = Geometry((x, y, len(label)), (IN_PLANE_MM, IN_PLANE_MM, slice_mm))
    coarse = measure_volumes(label, grid.voxel_volume_ml)
    columns = Geometry(grid.size_xyz, (1e-3, 1e-3, slice_mm))  # the bound is of columns through the slices, also of thin ones
    bound = partial_volume_ml(label, columns) * (IN_PLANE_MM / 1e-3) ** 2
    return Measured(
        case, slice_mm, outlined, fine.liver_ml, coarse.liver_ml - fine.liver_ml, coarse.crlm_ml - fine.crlm_ml, fine.flr_functional_ml,
        coarse.flr_functional_ml - fine.flr_functional_ml, 100 * (coarse.flr_fraction - fine.flr_fraction), bound,
    )  # fmt: skip


def table(rows: list[Measured]) -> list[str]:
    """Lines of a Markdown table, a row a spacing."""
    lines = [
        "| slices, mm | outlined | cases | liver, ml: mean (most) | metastases, ml | FLR, ml | FLR, % of itself | FLR%, points | bound, ml: mean "
        "| FLR error over the bound: mean (most) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for outlined, spacing in itertools.product(OUTLINED, SPACINGS_MM):
        own = [m for m in rows if (m.slice_mm, m.outlined) == (spacing, outlined)]

        def column(name: str, own: list[Measured] = own) -> NDArray[np.float64]:
            return np.abs(np.array([getattr(m, name) for m in own], np.float64))

        def said(values: NDArray[np.float64], digits: int = 1) -> str:
            return f"{values.mean():.{digits}f} ({values.max():.{digits}f})"

        flr, bound = column("flr_error_ml"), column("bound_ml")
        lines.append(
            f"| {spacing:g} | {outlined} | {len(own)} | {said(column('liver_error_ml'))} | {said(column('crlm_error_ml'))} | {said(flr)} "
            f"| {said(100 * flr / column('flr_ml'), 2)} | {said(column('flr_error_points'), 2)} | {bound.mean():.0f} | {said(flr / bound, 3)} |"
        )
    return lines


def main() -> int:
    """Measures, writes, prints."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=at_least(1), default=100)
    parser.add_argument("--seed", type=at_least(0), default=41)
    arguments = parser.parse_args()
    rows: list[Measured] = []
    for index in range(arguments.cases):
        name = case_name(arguments.seed, index)
        log.info("[%d/%d] %s", index + 1, arguments.cases, name)
        truth = truth_of(arguments.seed, index)
        starts = np.random.default_rng((arguments.seed, index)).random(len(SPACINGS_MM))
        rows += [
            measured(name, truth, mm, float(start * mm), way)
            for mm, start in zip(SPACINGS_MM, starts, strict=True)
            for way in OUTLINED
        ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    with replacing(arguments.out / "volume_errors.csv") as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Measured)])
        writer.writeheader()
        writer.writerows(asdict(m) for m in rows)
    sys.stdout.write("\n".join(table(rows)) + "\n")
    return 0


if __name__ == "__main__":
    run_script(main)
