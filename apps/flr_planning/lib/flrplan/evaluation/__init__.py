"""The benchmark's evaluation: labels and predictions in, ``cases.csv``, ``summary.json``, two tables and a report out.

The order of work: :mod:`inputs` (which file is what, and what is missing), :mod:`scoring` (one case, in a worker process),
:mod:`summary` with :mod:`statistics` (numbers), :mod:`tables`, :mod:`figures` and :mod:`report` (what people read),
:mod:`run` (all of it). Never imports torch.
"""
