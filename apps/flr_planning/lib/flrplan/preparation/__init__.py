"""From downloads and folders to a work folder of the benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.preparation.folder import find_folder_cases
    from flrplan.preparation.layout import read_layout
    from flrplan.preparation.run import Prepared, PrepareSettings, prepare
    from flrplan.preparation.sources import CaseSource, ProblemKind, SourceKind
    from flrplan.preparation.tcia import find_tcia_cases

__all__ = [
    "CaseSource",
    "PrepareSettings",
    "Prepared",
    "ProblemKind",
    "SourceKind",
    "find_folder_cases",
    "find_tcia_cases",
    "prepare",
    "read_layout",
]

import_at_first_use(
    __name__,
    {
        "flrplan.preparation.run": (
            "Prepared",
            "PrepareSettings",
            "prepare",
        ),
        "flrplan.preparation.sources": (
            "CaseSource",
            "ProblemKind",
            "SourceKind",
        ),
        "flrplan.preparation.layout": ("read_layout",),
        "flrplan.preparation.tcia": ("find_tcia_cases",),
        "flrplan.preparation.folder": ("find_folder_cases",),
    },
)
