"""Structures and compartments. Label integers, names, colours and codes stand here and nowhere else.

Structures overlap by design (the liver contains its tumours); viewers exchange ONE integer label map. So annotators work on
four disjoint compartments, and the structures are unions of compartments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Structure(StrEnum):
    """What is segmented. The value is the name used in files, columns and by the clients."""

    LIVER = "liver"
    CRLM = "crlm"
    FLR = "flr"
    LRS = "lrs"


class Compartment(IntEnum):
    """Disjoint parts of the liver; the value is the integer in a planning label map, 0 is background."""

    REMNANT = 1
    RESECTION = 2
    CRLM_IN_RESECTION = 3
    CRLM_IN_REMNANT = 4

    @property
    def label_name(self) -> str:
        """Name in a viewer, for example ``crlm_in_remnant``."""
        return self.name.lower()


@dataclass(frozen=True)
class CodedConcept:
    """A DICOM code triplet (value, scheme, meaning); scheme ``SCT`` is SNOMED CT, ``99FLRPLAN`` is private to this project."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Appearance:
    """How a label is shown and coded: display name, RGB colour 0..255, DICOM segment category, type and modifier."""

    title: str
    rgb: tuple[int, int, int]
    category: CodedConcept
    type: CodedConcept
    modifier: CodedConcept | None = None


_ANATOMY = CodedConcept("123037004", "SCT", "Anatomical Structure")
_ABNORMAL = CodedConcept("49755003", "SCT", "Morphologically Altered Structure")
_LIVER = CodedConcept("10200004", "SCT", "Liver")
_METASTASIS = CodedConcept("14799000", "SCT", "Neoplasm, Secondary")
# SNOMED CT has no concept for the planned remnant or the planned resection: private modifiers of "Liver".
_REMNANT = CodedConcept("FLR", "99FLRPLAN", "Future liver remnant")
_RESECTION = CodedConcept("LRS", "99FLRPLAN", "Planned liver resection")


@dataclass(frozen=True)
class StructureInfo:
    """All that is said of one structure.

    short_title, letter: its name in tables, and as an input in the titles of their columns (``T+CT``).
    nsd_tolerance_mm: of the normalised surface Dice. Liver 5 mm and tumour 2 mm are FLARE's; the FLR (and its complement) takes the
        liver's: most of its surface is the liver's own, and a cut is not planned to be finer than that.
    compartments: of the planning map, whose union it is; empty: no planning map holds it, only a mask of its own.
    """

    appearance: Appearance
    short_title: str
    letter: str
    nsd_tolerance_mm: float
    compartments: frozenset[Compartment] = frozenset()


# Remnant green and resection red as in Fig. 1 of arXiv:2604.07999.
STRUCTURES: Mapping[Structure, StructureInfo] = {
    Structure.LIVER: StructureInfo(
        Appearance("Liver", (221, 130, 101), _ANATOMY, _LIVER), "Liver", "L", 5.0, frozenset(Compartment)
    ),
    Structure.CRLM: StructureInfo(
        Appearance("Colorectal liver metastases", (255, 221, 0), _ABNORMAL, _METASTASIS),
        *("CRLM", "T", 2.0, frozenset({Compartment.CRLM_IN_RESECTION, Compartment.CRLM_IN_REMNANT})),
    ),
    Structure.FLR: StructureInfo(
        Appearance("Future liver remnant", (0, 170, 80), _ANATOMY, _LIVER, _REMNANT),
        *("FLR", "R", 5.0, frozenset({Compartment.REMNANT, Compartment.CRLM_IN_REMNANT})),
    ),
    Structure.LRS: StructureInfo(
        Appearance("Liver resection", (220, 40, 40), _ANATOMY, _LIVER, _RESECTION),
        *("LRS", "S", 5.0, frozenset({Compartment.RESECTION, Compartment.CRLM_IN_RESECTION})),
    ),
}
"""One row a structure; titles, letters, colours, codes and tolerances stand nowhere else."""

PLANNED = (Structure.LIVER, Structure.CRLM, Structure.FLR)
"""What a plan states, and the truth of every case of the benchmark, be it empty or not; a planning map is made of them."""

COMPARTMENTS_OF: Mapping[Structure, frozenset[Compartment]] = {
    s: i.compartments for s, i in STRUCTURES.items() if i.compartments
}
"""Of each structure that a planning map holds, the compartments whose union it is."""

APPEARANCE: Mapping[Structure | Compartment, Appearance] = {
    **{structure: info.appearance for structure, info in STRUCTURES.items()},
    Compartment.REMNANT: Appearance("Remnant parenchyma", (0, 170, 80), _ANATOMY, _LIVER, _REMNANT),
    Compartment.RESECTION: Appearance("Resected parenchyma", (220, 40, 40), _ANATOMY, _LIVER, _RESECTION),
    Compartment.CRLM_IN_RESECTION: Appearance("Metastasis in the resection", (255, 221, 0), _ABNORMAL, _METASTASIS, _RESECTION),
    Compartment.CRLM_IN_REMNANT: Appearance("Metastasis in the remnant", (170, 0, 255), _ABNORMAL, _METASTASIS, _REMNANT),
}
