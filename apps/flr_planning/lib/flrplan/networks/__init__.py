"""Architectures as data, their networks, and published weights. Nothing of nnU-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.networks.table import (
        ARCHITECTURES,
        BASE,
        NNUNET,
        PAPER,
        SCRATCH,
        STUNET,
        SWINUNETR,
        TABLE,
        Architecture,
        ChannelMode,
        Schedule,
        architecture_named,
        names_in,
        require_second_opinions,
    )

__all__ = [
    "ARCHITECTURES",
    "BASE",
    "NNUNET",
    "PAPER",
    "SCRATCH",
    "STUNET",
    "SWINUNETR",
    "TABLE",
    "Architecture",
    "ChannelMode",
    "Schedule",
    "architecture_named",
    "names_in",
    "require_second_opinions",
]

import_at_first_use(
    __name__,
    {
        "flrplan.networks.table": (
            "ARCHITECTURES",
            "BASE",
            "NNUNET",
            "PAPER",
            "SCRATCH",
            "STUNET",
            "SWINUNETR",
            "TABLE",
            "Architecture",
            "ChannelMode",
            "Schedule",
            "architecture_named",
            "names_in",
            "require_second_opinions",
        ),
    },
)
