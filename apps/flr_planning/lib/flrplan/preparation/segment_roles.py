"""What a segment of the data set is, by its label: ``Liver``, ``Liver Remnant``, ``Tumor_1`` .. ``Tumor_n``, ``Hepatic``, ``Portal``."""

from __future__ import annotations

import re
from enum import StrEnum


class SegmentRole(StrEnum):
    """What becomes of a segment. Veins are kept for plans, no score counts them; unknown segments are named in the notes and used for nothing."""

    LIVER = "liver"
    REMNANT = "flr"
    TUMOUR = "crlm"
    HEPATIC = "hepatic_veins"
    PORTAL = "portal_veins"
    UNKNOWN = "unknown, not used"


VEINS = (SegmentRole.HEPATIC, SegmentRole.PORTAL)

_TUMOUR = re.compile(r"tumou?r ?\d*")
_NAMED = {
    "liver": SegmentRole.LIVER,
    "liver remnant": SegmentRole.REMNANT,
    "hepatic": SegmentRole.HEPATIC,
    "portal": SegmentRole.PORTAL,
}


def segment_role(label: str) -> SegmentRole:
    """The role of a segment label; case, spaces, ``_`` and ``-`` do not matter."""
    plain = " ".join(re.split(r"[\s_\-]+", label.strip().lower()))
    if _TUMOUR.fullmatch(plain):
        return SegmentRole.TUMOUR
    return _NAMED.get(plain, SegmentRole.UNKNOWN)
