"""Seeds that keep the demo's cases apart: what trains, what measures, what is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.cohort import CaseSize, CohortSettings

if TYPE_CHECKING:
    from flrplan.cohort import SyntheticCase

TRAIN_SEED = 1
TRAIN_CASES = 160
TRAIN_WIDE = 0.5
"""Share of the training cases whose fields of view and lesions spread wide."""
FOLDS = 2
MEASURE_SEED = 4
"""Cases of this seed measure the finished models. They are used for no choice: those of seed 2 were, once (the liver's epochs)."""
MEASURE_CASES = 50
MEASURE_SIZE = CaseSize.FULL
"""As patients are scanned: 512 x 512 voxels, slices of 0.8 to 7.5 mm. The training cases (medium) are coarser."""
MEASURE_WIDE = 0.5
"""So both kinds of case are measured: those like the data set's and the wide ones."""
CALIBRATION_SEED = 32
"""Cases of this seed are the known ones of the demo models' ``calibration.json`` (docs/uncertainty.md). Two numbers were chosen on them, too:
what of a liver a coherent plan calls undecided, and the CRLM's threshold."""
THRESHOLD_CASES = 30
DEMO_SEED = 3
DEMO_INDEX = 3
"""The case that ``flrplan demo`` makes and plans: thin slices and the whole liver in view."""


def choosing_cohort() -> CohortSettings:
    """The first of the calibration's cases, on which thresholds are chosen."""
    return CohortSettings(cases=THRESHOLD_CASES, seed=CALIBRATION_SEED, size=MEASURE_SIZE, wide=MEASURE_WIDE)


def measured_case(index: int, size: CaseSize = MEASURE_SIZE) -> SyntheticCase:
    """A case that measures the models; see :func:`flrplan.cohort.make_case`."""
    from flrplan.cohort import make_case

    wide = CohortSettings(seed=MEASURE_SEED, size=size, wide=MEASURE_WIDE).is_wide(index)
    return make_case(MEASURE_SEED, index, size, wide)
