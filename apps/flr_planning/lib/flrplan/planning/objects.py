"""A plan as standard objects: DICOM SEG and SR in the study of its CT, and meshes in the patient's space."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan import __version__
from flrplan.anatomy import APPEARANCE, Appearance, CodedConcept, Compartment, Structure, structure_mask
from flrplan.files import replacing
from flrplan.method import Source, stage_named
from flrplan.metrics.cut import Fate
from flrplan.metrics.region import Region
from flrplan.objects.markups import Point, write_plane, write_points
from flrplan.objects.mesh_files import ColouredMesh, write_glb, write_stl
from flrplan.objects.seg import Algorithm, Segment, segmentation
from flrplan.objects.source import PRIVATE_SCHEME
from flrplan.objects.sr import Measured, MeasuredThing, measurement_report
from flrplan.planning.meshes import CUT, Mesh
from flrplan.planning.parts import Lesion, numbered_lesions
from flrplan.planning.plan import MESH_FOLDER, SCENE_NAME, SEG_NAME, SR_NAME, Plan
from flrplan.planning.segments import describe_shares

LESIONS_NAME, PLANE_NAME = "crlm.mrk.json", "cut_plane.mrk.json"
FLAT_MM = 10.0
"""A cut that lies farther than this from its plane, the margin that surgeons aim for, is not said to be one."""
_SHOWN = ((Structure.LIVER, 1.0), (Structure.FLR, 0.6), (Structure.LRS, 0.5))
"""Structures with a mesh of their own, and their opacity in a scene."""
_CUT_RGB = (240, 240, 240)
_LONG_STRING = 64
"""Characters of DICOM's LO, that of an algorithm's name and version."""
_LIVER = APPEARANCE[Structure.LIVER].type
_FATES: dict[Fate, Structure | Compartment] = {
    Fate.RESECTED: Compartment.CRLM_IN_RESECTION,
    Fate.LEFT: Compartment.CRLM_IN_REMNANT,
}
_ML, _MM = CodedConcept("mL", "UCUM", "milliliter"), CodedConcept("mm", "UCUM", "millimeter")
_PERCENT = CodedConcept("%", "UCUM", "percent")
_VOLUME, _DIAMETER = CodedConcept("118565006", "SCT", "Volume"), CodedConcept("81827009", "SCT", "Diameter")
_MAXIMUM = CodedConcept("56851009", "SCT", "Maximum")


def _private(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, PRIVATE_SCHEME, meaning)


# No standard scheme has these.
_PLAN = _private("PLAN", "Planned liver resection, whole")
_FLR_ML = _private("FLR_ML", "Future liver remnant without metastases")
_FUNCTIONAL_ML = _private("FTLV", "Liver without metastases")
_TUMOUR_ML = _private("TV", "Liver metastases, all")
_FLR_PERCENT = _private("FLR_PERCENT", "Future liver remnant over liver, both without metastases")
_SFLR_PERCENT = _private("SFLR_PERCENT", "Future liver remnant over standardised liver (Vauthey 2002)")
_FLR_TO_WEIGHT = _private("FLR_TO_WEIGHT", "Future liver remnant over body weight, 1 ml for 1 g")
_MARGIN = _private("MARGIN", "Distance from metastasis to planned cut")


def write_dicom(plan: Plan, folder: Path, anonymize: bool = False) -> None:
    """Writes :data:`SEG_NAME` and :data:`SR_NAME`. anonymize: patient and study stay empty, the UIDs do not.

    Segments: liver, FLR, LRS and each metastasis, as far as they have voxels. Raises: OutputError where the CT is no series that can be
    referred to (:func:`flrplan.objects.source.why_no_objects`), or the disk is full.
    """
    partition = _partition(plan)
    segments = _segments(plan)
    seg = segmentation(partition, segments, plan.ct, "Liver plan: segments (research only)", anonymize)
    things = _measured(plan, {segment.label: number for number, segment in enumerate(segments, 1)})
    report = measurement_report(things, seg, plan.ct, "Liver plan: measurements (research only)", anonymize)
    for name, content in ((SEG_NAME, seg), (SR_NAME, report)):
        with replacing(folder / name) as part:
            content.save_as(part, write_like_original=False)


def write_meshes(plan: Plan, folder: Path) -> None:
    """Writes a mesh of each structure and metastasis and the cut into :data:`MESH_FOLDER`, as STL each and as one scene without the liver.

    For 3D Slicer, the metastases as points with their fate and margin, and the plane of the cut where it is nearly one. Raises: OutputError where they cannot be written.
    """
    meshes = _meshes(plan)
    scene = [m for name, m in meshes.items() if name != Structure.LIVER]
    for name, mesh in meshes.items():
        write_stl(folder / MESH_FOLDER / f"{name}.stl", mesh)
    if scene:
        write_glb(folder / MESH_FOLDER / SCENE_NAME, scene)
    points = [Point(_title(lesion), _said(lesion), lesion.centre_lps_mm) for lesion in plan.parts.lesions]
    if points:
        write_points(folder / MESH_FOLDER / LESIONS_NAME, "CRLM", points)
    if CUT in plan.meshes:
        _write_plane(folder / MESH_FOLDER / PLANE_NAME, plan.meshes[CUT])


def _said(lesion: Lesion) -> str:
    margin = "" if math.isnan(lesion.margin_mm) else f", {lesion.margin_mm:.1f} mm to the cut"
    where = "" if lesion.segments is None else f", segment {describe_shares(lesion.segments)}"
    return f"{lesion.volume_ml:.1f} ml, {lesion.fate}{margin}{where}"


def _write_plane(path: Path, cut: Mesh) -> None:
    """The plane with the least squared distance to a cut; nothing of one that is no plane, such as a wedge's."""
    corners = cut.vertices_lps_mm.astype(np.float64)[cut.triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    places = corners.mean(axis=1)
    centre = np.average(places, axis=0, weights=area)
    axes = np.linalg.svd((places - centre) * np.sqrt(area)[:, None], full_matrices=False)[2]
    axes[2] = np.cross(axes[0], axes[1])
    along = (cut.vertices_lps_mm - centre) @ axes.T
    off_mm = float(np.abs(along[:, 2]).max())
    if off_mm > FLAT_MM:
        return
    width, height = (float(np.ptp(along[:, axis])) for axis in (0, 1))
    said = f"the plane nearest to the planned cut, which lies up to {off_mm:.1f} mm from it; for research use only"
    write_plane(path, "Planned cut", said, centre, axes, (round(width, 1), round(height, 1), 0.0))


def _meshes(plan: Plan) -> dict[str, ColouredMesh]:
    """By the name of their file."""
    looks: dict[str, tuple[str, tuple[int, int, int], float]] = {
        s.value: (APPEARANCE[s].title, APPEARANCE[s].rgb, opacity) for s, opacity in _SHOWN
    }
    looks |= {f"crlm_{lesion.number}": (_title(lesion), _look(lesion).rgb, 1.0) for lesion in plan.parts.lesions}
    looks[CUT] = ("Resection surface", _CUT_RGB, 1.0)
    return {
        name: ColouredMesh(title, plan.meshes[name].vertices_lps_mm, plan.meshes[name].triangles, rgb, opacity)
        for name, (title, rgb, opacity) in looks.items()
        if name in plan.meshes
    }


def _regions_of(lesion: Lesion) -> tuple[int, int]:
    """The values of a partition for what of a metastasis goes, and what stays."""
    gone = max(Compartment) + 2 * lesion.number - 1
    return gone, gone + 1


def _partition(plan: Plan) -> NDArray[np.unsignedinteger[Any]]:
    """The planning map, but each metastasis with values of its own."""
    label = plan.label_zyx
    partition = label.astype(np.min_scalar_type(max(Compartment) + 2 * len(plan.parts.lesions)))
    liver = Region.of(label > 0, plan.ct.geometry.spacing_zyx_mm)
    if not liver.is_empty:
        crop = label[liver.box]
        numbers = numbered_lesions(structure_mask(crop, Structure.CRLM))
        tumour = numbers > 0
        stays = crop[tumour] == Compartment.CRLM_IN_REMNANT
        partition[liver.box][tumour] = max(Compartment) + 2 * numbers[tumour] - 1 + stays
    return partition


def _segments(plan: Plan) -> list[Segment]:
    """Liver, FLR, LRS, as far as they have voxels, and each metastasis, as unions of regions of :func:`_partition`."""
    lesions = plan.parts.lesions
    gone = frozenset({int(Compartment.RESECTION), *(_regions_of(lesion)[0] for lesion in lesions)})
    stays = frozenset({int(Compartment.REMNANT), *(_regions_of(lesion)[1] for lesion in lesions)})
    of_liver, of_flr, of_crlm = (_algorithm(plan, s) for s in (Structure.LIVER, Structure.FLR, Structure.CRLM))
    segments = [
        Segment(APPEARANCE[structure].title, APPEARANCE[structure], regions, made_by)
        for structure, volume_ml, regions, made_by in (
            (Structure.LIVER, plan.volumes.liver_ml, gone | stays, of_liver),
            (Structure.FLR, plan.volumes.flr_ml, stays, of_flr),
            (Structure.LRS, plan.volumes.lrs_ml, gone, of_flr or of_liver),  # what is left of the liver
        )
        if volume_ml
    ]
    return segments + [
        Segment(_title(lesion), _look(lesion), frozenset(_regions_of(lesion)), of_crlm, _LIVER) for lesion in lesions
    ]


def _title(lesion: Lesion) -> str:
    return f"CRLM {lesion.number}"


def _look(lesion: Lesion) -> Appearance:
    return APPEARANCE[_FATES.get(lesion.fate, Structure.CRLM)]


def _algorithm(plan: Plan, structure: Structure) -> Algorithm | None:
    """What predicted a structure; None where it was given."""
    if plan.sources[structure] is Source.GIVEN:
        return None
    parameters = {"remnant": plan.flr_source} if structure is Structure.FLR else {}
    for model in plan.result.models.values():
        if structure in stage_named(model.stage).targets:
            weights = [sha[:8] for sha in model.weights_sha256.values()]
            parameters |= {"architecture": model.architecture, "demo model": str(model.demo).lower()}
            parameters |= {f"sha256 of {fold}": sha for fold, sha in model.weights_sha256.items()}
            version = f"{__version__}, weights {' '.join(weights)}"
            return Algorithm(f"flrplan {model.folder}"[:_LONG_STRING], version[:_LONG_STRING], parameters)
    return Algorithm("flrplan", __version__, parameters)


def _measured(plan: Plan, numbers: dict[str, int]) -> list[MeasuredThing]:
    """What is reported: of the plan as a whole, and of each segment by its label."""
    volumes, assessment = plan.volumes, plan.assessment
    whole = [
        Measured(_FLR_ML, volumes.flr_functional_ml, _ML),
        Measured(_FLR_PERCENT, 100 * volumes.flr_fraction, _PERCENT),
        Measured(_FUNCTIONAL_ML, volumes.functional_liver_ml, _ML),
        Measured(_TUMOUR_ML, volumes.crlm_ml, _ML),
        Measured(_SFLR_PERCENT, assessment.sflr_percent, _PERCENT),
        Measured(_FLR_TO_WEIGHT, assessment.flr_to_weight_percent, _PERCENT),
    ]
    # A group each: viewers that print the tree (OHIF) give the title of a group and no name of a number.
    things = [MeasuredThing(m.name.meaning, _PLAN, _LIVER, [m]) for m in whole if not math.isnan(m.value)]
    for structure, volume_ml in (
        (Structure.LIVER, volumes.liver_ml),
        (Structure.FLR, volumes.flr_ml),
        (Structure.LRS, volumes.lrs_ml),
    ):
        look = APPEARANCE[structure]
        if look.title in numbers:
            finding, measured = look.modifier or look.type, [Measured(_VOLUME, volume_ml, _ML)]
            things.append(MeasuredThing(look.title, finding, _LIVER, measured, numbers[look.title]))
    for lesion in plan.parts.lesions:
        measured = [
            Measured(_VOLUME, lesion.volume_ml, _ML),
            Measured(_DIAMETER, lesion.diameter_mm, _MM, _MAXIMUM),
            Measured(_MARGIN, lesion.margin_mm, _MM),
        ]
        things.append(MeasuredThing(_title(lesion), _look(lesion).type, _LIVER, measured, numbers[_title(lesion)]))
    return things
