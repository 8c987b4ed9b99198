"""Clicks and strokes: voxels that a person says lie inside or outside of a structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Compartment, Structure
from flrplan.errors import LabelError

BACKGROUND = "background"
"""What clients call "none of the labels"."""
MOST_MARKS = 200
"""Clicks that the label contradicts, or strokes, in one request; each takes a fraction of a second."""

Voxels = NDArray[np.intp]
"""Indices ``(N, 3)`` in the order of the numpy axes, z first."""

SAYS: Mapping[str, tuple[tuple[Structure, bool], ...]] = {
    Structure.LIVER.value: ((Structure.LIVER, True),),
    Structure.CRLM.value: ((Structure.CRLM, True),),
    Structure.FLR.value: ((Structure.FLR, True),),
    Structure.LRS.value: ((Structure.FLR, False),),
    Compartment.REMNANT.label_name: ((Structure.FLR, True), (Structure.CRLM, False)),
    Compartment.RESECTION.label_name: ((Structure.FLR, False), (Structure.CRLM, False)),
    Compartment.CRLM_IN_REMNANT.label_name: ((Structure.CRLM, True), (Structure.FLR, True)),
    Compartment.CRLM_IN_RESECTION.label_name: ((Structure.CRLM, True), (Structure.FLR, False)),
}
"""What a mark under a label's name says of its voxel: in (True) or outside of which structures. A mark of "not this" denies the first."""


def no_voxels() -> Voxels:
    """None."""
    return np.zeros((0, 3), np.intp)


@dataclass(frozen=True, eq=False)
class Marks:
    """Of one structure, the voxels that a person says lie inside and outside of it."""

    inside: Voxels = field(default_factory=no_voxels)
    outside: Voxels = field(default_factory=no_voxels)


class MarkSet:
    """The marks of one request."""

    def __init__(self, shape_zyx: Sequence[int]) -> None:
        self._shape = tuple(shape_zyx)
        self._voxels: dict[tuple[Structure, bool], list[Voxels]] = {}

    def add(self, structure: Structure, inside: bool, voxels: Voxels) -> None:
        """Marks voxels as inside or outside of a structure."""
        if len(voxels):
            self._voxels.setdefault((structure, inside), []).append(voxels)

    def add_named(self, name: str, voxels: Voxels) -> None:
        """Marks voxels as those of a label (:data:`SAYS`)."""
        for structure, inside in SAYS[name]:
            self.add(structure, inside, voxels)

    def deny(self, name: str, voxels: Voxels) -> None:
        """Marks voxels as none of a label: of remnant and resection, they are on the other side of the cut."""
        structure, inside = SAYS[name][0]
        self.add(structure, not inside, voxels)

    def of(self, structure: Structure, inside: bool) -> Voxels:
        """The voxels that are marked so."""
        parts = self._voxels.get((structure, inside))
        return np.unique(np.concatenate(parts), axis=0) if parts else no_voxels()

    def checked(self) -> dict[Structure, Marks]:
        """All marks by structure. Raises: LabelError where a voxel is inside and outside of the same structure."""
        found = {}
        for structure in dict.fromkeys(s for s, _ in self._voxels):
            marks = Marks(self.of(structure, True), self.of(structure, False))
            inside, outside = (np.ravel_multi_index(tuple(v.T), self._shape) for v in (marks.inside, marks.outside))
            both = np.intersect1d(inside, outside)
            if both.size:
                z, y, x = (int(n) for n in np.unravel_index(both[0], self._shape))
                more = f" and {both.size - 1} more" if both.size > 1 else ""
                raise LabelError(
                    f"voxel {[x, y, z]}{more} (column, row, slice) is marked as inside and as outside of {structure}; delete one of "
                    "the two marks"
                )
            found[structure] = marks
        return found


def points_of(given: Any, name: str, shape_zyx: Sequence[int]) -> Voxels:
    """Clicks as clients send them, ``[[i, j, k], ...]``: column, row and slice in the image, from 0.

    Raises: LabelError for what is no list of three whole numbers each, and for a voxel beside the image.
    """
    example = f"{name}: expected voxels as [[column, row, slice], ...], whole numbers from 0"
    if not isinstance(given, (list, tuple)):
        raise LabelError(f"{example}, got {given!r:.80}")
    size_xyz = tuple(shape_zyx[::-1])
    found = no_voxels() if not given else np.zeros((len(given), 3), np.intp)
    for number, point in enumerate(given):
        if not isinstance(point, (list, tuple)) or len(point) != 3 or not all(_is_whole(n) for n in point):
            raise LabelError(f"{example}; point {number + 1} is {point!r:.80}")
        if not all(0 <= n < size for n, size in zip(point, size_xyz, strict=True)):
            raise LabelError(
                f"{name}: point {[int(n) for n in point]!r:.80} lies beside the image, which has {' x '.join(map(str, size_xyz))} "
                "voxels (columns, rows, slices, counted from 0); click in the image"
            )
        found[number] = [int(n) for n in point[::-1]]
    return found


def _is_whole(number: object) -> bool:
    return not isinstance(number, bool) and (isinstance(number, int) or (isinstance(number, float) and number.is_integer()))
