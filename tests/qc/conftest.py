"""A liver of simple shapes, in a body of simple tissue: every size is known by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from flrplan.anatomy import Mask, Structure
from flrplan.image import CT, Geometry
from flrplan.qc import QcCase

SPACING = (5.0, 4.0, 4.0)
"""Anisotropic, z y x in mm; a voxel is 0.08 ml."""
SHAPE = (36, 48, 56)


@dataclass
class Anatomy:
    """A liver of two balls on the right of a body, with a lesion in its resection; parts of it can be changed."""

    liver: Mask
    crlm: Mask
    flr: Mask
    hu: np.ndarray[tuple[int, ...], np.dtype[np.int16]]

    @staticmethod
    def ball(centre: tuple[int, int, int], radius_mm: float) -> Mask:
        """Voxels within a radius of a voxel."""
        return ball(centre, radius_mm)

    def case(
        self, image: bool = True, direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1), lrs: Mask | None = None
    ) -> QcCase:
        geometry = Geometry((56, 48, 36), (4.0, 4.0, 5.0), direction=direction)
        masks = {Structure.LIVER: self.liver, Structure.CRLM: self.crlm, Structure.FLR: self.flr}
        if lrs is not None:
            masks[Structure.LRS] = lrs
        return QcCase("case", geometry, masks, CT(self.hu, geometry, "case", "test") if image else None)


def ball(centre: tuple[int, int, int], radius_mm: float) -> Mask:
    """Voxels within a radius of a voxel."""
    grid = np.indices(SHAPE) - np.array(centre)[:, None, None, None]
    return np.asarray(((grid * np.array(SPACING)[:, None, None, None]) ** 2).sum(0) <= radius_mm**2)


@pytest.fixture
def anatomy() -> Anatomy:
    """Without faults. HU: liver 100 and a lesion of 40, with noise of 5; layers of muscle and fat around them, air outside the body."""
    rng = np.random.default_rng(0)
    liver = ball((20, 24, 18), 56.0) | ball((21, 22, 26), 36.0)
    liver &= np.arange(SHAPE[0])[:, None, None] >= 8
    crlm = ball((20, 26, 15), 14.0)
    flr = liver & (np.arange(SHAPE[2]) >= 18)
    hu = np.full(SHAPE, -1000.0)
    hu[:, 3:-3, 2:] = np.where(np.arange(3, SHAPE[1] - 3) // 3 % 2, 50, -90)[:, None]
    hu[liver], hu[crlm] = 100, 40
    hu = np.where(hu > -900, hu + rng.normal(0, 5, SHAPE), hu)
    return Anatomy(liver, crlm, flr, hu.astype(np.int16))


@pytest.fixture
def found() -> Callable[..., list[str]]:
    """The rules that say something about a case, notes aside."""
    from flrplan.qc import Severity, check_case

    return lambda case: [f.rule for f in check_case(case).findings if f.severity is not Severity.NOTE]
