"""A plan (:mod:`plan`): coherent (:mod:`coherent`), its volumes (:mod:`volumetry`), parts and margins (:mod:`parts`), whether the remnant
is enough (:mod:`assessment`, :mod:`criteria`, :mod:`patient`), how sure that is (:mod:`interval`), its meshes (:mod:`meshes`), pictures
(:mod:`picture`) and report (:mod:`report`). Never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.planning.assessment import Assessment, Clinical
    from flrplan.planning.coherent import COHERENT, CoherentSettings
    from flrplan.planning.criteria import LiverState
    from flrplan.planning.cut_file import Plane, read_cut
    from flrplan.planning.interval import Bounds, Interval
    from flrplan.planning.meshes import Mesh
    from flrplan.planning.parts import Parts
    from flrplan.planning.plan import MAP_NAME, PICTURE_NAME, REPORT_NAME, Plan
    from flrplan.planning.volumetry import Volumes, measure_volumes

__all__ = [
    "COHERENT",
    "MAP_NAME",
    "PICTURE_NAME",
    "REPORT_NAME",
    "Assessment",
    "Bounds",
    "Clinical",
    "CoherentSettings",
    "Interval",
    "LiverState",
    "Mesh",
    "Parts",
    "Plan",
    "Plane",
    "Volumes",
    "measure_volumes",
    "read_cut",
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
        "flrplan.planning.coherent": (
            "COHERENT",
            "CoherentSettings",
        ),
        "flrplan.planning.interval": (
            "Bounds",
            "Interval",
        ),
        "flrplan.planning.parts": ("Parts",),
        "flrplan.planning.cut_file": ("Plane", "read_cut"),
        "flrplan.planning.meshes": ("Mesh",),
        "flrplan.planning.assessment": (
            "Assessment",
            "Clinical",
        ),
        "flrplan.planning.criteria": ("LiverState",),
    },
)
