"""What a cascade gives: masks on the CT's grid and where each came from. Knows nothing of networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import PLANNED, Mask, NestingReport, Structure, to_compartments
from flrplan.image import CT
from flrplan.workfolder import ModelIdentity


class Source(StrEnum):
    """Where a mask came from."""

    GIVEN = "given"
    PREDICTED = "predicted"


@dataclass(frozen=True)
class CascadeResult:
    """Masks ``(Z, Y, X) bool`` on exactly the CT's grid, and where each came from.

    models: identity per stage that ran; of a second opinion under ``<stage>/<architecture>``. seconds: wall time per step. warnings: sentences for the reader of the result.
    """

    ct: CT
    masks: Mapping[Structure, Mask]
    sources: Mapping[Structure, Source]
    models: Mapping[str, ModelIdentity]
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]

    @property
    def demo(self) -> bool:
        """True if any model that ran was a demo model."""
        return any(m.demo for m in self.models.values())

    def planning_map(self) -> tuple[NDArray[np.uint8], NestingReport]:
        """The compartments; what does not nest (CRLM or FLR outside the liver) is left out and counted.

        Computed at the first call and kept; the array is read-only.
        Raises: KeyError unless liver, CRLM and FLR are all there.
        """
        return self._planning_map

    @cached_property
    def _planning_map(self) -> tuple[NDArray[np.uint8], NestingReport]:
        label, nesting = to_compartments(*(self.masks[s] for s in PLANNED))
        label.setflags(write=False)
        return label, nesting
