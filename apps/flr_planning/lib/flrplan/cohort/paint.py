"""Layers onto the voxels: organs one over the other, veins, lesions with their margins, and the planning map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Compartment
from flrplan.cohort.fields import Field, FineGrid
from flrplan.cohort.lesions import Lesion
from flrplan.cohort.liver import LiverFields, sector_mask
from flrplan.cohort.organs import Organ, Vessel
from flrplan.cohort.patient import Patient
from flrplan.cohort.resection import WEDGE_MARGIN_MM, Resection
from flrplan.cohort.scan import Scan
from flrplan.cohort.trunk import Layer
from flrplan.image.smooth_noise import smooth_noise


def paint(organs: NDArray[np.uint8], grid: FineGrid, layers: list[Layer]) -> None:
    """Paints layers in their order; a later one covers an earlier one."""
    for organ, field in layers:
        for box, values in grid.slabs(field):
            organs[box][values > 0] = organ


def paint_table(organs: NDArray[np.uint8], grid: FineGrid, patient: Patient, scan: Scan) -> None:
    """The table under the back: two shells, curved or flat, the same in every slice."""
    if not scan.table:
        return
    _, y, x = grid.axes_mm
    back = patient.body_half_mm[1] + 2 + scan.table_gap_mm
    arc = y[:, None] - back + x[None] ** 2 / (2 * scan.table_radius_mm)
    half = max(1.5, 0.5 * (x[1] - x[0]))
    shell = ((np.abs(arc) < half) | (np.abs(arc - scan.table_depth_mm) < half)) & (np.abs(x[None]) < 215)
    organs[:, shell] = Organ.TABLE


def paint_tangle(organs: NDArray[np.uint8], grid: FineGrid, pair: tuple[Field, Field]) -> None:
    """Winding vessels in lung and in the fat of the belly."""
    for (box, a), (_, b) in zip(grid.slabs(pair[0], whole=True), grid.slabs(pair[1], whole=True), strict=True):
        part = organs[box]
        thin = a * a + b * b
        part[(thin < 0.030) & (part == Organ.LUNG)] = Organ.LUNG_VESSEL
        part[(thin < 0.022) & (part == Organ.VISCERAL_FAT)] = Organ.MESENTERIC_VESSEL


def paint_portal_trunk(organs: NDArray[np.uint8], grid: FineGrid, trunk: Field) -> None:
    """The portal vein outside the liver; what lies inside stays liver."""
    for box, values in grid.slabs(trunk):
        part = organs[box]
        part[(values > 0) & (part != Organ.LIVER)] = Organ.PORTAL_TRUNK


def paint_vessels(organs: NDArray[np.uint8], grid: FineGrid, liver: LiverFields, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Veins inside the liver ``uint8``: the named branches, and a tangle of small ones."""
    vessels = np.zeros(organs.shape, np.uint8)
    deep = Field(np.asarray(liver.liver.values - 4.0, np.float32), liver.liver.axes_mm)
    a, b = (liver.frame.field(smooth_noise(rng, liver.frame.axes_mm, 20.0)) for _ in range(2))
    for (box, one), (_, two), (_, depth) in zip(
        grid.slabs(a, whole=True), grid.slabs(b, whole=True), grid.slabs(deep, whole=True), strict=True
    ):
        small = (one * one + two * two < 0.026) & (depth > 0)
        vessels[box][small] = np.where(one[small] * 7 % 1 < 0.5, Vessel.PORTAL, Vessel.HEPATIC)
    for vessel, field in ((Vessel.PORTAL, liver.portal), (Vessel.HEPATIC, liver.hepatic)):
        for box, values in grid.slabs(field):
            vessels[box][values > 0] = vessel
    vessels[organs != Organ.LIVER] = 0
    return vessels


def paint_lesions(
    organs: NDArray[np.uint8], grid: FineGrid, lesions: list[Lesion], resection: Resection
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(the lesion's number from 1 on ``uint8``, the liver removed as margins); marks lesions as TUMOUR in the organ map."""
    zones = np.zeros(organs.shape, np.uint8)
    removed = np.zeros(organs.shape, bool)
    for number in reversed(range(len(lesions))):
        lesion = lesions[number]
        margin = WEDGE_MARGIN_MM if number not in resection.left_behind else 0.0
        box = lesion.box(grid, margin)
        depth = lesion.depth_mm(*(a[c] for a, c in zip(grid.axes_mm, box, strict=True)))
        inside = np.isin(organs[box], (Organ.LIVER, Organ.TUMOUR))
        tumour = inside & (depth > 0)
        if margin:
            removed[box] |= inside & (depth > -margin)
        zones[box][tumour] = number + 1
        organs[box][tumour] = Organ.TUMOUR
    return zones, removed


def planning_map(
    organs: NDArray[np.uint8],
    grid: FineGrid,
    liver: LiverFields,
    resection: Resection,
    zones: NDArray[np.uint8],
    removed: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """The compartments ``uint8``: liver and tumour, each inside or outside the removed sectors and margins."""
    planning = np.zeros(organs.shape, np.uint8)
    sampled = [grid.slabs(field, whole=True) for field in (liver.right, liver.posterior, liver.lateral)]
    for (box, right), (_, posterior), (_, lateral) in zip(*sampled, strict=True):
        gone = removed[box]
        for sector in resection.sectors:
            gone = gone | sector_mask(right, posterior, lateral, sector)
        tumour = zones[box] > 0
        inside = organs[box] == Organ.LIVER
        part = planning[box]
        part[inside & gone] = Compartment.RESECTION
        part[inside & ~gone] = Compartment.REMNANT
        part[tumour & gone] = Compartment.CRLM_IN_RESECTION
        part[tumour & ~gone] = Compartment.CRLM_IN_REMNANT
    return planning
