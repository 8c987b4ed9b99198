"""What a plan costs beyond its networks: coherent plan, parts and margins, label QC, report, pictures, meshes, DICOM SEG and SR.

    python benchmark/bench_plan.py --out W --slices 240

A synthetic liver with its truth, at 512 x 512 x ``--slices``, written as a DICOM series into ``W/ct`` once; the true FLR, blurred, stands
for the network's probability. Prints seconds of CPU and of the clock for the plan and for all that :meth:`Plan.save` writes, imports
included, and the peak memory of the process. Some 2 minutes the first time, half a minute after.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from scipy import ndimage

from flrplan.anatomy import Structure, structure_mask
from flrplan.cohort import make_case
from flrplan.image import Geometry, read_ct, write_label_map
from flrplan.image.dicom_write import SYNTHETIC_DESCRIPTION, write_dicom_series
from flrplan.image.masks import read_label_map
from flrplan.method import CascadeResult, Source
from flrplan.planning import Plan
from script import at_least, run_script

logger = logging.getLogger(__name__)
SEED, INDEX, IN_PLANE = 22, 3, 512


def write_case(folder: Path, slices: int) -> None:
    """The case as ``ct/`` and ``truth.nii.gz``, its slices repeated or left out until there are so many."""
    case = make_case(SEED, INDEX, "full")
    of_slice = np.linspace(0, len(case.hu_zyx) - 1, slices).round().astype(int)
    grid = case.geometry
    thickness = grid.spacing_mm[2] * (len(case.hu_zyx) - 1) / (slices - 1)
    grid = Geometry(
        (grid.size_xyz[0], grid.size_xyz[1], slices), (*grid.spacing_mm[:2], thickness), grid.origin_mm, grid.direction
    )
    write_label_map(folder / "truth.nii.gz", case.planning_zyx[of_slice], grid)
    write_dicom_series(folder / "ct", case.hu_zyx[of_slice], grid, case.case_id, SYNTHETIC_DESCRIPTION)


def main() -> int:
    """Writes the case where it is not there, plans and saves it, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slices", type=at_least(8), default=240)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    made = arguments.out / f"{arguments.slices}_slices"
    if not (made / "ct").is_dir():
        write_case(made, arguments.slices)
    ct = read_ct(made / "ct")
    label, _ = read_label_map(made / "truth.nii.gz")
    masks = {s: structure_mask(label.astype(np.uint8), s) for s in (Structure.LIVER, Structure.CRLM, Structure.FLR)}
    probability = np.rint(255 * ndimage.uniform_filter(masks[Structure.FLR].astype(np.float32), 5)).astype(np.uint8)
    sources = {s: Source.PREDICTED for s in masks}
    started = (process_time(), perf_counter())

    def told(what: str) -> None:
        logger.info("%-28s %6.1f s of CPU, %6.1f s", what, process_time() - started[0], perf_counter() - started[1])

    plan = Plan.coherent(CascadeResult(ct, masks, sources, {}, {}, ()), probability)
    told("coherent plan")
    _ = plan.parts, plan.findings, plan.warnings
    told("and parts, margins, label QC")
    plan.save(arguments.out / "plan")
    told("and all files written")
    unit = 2**20 if sys.platform != "darwin" else 2**30
    logger.info(
        "%s voxels; peak memory %.1f GB",
        " x ".join(map(str, ct.geometry.size_xyz)),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    )
    return 0


if __name__ == "__main__":
    run_script(main)
