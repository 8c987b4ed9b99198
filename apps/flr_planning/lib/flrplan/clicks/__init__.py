"""A plan corrected by clicks and strokes: what they say (:mod:`marks`), and the masks after them (:mod:`correct`). No training, no torch."""

from __future__ import annotations

from flrplan.clicks.correct import CLICKS, ClickSettings, Correction, correct
from flrplan.clicks.marks import BACKGROUND, MOST_MARKS, SAYS, Marks, MarkSet, points_of

__all__ = [
    "BACKGROUND",
    "CLICKS",
    "MOST_MARKS",
    "SAYS",
    "ClickSettings",
    "Correction",
    "MarkSet",
    "Marks",
    "correct",
    "points_of",
]
