"""CTs, masks and their voxel grids: read with checks that name the file, written whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.image.cases import CHANNEL, case_name, case_names, find_cases, natural_key, without_channel
    from flrplan.image.ct import CT, read_ct, read_grid
    from flrplan.image.geometry import Geometry, require_same_grid
    from flrplan.image.masks import read_label_map, read_mask
    from flrplan.image.orientation import Canonical
    from flrplan.image.write import write_label_map, write_volume

__all__ = [
    "CHANNEL",
    "CT",
    "Canonical",
    "Geometry",
    "case_name",
    "case_names",
    "find_cases",
    "natural_key",
    "read_ct",
    "read_grid",
    "read_label_map",
    "read_mask",
    "require_same_grid",
    "without_channel",
    "write_label_map",
    "write_volume",
]

import_at_first_use(
    __name__,
    {
        "flrplan.image.cases": (
            "CHANNEL",
            "case_name",
            "case_names",
            "find_cases",
            "natural_key",
            "without_channel",
        ),
        "flrplan.image.ct": (
            "CT",
            "read_ct",
            "read_grid",
        ),
        "flrplan.image.geometry": (
            "Geometry",
            "require_same_grid",
        ),
        "flrplan.image.masks": (
            "read_label_map",
            "read_mask",
        ),
        "flrplan.image.orientation": ("Canonical",),
        "flrplan.image.write": (
            "write_label_map",
            "write_volume",
        ),
    },
)
