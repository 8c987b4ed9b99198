"""Heights of the trunk in mm of body coordinates, and how shapes change from one to the next."""

from __future__ import annotations

import numpy as np

from flrplan.image.smooth_noise import FloatArray

CREST_Z_MM = -120.0
"""Top of the iliac crests: some 25 to 60 mm below the tip of the liver, at the height of the fourth lumbar vertebra."""

SACRUM_Z_MM = -176.0
"""Where the lumbar spine ends."""

FLOOR_Z_MM = -314.0
"""Pelvic floor: nothing of the peritoneal cavity lies below."""

FORK_Z_MM = -335.0
"""Where the thighs part."""


def descent(z: FloatArray, top: float, bottom: float) -> FloatArray:
    """0 above ``top``, 1 below ``bottom``, smooth between; same shape as ``z``."""
    t = np.clip((top - z) / (top - bottom), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
