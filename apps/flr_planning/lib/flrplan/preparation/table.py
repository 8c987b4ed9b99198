"""``dataset.csv``: a line per prepared case, from its record."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from flrplan.anatomy import NestingReport, Structure
from flrplan.image import CT, Canonical
from flrplan.metrics.lesions import components
from flrplan.metrics.region import Region
from flrplan.metrics.volume import flr_percent
from flrplan.preparation.clinical import CLINICAL
from flrplan.preparation.sources import CaseSource, Problem, SourceKind
from flrplan.preparation.truth import Truth
from flrplan.qc import QcCase, Severity, check_case

QC_COUNTS = tuple(f"qc_{severity}s" for severity in Severity)
"""How many errors, warnings and notes label QC finds in the labels as they were prepared; ``flrplan qc`` says which."""

FIELDS: tuple[str, ...] = (
    "case", "labels_from", "image_source", "image_sha256", "label_sources", "label_sha256",
    "instance_sources", "instance_sha256",
    "size_x", "size_y", "size_z", "spacing_x_mm", "spacing_y_mm", "spacing_z_mm", "slice_spacing_mm",
    "liver_ml", "crlm_ml", "flr_ml", "lrs_ml", "tumours", "tumours_counted_as", "flr_fraction",
    "liver_pieces", "crlm_pieces", "flr_pieces",
    "crlm_outside_liver_voxels", "flr_outside_liver_voxels", "tumour_overlap_voxels", "not_in_map", "notes",
    *QC_COUNTS, *CLINICAL,
)  # fmt: skip
"""Columns of ``dataset.csv``. Volumes are of the binary truth; ``flr_fraction`` (0..1) is remnant / liver, both without tumour,
on the binary truth as the evaluation counts it, blank where that liver is empty. ``tumours``: as ``instances/`` tells them apart
(``tumours_counted_as``: segments, or nearest segments of ``instance_sources``), else connected pieces. Several sources are joined by
``;``, their hashes in the same order. :data:`QC_COUNTS` are blank of cases that an earlier version prepared. The last ones come from the clinical sheet and are blank without one."""

PROBLEM_FIELDS = ("case", "kind", "reason")


def dataset_row(
    source: CaseSource,
    kind: SourceKind,
    ct: CT,
    truth: Truth,
    lost: NestingReport,
    hashes: tuple[str, Sequence[str], Sequence[str]],
) -> dict[str, Any]:
    """The line of one case. ``hashes``: SHA-256 of the image, of each label file, and of each file of instances."""
    spacing = ct.geometry.spacing_zyx_mm
    liver, crlm, flr, lrs = (Region.of(m, spacing) for m in (truth.liver, truth.crlm, truth.flr, truth.liver & ~truth.flr))
    percent = flr_percent(liver, crlm, flr)
    pieces = {s: len(components(r)[1]) for s, r in ((Structure.LIVER, liver), (Structure.CRLM, crlm), (Structure.FLR, flr))}
    overlap = truth.tumour_overlap_voxels
    not_held = [
        *lost.findings(),
        *([f"{overlap} voxels belong to more than one tumour; the map holds their union"] if overlap else []),
    ]
    voids = _void_voxels(liver)
    notes = [*ct.warnings, *truth.notes, *([f"the liver has closed voids of {voids} voxels"] if voids else [])]
    return {
        "case": source.case_id,
        "labels_from": str(kind),
        "image_source": str(source.image),
        "image_sha256": hashes[0],
        "label_sources": ";".join(map(str, source.label_files())),
        "label_sha256": ";".join(hashes[1]),
        "instance_sources": ";".join(map(str, source.instance_files())),
        "instance_sha256": ";".join(hashes[2]),
        **{f"size_{a}": n for a, n in zip("xyz", ct.geometry.size_xyz, strict=True)},
        **{f"spacing_{a}_mm": round(float(s), 6) for a, s in zip("xyz", ct.geometry.spacing_mm, strict=True)},
        "slice_spacing_mm": round(float(Canonical.of(ct.geometry).target.spacing_mm[2]), 6),
        **{f"{n}_ml": round(r.volume_ml, 6) for n, r in (("liver", liver), ("crlm", crlm), ("flr", flr), ("lrs", lrs))},
        "tumours": len(truth.instances) if truth.instances is not None else pieces[Structure.CRLM],
        "tumours_counted_as": truth.told_by,
        "flr_fraction": math.nan if percent is None else round(percent / 100.0, 6),
        **{f"{s}_pieces": n for s, n in pieces.items()},
        "crlm_outside_liver_voxels": lost.crlm_outside_liver,
        "flr_outside_liver_voxels": lost.flr_outside_liver,
        "tumour_overlap_voxels": overlap,
        "not_in_map": "; ".join(not_held),
        "notes": "; ".join(notes),
        **_qc_counts(source.case_id, ct, truth),
    }


def _qc_counts(case_id: str, ct: CT, truth: Truth) -> dict[str, int]:
    masks = {Structure.LIVER: truth.liver, Structure.CRLM: truth.crlm, Structure.FLR: truth.flr}
    checked = check_case(QcCase(case_id, ct.geometry, masks, ct))
    return {name: checked.count(severity) for name, severity in zip(QC_COUNTS, Severity, strict=True)}


def _void_voxels(liver: Region) -> int:
    """Background voxels that the liver encloses on all sides; 0 for an empty liver."""
    return 0 if liver.is_empty else int(np.count_nonzero(ndimage.binary_fill_holes(liver.crop_zyx))) - liver.voxels


def dataset_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table; what is undefined or not known is blank."""
    return _csv(FIELDS, [{k: "" if v is None or v != v else v for k, v in row.items()} for row in rows])


def problems_csv(problems: Sequence[Problem]) -> str:
    """One line per case that was left out."""
    return _csv(
        PROBLEM_FIELDS, [{"case": p.case_id, "kind": str(p.kind), "reason": " ".join(p.reason.split())} for p in problems]
    )


def _csv(fields: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
