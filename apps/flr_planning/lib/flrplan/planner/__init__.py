"""The page for a surgeon without a terminal: a CT is dropped on it and planned, the report read, the files taken away.

:func:`planner_router` goes into the app that serves it (:mod:`flrplan.planner.router`); :class:`Jobs` keeps uploads and plans for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.planner.jobs import Jobs
    from flrplan.planner.router import planner_router
    from flrplan.planner.settings import PlannerSettings

__all__ = ["Jobs", "PlannerSettings", "planner_router"]

import_at_first_use(
    __name__,
    {
        "flrplan.planner.jobs": ("Jobs",),
        "flrplan.planner.router": ("planner_router",),
        "flrplan.planner.settings": ("PlannerSettings",),
    },
)
