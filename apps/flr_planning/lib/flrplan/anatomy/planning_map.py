"""The planning map: one integer label map from which every structure can be read, and what a client may call its parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy.structures import APPEARANCE, COMPARTMENTS_OF, PLANNED, Compartment, Mask, Structure
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


_LOOK = {**{s.value: APPEARANCE[s] for s in Structure}, **{c.label_name: APPEARANCE[c] for c in Compartment}}
KNOWN_LABEL_NAMES: tuple[str, ...] = tuple(_LOOK)
_NAMES = {**{"_".join(look.title.casefold().split()): name for name, look in _LOOK.items()}, **{name: name for name in _LOOK}}


def _held_by_compartments(named: Iterable[Compartment]) -> list[Structure]:
    present = set(named)
    return [s for s, compartments in COMPARTMENTS_OF.items() if compartments <= present]


def label_name(name: str) -> str:
    """A name as this project writes it: ``Liver``, ``CRLM in remnant`` and a title of ours are known; any other stays as it is."""
    key = "_".join(re.split(r"[\s_-]+", name.strip().casefold()))
    return _NAMES.get(key, name)


def decode_label(label_zyx: NDArray[np.generic], names: Mapping[str, int], what: str) -> PlanningLabel:
    """As :func:`decode_layers`, of one label map."""
    return decode_layers([(label_zyx, names)], what)


def decode_layers(layers: Sequence[tuple[NDArray[np.generic], Mapping[str, int]]], what: str) -> PlanningLabel:
    """Reads label maps as a client sent them: any of the known names (:func:`label_name`), at any index.

    Rules. Compartments: a structure is held if all its compartments are named, so ``remnant`` alone never says "liver".
    Structures: the liver contains every other structure that is named beside it in its layer (a label map cannot overlap).
    If only one kind is named, a name without voxels says "empty". If both kinds are named (3D Slicer offers all names),
    the kind that has voxels is meant, and of the structures only those with voxels are held; voxels of both kinds
    are an error, and so is, in a single layer, ``crlm`` beside ``flr`` or ``lrs``, where the side of the tumour would be a guess.
    Structures in several layers are as they were drawn.

    Args:
        layers: label maps ``(Z, Y, X)`` of integers, 0 is background, each with label name to index, for example ``{"liver": 3}``.
        what: how to call this label in an error (file or case).
    Raises: LabelError for unknown and doubled names, values without a name, doubled or non-positive indices and mixtures.
    """
    if not any(names for _, names in layers):
        raise LabelError(f"{what}: no label names came with it; send label_info with any of {', '.join(KNOWN_LABEL_NAMES)}")
    drawn: dict[str, Mask] = {}
    layer_of: dict[str, int] = {}
    painted: set[str] = set()
    for number, (label, given) in enumerate(layers):
        names = {label_name(name): index for name, index in given.items()}
        _check_names(label, given, names, set(drawn), what)
        values = set(np.unique(label).tolist())
        drawn |= {name: label == index for name, index in names.items()}
        layer_of |= dict.fromkeys(names, number)
        painted |= {name for name, index in names.items() if index in values}
    structures = {s: drawn[s.value] for s in Structure if s.value in drawn}
    compartments = {c: drawn[c.label_name] for c in Compartment if c.label_name in drawn}
    painted_structures = [s for s in structures if s.value in painted]
    painted_compartments = [c.label_name for c in compartments if c.label_name in painted]
    if painted_structures and painted_compartments:
        raise LabelError(
            f"{what}: holds both structures ({', '.join(map(str, painted_structures))}) and compartments "
            f"({', '.join(painted_compartments)}); paint one kind and delete the other"
        )
    if compartments and not painted_structures:
        return _decode_compartments(compartments, what)
    held = {s: mask for s, mask in structures.items() if not compartments or s.value in painted}
    beneath = {s for s in held if layer_of[s.value] == layer_of.get(Structure.LIVER.value)}
    return _decode_structures(held, beneath, len(layers) == 1, what)


def _check_names(
    label: NDArray[np.generic], given: Mapping[str, int], names: Mapping[str, int], before: set[str], what: str
) -> None:
    """Raises LabelError for names and indices of one label map that say nothing, or say it twice."""
    unknown = sorted(set(names) - set(KNOWN_LABEL_NAMES))
    if unknown:
        raise LabelError(
            f"{what}: unknown label names {unknown}; known are {', '.join(KNOWN_LABEL_NAMES)}. Rename or delete these segments"
        )
    if len(names) != len(given) or before & set(names):
        raise LabelError(f"{what}: two of its labels {sorted([*before, *given])} are called the same; rename or delete one")
    if names and (len(set(names.values())) != len(names) or min(names.values()) < 1):
        raise LabelError(f"{what}: each label needs an index of its own from 1 up, got {dict(given)}")
    nameless = sorted(set(np.unique(label).tolist()) - {0} - set(names.values()))
    if nameless:
        raise LabelError(f"{what}: voxels of value {nameless[:5]} have no name; named are {dict(given)}")


def _decode_compartments(drawn: Mapping[Compartment, Mask], what: str) -> PlanningLabel:
    held = _held_by_compartments(drawn)
    if not held:
        raise LabelError(
            f"{what}: the compartments {', '.join(c.label_name for c in drawn)} alone do not state any structure; "
            "name all compartments of a structure (for the liver: all four), or paint 'liver'"
        )
    twice = np.count_nonzero(np.add.reduce([mask.astype(np.uint8) for mask in drawn.values()]) > 1)
    if twice:
        raise LabelError(
            f"{what}: its compartments {', '.join(c.label_name for c in drawn)} overlap in {twice} voxels, and each voxel is in one at "
            "most; erase one of the two there"
        )
    return PlanningLabel({s: np.logical_or.reduce([drawn[c] for c in sorted(COMPARTMENTS_OF[s])]) for s in held})


def _decode_structures(drawn: Mapping[Structure, Mask], beneath: set[Structure], one_layer: bool, what: str) -> PlanningLabel:
    """beneath: the structures in the liver's own layer, which it contains."""
    masks = dict(drawn)
    sides = [s for s in (Structure.FLR, Structure.LRS) if s in masks and masks[s].any()]
    if one_layer and sides and Structure.CRLM in masks and masks[Structure.CRLM].any():
        raise LabelError(
            f"{what}: 'crlm' beside '{sides[0]}' does not say on which side of the cut the tumour lies; "
            f"use {Compartment.CRLM_IN_RESECTION.label_name} and {Compartment.CRLM_IN_REMNANT.label_name}"
        )
    if beneath:
        masks[Structure.LIVER] = np.logical_or.reduce([masks[s] for s in sorted(beneath)])
    return PlanningLabel(masks)


def to_label_map(label: PlanningLabel, what: str) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """One label map ``(Z, Y, X) uint8`` that says the same, and its names: compartments where liver, CRLM and FLR are held.

    Raises: LabelError where the structures overlap in a way that none can say.
    """
    masks = label.masks
    if all(s in masks for s in PLANNED):
        array, _ = to_compartments(*(masks[s] for s in PLANNED))
        names = {c.label_name: int(c) for c in Compartment}
    else:
        order = sorted(masks, key=lambda s: (s is not Structure.LIVER, -np.count_nonzero(masks[s])))
        names = {s.value: i for i, s in enumerate(order, 1)}
        array = np.zeros(next(iter(masks.values())).shape, np.uint8)
        for s in order:
            array[masks[s]] = names[s.value]
    if not _says(array, names, masks, what):
        raise LabelError(
            f"{what}: its segments overlap in a way that one label map cannot say (a metastasis or a remnant outside the liver?); "
            "erase what lies outside, or draw the four compartments"
        )
    return array, names


def _says(array: NDArray[np.uint8], names: Mapping[str, int], masks: Mapping[Structure, Mask], what: str) -> bool:
    try:
        said = decode_label(array, names, what).masks
    except LabelError:
        return False
    return all(s in said and np.array_equal(said[s], mask) for s, mask in masks.items())
