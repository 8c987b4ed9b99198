"""Foreign nnU-Net models taken up as models of a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.nnunet.imported.model import import_model

__all__ = [
    "import_model",
]

import_at_first_use(
    __name__,
    {
        "flrplan.nnunet.imported.model": ("import_model",),
    },
)
