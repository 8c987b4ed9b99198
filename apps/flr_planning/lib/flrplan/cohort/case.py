"""One synthetic case: a patient, a scan, lesions, the resection that they call for, and the HU volume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from flrplan.anatomy import Compartment
from flrplan.cohort.abdomen import abdominal_organs
from flrplan.cohort.ascites import draw_ascites, fluid, recede
from flrplan.cohort.attenuation import attenuate
from flrplan.cohort.fields import FineGrid, Frame, make_frame
from flrplan.cohort.lesion_spread import spread_looks
from flrplan.cohort.lesions import MIN_LARGEST_MM, Lesion, LiverMap, lesion_site, plant_lesions
from flrplan.cohort.liver import draw_liver_shape, make_liver
from flrplan.cohort.organs import Organ, Stream, stream
from flrplan.cohort.paint import (
    paint,
    paint_lesions,
    paint_portal_trunk,
    paint_table,
    paint_tangle,
    paint_vessels,
    planning_map,
)
from flrplan.cohort.patient import Patient, draw_patient
from flrplan.cohort.pelvis import gluteal_fat, hip_bones, pelvic_organs
from flrplan.cohort.render import Intensities, draw_intensities, render_hu
from flrplan.cohort.resection import WEDGE_MARGIN_MM, LesionSite, Resection, choose_resection
from flrplan.cohort.scan import Scan, cropped, draw_scan, make_grid, outside_view, view_box
from flrplan.cohort.settings import CaseSize, CohortSettings, case_name
from flrplan.cohort.trunk import great_vessels, heart_and_vessels, make_cavity, skeleton, tangle, trunk_shell
from flrplan.errors import CohortError
from flrplan.files.checked import settings_of
from flrplan.image import Geometry
from flrplan.image.smooth_noise import smooth_noise

ATTEMPTS = 12
"""Lesions are planted anew if the remnant would be too small or too large, at most so often."""

REMNANT_LIMITS = (0.19, 0.92)
"""Smallest and largest share of the scanned liver that remains; at the top, "the whole liver" would be as good as any plan."""


@dataclass(frozen=True)
class SyntheticCase:
    """A case; all arrays ``(Z, Y, X)`` on ``geometry`` (LPS, identity direction).

    ``planning_zyx`` holds :class:`~flrplan.anatomy.Compartment` values, ``organs_zyx`` :class:`Organ`, ``vessels_zyx``
    :class:`Vessel`. ``facts`` are JSON-ready.
    """

    case_id: str
    hu_zyx: NDArray[np.int16]
    planning_zyx: NDArray[np.uint8]
    geometry: Geometry
    organs_zyx: NDArray[np.uint8]
    vessels_zyx: NDArray[np.uint8]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The lesions of a case, what the rule saw, and what it chose."""

    lesions: list[Lesion]
    sites: list[LesionSite]
    resection: Resection


def make_case(seed: int, index: int, size: CaseSize | str, wide: bool = False) -> SyntheticCase:
    """The case of (seed, index) on a grid of ``size``: the same patient, lesions and resection at every size.

    Wide: the same patient and acquisition with a field of view that may be as small as the liver
    (:func:`flrplan.cohort.scan.cropped`), and with more and larger lesions whose look spreads wider (:mod:`flrplan.cohort.lesion_spread`).

    Raises: SettingsError for values out of range; CohortError where no lesions fit (not seen in practice).
    """
    grid = settings_of(CohortSettings, {"cases": 1, "seed": seed, "first_index": index, "size": size}).size
    # One thread: matrix products may differ in the last bit between thread counts, and workers should not compete.
    with threadpool_limits(1):
        return _make_case(seed, index, grid, wide)


def _make_case(seed: int, index: int, size: CaseSize, wide: bool) -> SyntheticCase:
    patient = draw_patient(seed, index)
    scan = draw_scan(seed, index, patient)
    if wide:
        scan = cropped(seed, index, scan)
    grid, geometry = make_grid(patient, scan, size)
    frame = body_frame(seed, index, patient)
    shape = draw_liver_shape(stream(seed, index, Stream.LIVER))
    ascites = draw_ascites(seed, index)
    cavity = make_cavity(frame, patient)
    filled = make_liver(frame, cavity, patient, shape)
    liver = recede(filled, ascites)
    plan = plan_case(seed, index, LiverMap.of(liver, (patient.z_low_mm + 4, patient.z_high_mm - 4)), wide)

    organs = np.zeros(grid.shape_zyx, np.uint8)
    paint_table(organs, grid, patient, scan)
    trunk_rng = stream(seed, index, Stream.TRUNK)
    paint(organs, grid, trunk_shell(frame, cavity, patient, trunk_rng))
    paint_tangle(organs, grid, tangle(frame, stream(seed, index, Stream.TEXTURE, 0), 20.0))
    paint(organs, grid, heart_and_vessels(frame, cavity, patient, trunk_rng))
    paint(organs, grid, fluid(frame, cavity, filled, ascites))
    pelvis_rng = stream(seed, index, Stream.PELVIS)
    paint(organs, grid, gluteal_fat(frame, cavity, patient, pelvis_rng))
    paint(organs, grid, abdominal_organs(frame, cavity, patient, shape, filled, stream(seed, index, Stream.ABDOMEN)))
    paint(organs, grid, pelvic_organs(frame, pelvis_rng))
    paint(organs, grid, [(Organ.LIVER, liver.liver), (Organ.GALLBLADDER, liver.gallbladder_lumen)])
    paint(organs, grid, [*great_vessels(frame), *hip_bones(frame), *skeleton(frame, cavity, trunk_rng)])
    paint_portal_trunk(organs, grid, liver.portal_trunk)
    vessels = paint_vessels(organs, grid, liver, stream(seed, index, Stream.TEXTURE, 1))
    zones, removed = paint_lesions(organs, grid, plan.lesions, plan.resection)
    planning = planning_map(organs, grid, liver, plan.resection, zones, removed)
    vessels[zones > 0] = 0
    if (unseen := outside_view(scan, grid)) is not None:  # nothing is labelled where nothing was reconstructed
        for labels, nothing in ((organs, Organ.AIR), (planning, 0), (vessels, 0), (zones, 0)):
            labels[:, unseen] = nothing

    look = attenuate(seed, index, scan, draw_intensities(seed, index, scan, plan.lesions))
    if wide:
        lesions, look = spread_looks(seed, index, scan.phase, plan.lesions, look)
        plan = replace(plan, lesions=lesions)
    box = view_box(scan, geometry, planning > 0, zones > 0)
    texture_rng = stream(seed, index, Stream.TEXTURE, 2)
    textures = [frame.field(smooth_noise(texture_rng, frame.axes_mm, lattice)) for lattice in (55.0, 13.0)]
    hu = render_hu(seed, index, scan, grid, organs, zones, vessels, look, plan.lesions, (textures[0], textures[1]), box[0])
    hu, planning, organs, vessels = (np.ascontiguousarray(array[box]) for array in (hu, planning, organs, vessels))
    geometry = geometry.crop(box)
    ascites_ml = np.count_nonzero(organs == Organ.ASCITES) * geometry.voxel_volume_ml
    facts = _facts(patient, scan, geometry, plan, planning, look, ascites_ml, wide)
    return SyntheticCase(case_name(seed, index), hu, planning, geometry, organs, vessels, facts)


def plan_case(seed: int, index: int, liver: LiverMap, wide: bool = False) -> Plan:
    """Plants lesions and applies the rule, until the remnant has a sensible size. Raises: CohortError."""
    volume = np.count_nonzero(liver.liver)
    for attempt in range(ATTEMPTS):
        rng = stream(seed, index, Stream.LESIONS, attempt)
        found = [(lesion, lesion_site(lesion, liver)) for lesion in plant_lesions(rng, liver, wide)]
        kept = [(lesion, site) for lesion, site in found if site is not None]
        if not kept or kept[0][0].diameter_mm < MIN_LARGEST_MM:
            continue
        resection = choose_resection([site for _, site in kept])
        plan = Plan([lesion for lesion, _ in kept], [site for _, site in kept], resection)
        removed = np.zeros(liver.liver.shape, bool)
        for sector in resection.sectors:
            removed |= liver.sectors[sector]
        coarse = FineGrid(liver.axes_mm)
        for number, lesion in enumerate(plan.lesions):
            if number not in resection.left_behind:
                box = lesion.box(coarse, WEDGE_MARGIN_MM)
                depth = lesion.depth_mm(*(a[c] for a, c in zip(liver.axes_mm, box, strict=True)))
                removed[box] |= depth > -WEDGE_MARGIN_MM
        share = np.count_nonzero(liver.liver & ~removed) / volume
        if REMNANT_LIMITS[0] <= share <= REMNANT_LIMITS[1]:
            return plan
    raise CohortError(f"case {case_name(seed, index)}: no lesions fitted in {ATTEMPTS} attempts; use another seed")


def body_frame(seed: int, index: int, patient: Patient) -> Frame:
    """The body coordinates of a patient, over all that a scan can show."""
    half = patient.body_half_mm
    wide = half[0] + (92 * patient.scale_xyz[0] if patient.arms else 22)
    low = (-wide, -patient.front_mm - 18, patient.z_low_mm - 8)
    high = (wide, half[1] + 18, patient.z_high_mm + 8)
    return make_frame(stream(seed, index, Stream.WARP), low, high, patient.scale_xyz, patient.bend_mm, patient.situs_inversus)


def _facts(
    patient: Patient,
    scan: Scan,
    geometry: Geometry,
    plan: Plan,
    planning: NDArray[np.uint8],
    look: Intensities,
    ascites_ml: float,
    wide: bool,
) -> dict[str, Any]:
    counts = {c: int(np.count_nonzero(planning == c)) for c in Compartment}
    parenchyma = counts[Compartment.REMNANT] + counts[Compartment.RESECTION]
    return {
        "resection": plan.resection.kind.value,
        "removed_sectors": sorted(s.value for s in plan.resection.sectors),
        "lesions": [
            {
                "diameter_mm": round(lesion.diameter_mm, 1),
                "contrast_hu": round(lesion.contrast_hu, 1),
                "depth_mm": round(site.depth_mm, 1),
                "sectors": sorted(s.value for s in site.sectors),
                "kind": lesion.kind.value,
                "place": lesion.place.value,
                "rim": lesion.rim_hu != 0,
                "left_behind": number in plan.resection.left_behind,
            }
            for number, (lesion, site) in enumerate(zip(plan.lesions, plan.sites, strict=True))
        ],
        "lesion_count": len(plan.lesions),
        "liver_ml": round(sum(counts.values()) * geometry.voxel_volume_ml, 1),
        "flr_fraction": round(counts[Compartment.REMNANT] / max(parenchyma, 1), 4),
        "liver_hu": round(look.liver_hu, 1),
        "liver_kind": look.liver_kind,
        "steatosis": look.liver_kind == "steatosis",
        "ascites": ascites_ml > 0,
        "ascites_ml": round(ascites_ml, 1),
        "situs_inversus": patient.situs_inversus,
        "phase": scan.phase.value,
        "kernel": scan.kernel.value,
        "metal": scan.metal.value,
        "scan_range": patient.scan_range.value,
        "spacing_mm": list(geometry.spacing_mm),
        "noise_hu": round(scan.noise_hu, 1),
        "fov_mm": round(scan.fov_mm, 1),
        **({"view": scan.view.value} if wide else {}),
        "padding_hu": scan.padding_hu,
        "body_scale_xyz": [round(s, 3) for s in patient.scale_xyz],
        "subcutaneous_fat_mm": round(patient.fat_mm, 1),
        "belly_mm": round(patient.belly_mm, 1),
        "arms": patient.arms,
    }
