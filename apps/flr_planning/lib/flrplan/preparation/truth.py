"""The binary truth of one case on the grid of its CT, from a SEG or from files, and everything odd about it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import COMPARTMENTS_OF, PLANNED, Mask, Structure, check_planning_map, resemblance, structure_mask
from flrplan.errors import EmptyLiverError, FlrError, GridError, LabelError
from flrplan.image import CT, read_label_map, require_same_grid
from flrplan.image.orientation import in_axis_order
from flrplan.metrics.region import Region
from flrplan.preparation.lesion_instances import Voxels, frame_voxels, instances_of, nearest_instances, read_original
from flrplan.preparation.seg_frames import open_seg, seg_frames, segment_labels
from flrplan.preparation.segment_roles import VEINS, SegmentRole, segment_role
from flrplan.preparation.slice_offsets import slice_offsets_mm
from flrplan.preparation.sources import CaseSource, FileLabels, MaskFile, SegLabel
from flrplan.workfolder import Instances

_LOG = logging.getLogger(__name__)

SEGMENTS, NEAREST_SEGMENTS, PIECES = "segments", "nearest segments", "pieces"
"""How tumours are told apart: ``Tumor_n`` of the labels themselves, the nearest ``Tumor_n`` of the original labels, components."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Masks ``(Z, Y, X) bool`` on the CT's grid. ``instances``: the tumours told apart; together the CRLM. None: nobody tells them.

    told_by: :data:`SEGMENTS`, :data:`NEAREST_SEGMENTS`, or :data:`PIECES` without instances.
    tumour_overlap_voxels: voxels of more than one tumour; the mask holds their union, the instances each.
    veins: of the SEG, by name (``hepatic_veins``, ``portal_veins``), where it has them. notes: what a person should know, one sentence each.
    """

    liver: Mask
    crlm: Mask
    flr: Mask
    instances: Instances | None = None
    told_by: str = PIECES
    tumour_overlap_voxels: int = 0
    notes: tuple[str, ...] = ()
    veins: Mapping[str, Mask] = field(default_factory=dict)


def read_truth_of(source: CaseSource, ct: CT) -> Truth:
    """Liver, CRLM and FLR of a source. CRLM and FLR may be empty, but each must be stated.

    Raises: EmptyLiverError; LabelError where a structure is stated nowhere or a label cannot be read as masks; GridError
    for another grid than the CT's; ImageError for damaged files. Each names the file.
    """
    if isinstance(source.labels, SegLabel):
        truth = _from_seg(source.labels, ct, _offsets_mm(source, ct))
    elif source.labels is not None:
        truth = _divided(_from_files(source.labels, ct, source.case_id), source, ct)
    else:
        raise LabelError(f"case {source.case_id}: no label")
    if not truth.liver.any():
        raise EmptyLiverError(f"{source.label_files()[0]}: the liver has no voxels; expected the whole liver with its tumours")
    return truth


def _offsets_mm(source: CaseSource, ct: CT) -> NDArray[np.float64] | None:
    return None if source.image is None else slice_offsets_mm(source.image, source.series, ct.geometry)


def _from_seg(label: SegLabel, ct: CT, offsets_mm: NDArray[np.float64] | None) -> Truth:
    what = str(label.path)
    seg = open_seg(label.path)
    labels = segment_labels(seg, what)
    roles = {number: segment_role(name) for number, name in labels.items()}
    _check_roles(labels, roles, what)
    shape = ct.geometry.shape_zyx
    single = (SegmentRole.LIVER, SegmentRole.REMNANT, *(role for role in VEINS if role in roles.values()))
    masks = {role: np.zeros(shape, np.bool_) for role in single}
    tumours_here: NDArray[np.uint8] = np.zeros(shape, np.uint8)
    tumours = {n: name for n, name in labels.items() if roles[n] is SegmentRole.TUMOUR}
    tumour_voxels: dict[int, list[Voxels]] = {n: [] for n in tumours}
    voxels = dict.fromkeys(labels, 0)
    slices = set()
    for frame in seg_frames(seg, ct.geometry, what, offsets_mm):
        voxels[frame.segment] += int(np.count_nonzero(frame.pixels))
        slices.add(frame.place[0])
        role = roles[frame.segment]
        if role is SegmentRole.TUMOUR:
            tumours_here[frame.place] += frame.pixels
            tumour_voxels[frame.segment].append(frame_voxels(frame))
        elif role in masks:
            masks[role][frame.place] |= frame.pixels
    notes = [f"segment {labels[n]!r} has no voxels" for n, count in voxels.items() if count == 0]
    unknown = sorted(labels[n] for n, role in roles.items() if role is SegmentRole.UNKNOWN)
    notes += [f"segments {', '.join(unknown)} are unknown and not used"] if unknown else []
    if slices and len(slices) < shape[0]:
        notes.append(f"the SEG stores {len(slices)} of {shape[0]} slices, {min(slices)} to {max(slices)} counted from 0")
    instances = instances_of(tumour_voxels, tumours, ct.geometry)
    overlap = int(np.count_nonzero(tumours_here > 1))
    liver, flr = masks[SegmentRole.LIVER], masks[SegmentRole.REMNANT]
    veins = {role.value: masks[role] for role in VEINS if role in masks}
    return Truth(liver, tumours_here > 0, flr, instances, SEGMENTS, overlap, tuple(notes), veins)


def _divided(truth: Truth, source: CaseSource, ct: CT) -> Truth:
    """The truth with its CRLM divided among the original tumours, where they are known and can be read; else with a note."""
    if source.instances is None:
        return truth
    try:
        original = read_original(source.instances, ct, _offsets_mm(source, ct))
        crlm = Region.of(truth.crlm, ct.geometry.spacing_zyx_mm)
        instances, notes = nearest_instances(crlm, original, source.instances.max_distance_mm)
    except FlrError as error:  # labels that do not need the original ones are not lost with them
        note = f"lesions are connected pieces, as the original tumours cannot be used: {error}"
        _LOG.warning("case %s: %s", source.case_id, note)
        return replace(truth, notes=(*truth.notes, note))
    return replace(truth, instances=instances, told_by=NEAREST_SEGMENTS, notes=(*truth.notes, *notes))


def _check_roles(labels: dict[int, str], roles: dict[int, SegmentRole], what: str) -> None:
    for role, name in ((SegmentRole.LIVER, "Liver"), (SegmentRole.REMNANT, "Liver Remnant"), (SegmentRole.TUMOUR, "Tumor_1")):
        count = sum(r is role for r in roles.values())
        if count == 0:
            raise LabelError(f"{what}: no segment {name!r}, and absent is not empty; found {sorted(labels.values())}")
        if count > 1 and role is not SegmentRole.TUMOUR:
            raise LabelError(f"{what}: {count} segments are called {name!r}, expected one; found {sorted(labels.values())}")
    tumours = sum(r is SegmentRole.TUMOUR for r in roles.values())
    if tumours > np.iinfo(np.uint8).max:
        raise LabelError(f"{what}: {tumours} tumour segments; expected at most {np.iinfo(np.uint8).max}")


def _from_files(labels: FileLabels, ct: CT, case_id: str) -> Truth:
    notes: list[str] = []
    masks: dict[Structure, Mask] = {s: _mask(f, ct, notes) for s, f in labels.masks.items()}
    if labels.planning_map is not None:
        array = check_planning_map(_on_grid(labels.planning_map, ct, notes), str(labels.planning_map.path))
        masks = {s: structure_mask(array, s) for s in COMPARTMENTS_OF} | masks
        if Structure.FLR in labels.masks and Structure.LRS not in labels.masks:
            masks.pop(Structure.LRS, None)  # the map's resection belongs to the map's remnant
    if Structure.LIVER in masks and Structure.FLR not in masks and Structure.LRS in masks:
        masks[Structure.FLR] = masks[Structure.LIVER] & ~masks[Structure.LRS]
        notes.append("no FLR file; FLR = liver - LRS")
    absent = [str(s) for s in PLANNED if s not in masks]
    if absent:
        raise LabelError(
            f"case {case_id}: no file states {', '.join(absent)}, and absent is not empty; found "
            f"{', '.join(map(str, sorted(masks))) or 'nothing'}; correct the layout, see --dry-run"
        )
    liver, flr = masks[Structure.LIVER], masks[Structure.FLR]
    if Structure.LRS in masks:
        differ = int(np.count_nonzero(masks[Structure.LRS] ^ (liver & ~flr)))
        notes += [f"the LRS file differs from liver - FLR in {differ} voxels; liver - FLR is used"] if differ else []
    return Truth(liver, masks[Structure.CRLM], flr, notes=tuple(dict.fromkeys(notes)))


def _mask(file: MaskFile, ct: CT, notes: list[str]) -> Mask:
    array = _on_grid(file, ct, notes)
    if file.values is not None:
        return np.isin(array, file.values)
    values = [v for v in np.unique(array).tolist() if v != 0]
    if len(values) > 1:
        raise LabelError(
            f"{file.path}: expected a binary mask (0 and one other value), found {[0, *values][:6]}{resemblance(values)}; "
            "name the values of the structure in the layout (values: [...])"
        )
    return np.asarray(array != 0)


def _on_grid(file: MaskFile, ct: CT, notes: list[str]) -> NDArray[np.generic]:
    """The label map in the axis order of the CT. Converters flip axes; that moves no voxel, so only the order is undone."""
    array, geometry = read_label_map(file.path)
    turned = in_axis_order(array, geometry, ct.geometry)
    if turned is None:
        require_same_grid(ct.geometry, geometry, ct.source, str(file.path))
        raise GridError(f"{file.path} is not on the grid of {ct.source}")
    if turned is not array:
        notes.append("labels are stored in another axis order than the CT; they were turned, not resampled")
    return turned
