"""Seeds that keep the demo's cases apart: what trains, what measures, what is shown."""

from flrplan.cohort.settings import CaseSize

TRAIN_SEED = 1
TRAIN_CASES = 160
FOLDS = 2
MEASURE_SEED = 4
"""Cases of this seed measure the finished models. They are used for no choice: those of seed 2 were, once (the liver's epochs)."""
MEASURE_CASES = 50
MEASURE_SIZE = CaseSize.FULL
"""As patients are scanned: 512 x 512 voxels, slices of 0.8 to 7.5 mm. The training cases (medium) are coarser."""
DEMO_SEED = 3
DEMO_INDEX = 3
"""The case that ``flrplan demo`` makes and plans: thin slices and the whole liver in view."""
