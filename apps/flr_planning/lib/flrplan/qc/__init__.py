"""Label QC: rules that say what is wrong with masks, where, and how it can be mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.qc.case import QcCase
    from flrplan.qc.finding import Finding, Severity
    from flrplan.qc.liver_in_view import liver_in_view_findings
    from flrplan.qc.registry import RULES, check_case
    from flrplan.qc.rule import Rule, Threshold

__all__ = [
    "RULES",
    "Finding",
    "QcCase",
    "Rule",
    "Severity",
    "Threshold",
    "check_case",
    "liver_in_view_findings",
]

import_at_first_use(
    __name__,
    {
        "flrplan.qc.case": ("QcCase",),
        "flrplan.qc.finding": (
            "Finding",
            "Severity",
        ),
        "flrplan.qc.registry": (
            "RULES",
            "check_case",
        ),
        "flrplan.qc.rule": (
            "Rule",
            "Threshold",
        ),
        "flrplan.qc.liver_in_view": ("liver_in_view_findings",),
    },
)
