"""Retraining on the labels that annotators submit: which cases, what is held out of training, training, comparison, replacing.

Knows nothing of MONAI Label. Read in this order: :mod:`annotations` (labels as cases), :mod:`holdout` (the part that never trains),
:mod:`stage_training` (one training), :mod:`comparison` (new against current), :mod:`replacing` (the model folders),
:mod:`progress` (what a viewer shows meanwhile).
"""
