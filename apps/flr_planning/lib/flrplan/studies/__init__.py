"""A folder of images and the labels that people draw on them: every submission is kept, with who, when, what changed and its review.

Knows nothing of MONAI Label; :mod:`flrplan.server.studies` is its datastore on such a folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.studies.folder import StudiesFolder
    from flrplan.studies.names import FINAL, ORIGINAL
    from flrplan.studies.stored import StoredLabel

__all__ = ["FINAL", "ORIGINAL", "StoredLabel", "StudiesFolder"]

import_at_first_use(
    __name__,
    {
        "flrplan.studies.folder": ("StudiesFolder",),
        "flrplan.studies.names": ("FINAL", "ORIGINAL"),
        "flrplan.studies.stored": ("StoredLabel",),
    },
)
