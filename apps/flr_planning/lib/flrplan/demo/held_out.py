"""Seeds that keep the demo's cases apart: what trains, what measures, what is shown."""

TRAIN_SEED = 1
TRAIN_CASES = 160
FOLDS = 2
MEASURE_SEED = 2
"""Cases of this seed measure the finished models. They are used for no choice."""
MEASURE_CASES = 50
DEMO_SEED = 3
DEMO_INDEX = 3
"""The case that ``flrplan demo`` makes and plans: thin slices and the whole liver in view."""
