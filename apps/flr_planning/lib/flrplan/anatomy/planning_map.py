"""The planning map: one integer label map from which every structure can be read, and what a client may call its parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy.structures import COMPARTMENTS_OF, Compartment, Mask, Structure
from flrplan.errors import GridError, LabelError


@dataclass(frozen=True)
class NestingReport:
    """Voxels that the planning map could not hold; what is not zero belongs into a finding, never under the table."""

    crlm_outside_liver: int = 0
    flr_outside_liver: int = 0

    def findings(self) -> list[str]:
        """One sentence per kind of lost voxel; empty if the masks nest."""
        named = (("CRLM", self.crlm_outside_liver), ("FLR", self.flr_outside_liver))
        return [
            f"{count} {name} voxels lie outside the liver and are not in the planning map" for name, count in named if count
        ]


def to_compartments(liver: Mask, crlm: Mask, flr: Mask) -> tuple[NDArray[np.uint8], NestingReport]:
    """The planning label map of three masks; lossless where CRLM and FLR lie inside the liver.

    Args: three arrays ``(Z, Y, X)`` bool on one grid. All may be empty; an empty liver gives an empty map.
    Returns: ``(Z, Y, X) uint8`` of :class:`Compartment` values, and what did not fit.
    Raises: GridError where the shapes differ.
    """
    if not liver.shape == crlm.shape == flr.shape:
        raise GridError(f"masks of one case must share a shape: liver {liver.shape}, crlm {crlm.shape}, flr {flr.shape}")
    label = np.zeros(liver.shape, np.uint8)
    label[liver & ~flr] = Compartment.RESECTION
    label[liver & flr] = Compartment.REMNANT
    label[liver & crlm & ~flr] = Compartment.CRLM_IN_RESECTION
    label[liver & crlm & flr] = Compartment.CRLM_IN_REMNANT
    report = NestingReport(int(np.count_nonzero(crlm & ~liver)), int(np.count_nonzero(flr & ~liver)))
    return label, report


def structure_mask(label_zyx: NDArray[np.uint8], structure: Structure) -> Mask:
    """The ``(Z, Y, X) bool`` mask of one structure in a planning label map; empty where no member compartment occurs.

    Raises: LabelError for a structure that is no union of compartments, so that no planning map says anything of it.
    """
    if structure not in COMPARTMENTS_OF:
        raise LabelError(f"a planning label map does not hold {structure}; give a mask of its own")
    return np.isin(label_zyx, [int(c) for c in COMPARTMENTS_OF[structure]])


MANY_VALUES = 50
"""More labels than a label map of the liver holds; the most is one a tumour."""


def check_planning_map(label_zyx: NDArray[np.generic], what: str) -> NDArray[np.uint8]:
    """The same array as uint8, once every value is known to be a compartment or background.

    Raises: LabelError naming ``what``, the values found and what to do.
    """
    values = np.unique(label_zyx)
    known = {0, *(int(c) for c in Compartment)}
    unknown = [v for v in values.tolist() if v not in known]
    if unknown:
        raise LabelError(
            f"{what}: a planning label map holds 0..{max(known)} "
            f"({', '.join(f'{int(c)} {c.label_name}' for c in Compartment)}), found {unknown[:5]}{resemblance(values.tolist())}; give "
            "these voxels one of those values and save the map again"
        )
    return label_zyx.astype(np.uint8)


def resemblance(values: Sequence[float]) -> str:
    """What an array of these values looks like where a mask or a planning map was expected: ", which looks like ...", or "" if unknown."""
    found = [v for v in values if v != 0]
    if found and min(found) < 0:
        return ", which looks like a CT in place of a mask"
    if len(found) > MANY_VALUES:
        return (
            ", which looks like an image or a probability map in place of a mask (of a probability, take what exceeds one half)"
        )
    if len(found) == 1:
        return f", which looks like a binary mask{' as pictures hold it' if found == [255] else ''} (write 1 for {found[0]})"
    if found and {*found} <= {int(c) for c in Compartment}:
        crlm, flr = (" and ".join(str(int(c)) for c in sorted(COMPARTMENTS_OF[s])) for s in (Structure.CRLM, Structure.FLR))
        return f", which looks like a label map (of a planning map, the liver is every value but 0, crlm {crlm}, flr {flr})"
    return ""


@dataclass(frozen=True)
class PlanningLabel:
    """What one stored label says: the masks it holds. A structure that is not in ``masks`` is absent, which is not empty."""

    masks: Mapping[Structure, Mask]

    @property
    def holds(self) -> frozenset[Structure]:
        """The structures that the annotator stated, be they empty or not."""
        return frozenset(self.masks)


_STRUCTURE_NAMES = {s.value: s for s in Structure}
_COMPARTMENT_NAMES = {c.label_name: c for c in Compartment}
KNOWN_LABEL_NAMES: tuple[str, ...] = (*_STRUCTURE_NAMES, *_COMPARTMENT_NAMES)


def _held_by_compartments(named: Iterable[Compartment]) -> list[Structure]:
    present = set(named)
    return [s for s, compartments in COMPARTMENTS_OF.items() if compartments <= present]


def decode_label(label_zyx: NDArray[np.generic], names: Mapping[str, int], what: str) -> PlanningLabel:
    """Reads a label map as a client sent it: any of the known names, at any index.

    Rules. Compartments: a structure is held if all its compartments are named, so ``remnant`` alone never says "liver".
    Structures: the liver contains every other structure that is named beside it (a label map cannot overlap).
    If only one kind is named, a name without voxels says "empty". If both kinds are named (3D Slicer offers all names),
    the kind that has voxels is meant, and of the structures only those with voxels are held; voxels of both kinds
    are an error, and so is ``crlm`` beside ``flr`` or ``lrs``, where the side of the tumour would be a guess.

    Args:
        label_zyx: ``(Z, Y, X)`` integers, 0 is background.
        names: label name to index, for example ``{"liver": 3}``.
        what: how to call this label in an error (file or case).
    Raises: LabelError for unknown names, values without a name, doubled or non-positive indices and mixtures.
    """
    unknown = sorted(set(names) - set(KNOWN_LABEL_NAMES))
    if unknown:
        raise LabelError(f"{what}: unknown label names {unknown}; known are {', '.join(KNOWN_LABEL_NAMES)}")
    if not names:
        raise LabelError(f"{what}: no label names came with it; send label_info with any of {', '.join(KNOWN_LABEL_NAMES)}")
    if len(set(names.values())) != len(names) or min(names.values()) < 1:
        raise LabelError(f"{what}: each label needs an index of its own from 1 up, got {dict(names)}")
    values = {int(v) for v in np.unique(label_zyx)} - {0}
    nameless = sorted(values - set(names.values()))
    if nameless:
        raise LabelError(f"{what}: voxels of value {nameless[:5]} have no name; named are {dict(names)}")

    structures = {_STRUCTURE_NAMES[n]: i for n, i in names.items() if n in _STRUCTURE_NAMES}
    compartments = {_COMPARTMENT_NAMES[n]: i for n, i in names.items() if n in _COMPARTMENT_NAMES}
    painted_structures = [s for s, i in structures.items() if i in values]
    painted_compartments = [c for c, i in compartments.items() if i in values]
    if painted_structures and painted_compartments:
        raise LabelError(
            f"{what}: holds both structures ({', '.join(map(str, painted_structures))}) and compartments "
            f"({', '.join(c.label_name for c in painted_compartments)}); paint one kind and delete the other"
        )
    if compartments and not painted_structures:
        return _decode_compartments(label_zyx, compartments, what)
    held = {s: i for s, i in structures.items() if not compartments or i in values}
    return _decode_structures(label_zyx, held, what)


def _decode_compartments(label: NDArray[np.generic], index: Mapping[Compartment, int], what: str) -> PlanningLabel:
    held = _held_by_compartments(index)
    if not held:
        raise LabelError(
            f"{what}: the compartments {', '.join(c.label_name for c in index)} alone do not state any structure; "
            "name all compartments of a structure (for the liver: all four), or paint 'liver'"
        )
    return PlanningLabel({s: np.isin(label, [index[c] for c in COMPARTMENTS_OF[s]]) for s in held})


def _decode_structures(label: NDArray[np.generic], index: Mapping[Structure, int], what: str) -> PlanningLabel:
    masks: dict[Structure, Mask] = {s: label == i for s, i in index.items()}
    sides = [s for s in (Structure.FLR, Structure.LRS) if s in masks and masks[s].any()]
    if sides and Structure.CRLM in masks and masks[Structure.CRLM].any():
        raise LabelError(
            f"{what}: 'crlm' beside '{sides[0]}' does not say on which side of the cut the tumour lies; "
            f"use {Compartment.CRLM_IN_RESECTION.label_name} and {Compartment.CRLM_IN_REMNANT.label_name}"
        )
    if Structure.LIVER in masks:
        masks[Structure.LIVER] = np.logical_or.reduce(list(masks.values()))
    return PlanningLabel(masks)
