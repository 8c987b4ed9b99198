"""The plan: volumes, warnings, the planning map, its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.planning.plan import MAP_NAME, PICTURE_NAME, REPORT_NAME, Plan
    from flrplan.planning.volumetry import Volumes, measure_volumes

__all__ = [
    "MAP_NAME",
    "PICTURE_NAME",
    "REPORT_NAME",
    "Plan",
    "Volumes",
    "measure_volumes",
]

import_at_first_use(
    __name__,
    {
        "flrplan.planning.plan": (
            "MAP_NAME",
            "PICTURE_NAME",
            "REPORT_NAME",
            "Plan",
        ),
        "flrplan.planning.volumetry": (
            "Volumes",
            "measure_volumes",
        ),
    },
)
