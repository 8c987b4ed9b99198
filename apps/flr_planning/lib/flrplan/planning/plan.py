"""The plan of one case: masks, volumes and where they came from; and as files, written beside and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flrplan import __version__
from flrplan.anatomy import Mask, Structure
from flrplan.errors import OutputError
from flrplan.files import alone_in, write_json
from flrplan.files.write import PART
from flrplan.image import CT, write_label_map
from flrplan.method import CascadeResult, Probability, Source
from flrplan.objects.source import why_no_objects
from flrplan.planning.assessment import Assessment, Clinical
from flrplan.planning.coherent import COHERENT, coherent_result
from flrplan.planning.interval import Interval
from flrplan.planning.meshes import Mesh, meshes_of
from flrplan.planning.parts import Parts, Vessel, parts_of, plan_findings, vessel_of
from flrplan.planning.record import SCHEMA, checked_plan
from flrplan.planning.segments import LiverSegments
from flrplan.planning.volumetry import Volumes, measure_volumes, partial_volume_ml
from flrplan.qc import Finding, QcCase, Severity, check_case

if TYPE_CHECKING:
    from flrplan.planning.picture import KeyImage

RESEARCH_ONLY = "for research use only; not a medical device"
MAP_NAME = "planning.nii.gz"
REPORT_NAME = "plan.json"
PICTURE_NAME = "plan.png"
PAGE_NAME = "report.html"
PDF_NAME = "report.pdf"
DISAGREEMENT_NAME = "disagreement.nii.gz"
SEG_NAME = "planning.seg.dcm"
SR_NAME = "plan.sr.dcm"
MESH_FOLDER = "meshes"
SCENE_NAME = "plan.glb"
_TOLD = ("in_view", "thick_slices", "volumes", "crlm_outside", "flr_outside", "flr_pieces")
"""Rules of label QC whose sentences the cascade, the planning map and its parts give already; but of a small FLR they say nothing."""

_NOTED = ("contrast_phase",)
"""Rules that say of a label no more than a note, and of a plan what its reader must know."""


def _is_told(finding: Finding) -> bool:
    small_flr = finding.rule == "volumes" and finding.structure is Structure.FLR and bool(finding.size)
    return finding.rule in _TOLD and not small_flr


def require_kept(folder: Path, given: Iterable[str | os.PathLike[str]]) -> None:
    """Raises OutputError where a plan in ``folder`` would replace a file that it is made of."""
    replaced = {os.path.realpath(file) for file in _files_of_plan(folder)}
    for file in given:
        if os.path.realpath(file) in replaced:
            raise OutputError(
                f"{file}: the plan is made of this file and would replace it; write the plan into another folder, or move the file"
            )


def _files_of_plan(folder: Path) -> list[Path]:
    """What a folder holds of a plan, and what a killed process left of one."""
    own = (REPORT_NAME, MAP_NAME, PAGE_NAME, PDF_NAME, PICTURE_NAME, DISAGREEMENT_NAME, SEG_NAME, SR_NAME)
    meshes = [f"{MESH_FOLDER}/{name}" for name in ("*.stl", "*.mrk.json", SCENE_NAME)]
    killed = (f"{PART}*", f"{MESH_FOLDER}/{PART}*")
    return [file for pattern in (*own, *meshes, *killed) for file in folder.glob(pattern)]


@dataclass(frozen=True, eq=False)
class Plan:
    """The plan of one CT; what it is made of is computed at the first look.

    result: with liver, CRLM and FLR; a predicted FLR is the coherent one (:mod:`flrplan.planning.coherent`), unless the raw one was asked
    for. raw: as the networks gave it; None where nothing was changed. request: the files and options that were asked for, kept in
    ``plan.json`` so that a later run can tell whether it asks the same; None where arrays were given. clinical: what is known of the patient.
    veins: masks on the CT's grid by name, which no volume counts. segments: of the liver, by a map; None without one. interval: how sure the remnant is; None where there is nothing to be
    sure of: a given FLR, a raw one, or what no network gave. disagreement_zyx: ``(Z, Y, X) uint8``, the standard deviation over the folds,
    second opinions' too, of the FLR's probability in percent; None unless it was asked for. compared: other plans of the same CT, by what they are; a report shows
    them beside this one. remark: what must be said of this plan where it stands beside another. settings: what it was made with, in words,
    by name. made_on: the time, ISO 8601. anonymized: nothing of the patient, of dates and paths is written. checked: these masks as label QC
    has looked at them so far; None where it has not.
    """

    result: CascadeResult
    request: Mapping[str, Any] | None = None
    raw: CascadeResult | None = None
    clinical: Clinical = field(default_factory=Clinical)
    veins: Mapping[str, Mask] = field(default_factory=dict)
    segments: LiverSegments | None = None
    interval: Interval | None = None
    disagreement_zyx: NDArray[np.uint8] | None = None
    compared: Mapping[str, Plan] = field(default_factory=dict)
    remark: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    made_on: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    anonymized: bool = False
    checked: QcCase | None = None

    @classmethod
    def coherent(cls, result: CascadeResult, probability: Probability | None = None) -> Plan:
        """The coherent plan of what a cascade gave: liver, CRLM and FLR. probability: of the FLR, as the cascade hands it on."""
        changed = coherent_result(result, probability)
        checked = QcCase(result.ct.name, result.ct.geometry, changed.masks, result.ct)
        return cls(changed, raw=None if changed is result else result, checked=checked)

    @property
    def ct(self) -> CT:
        """The CT that was planned."""
        return self.result.ct

    @property
    def masks(self) -> Mapping[Structure, Mask]:
        """``(Z, Y, X) bool`` on the CT's grid: liver and CRLM as they were given or predicted, and the plan's FLR."""
        return self.result.masks

    @property
    def sources(self) -> Mapping[Structure, Source]:
        """Where each mask came from: given or predicted."""
        return self.result.sources

    @property
    def label_zyx(self) -> NDArray[np.uint8]:
        """The planning map ``(Z, Y, X) uint8``, read-only: 1 remnant, 2 resection, 3 metastasis in the resection, 4 in the remnant."""
        return self.result.planning_map()[0]

    @cached_property
    def volumes(self) -> Volumes:
        """Volumes (ml) and fractions (0..1) of the planning map; NaN where a denominator is empty."""
        return measure_volumes(self.label_zyx, self.ct.geometry.voxel_volume_ml)

    @cached_property
    def raw_volumes(self) -> Volumes | None:
        """The volumes of the planning map that the networks' own FLR gives; None where the plan is made of that, or of a given one."""
        return None if self.raw is None else measure_volumes(self.raw.planning_map()[0], self.ct.geometry.voxel_volume_ml)

    @cached_property
    def parts(self) -> Parts:
        """The parts of resection and remnant, and each metastasis with its margin."""
        return parts_of(self.label_zyx, self.ct.geometry, None if self.segments is None else self.segments.label_zyx)

    @cached_property
    def meshes(self) -> Mapping[str, Mesh]:
        """Surfaces by the name of their file: each structure, each metastasis (``crlm_<n>``), the cut; what has no voxels has none."""
        return meshes_of(self.label_zyx, self.ct.geometry)

    @cached_property
    def key_images(self) -> Sequence[KeyImage]:
        """The key images with their titles, as they stand in the report and in ``plan.png``."""
        from flrplan.planning.picture import draw, key_views  # matplotlib: a second of imports that nothing before needs

        others = {name: other.masks[Structure.FLR] for name, other in self.compared.items()}
        return [draw(view) for view in key_views(self.ct, self.label_zyx, self.parts.lesions, self.veins, others)]

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What label QC says of the masks, the worst first (:mod:`flrplan.qc`)."""
        case = self.checked
        if case is None or case.masks is not self.masks or case.ct is not self.ct:
            case = QcCase(self.ct.name, self.ct.geometry, self.masks, self.ct)
        found = check_case(case).findings
        case.forget()
        return found

    @property
    def assessment(self) -> Assessment:
        """The remnant against the patient's size, the thresholds of the stated liver and an earlier volumetry."""
        return Assessment(self.volumes, self.clinical)

    @cached_property
    def vessels(self) -> tuple[Vessel, ...]:
        """What the plan keeps of each of the veins, and how near the cut comes to them."""
        return tuple(vessel_of(name, vein, self.label_zyx, self.ct.geometry) for name, vein in self.veins.items())

    @property
    def flr_source(self) -> str:
        """Where the plan's FLR comes from: ``given``, ``coherent``, or ``raw`` for the networks' own mask."""
        if self.sources[Structure.FLR] is Source.GIVEN:
            return Source.GIVEN.value
        return "raw" if self.raw is None else "coherent"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should check, one sentence each: of the CT, of the masks, of the plan, and that demo models took part."""
        lost = self.result.planning_map()[1].findings()
        unsure = (*self._difference(), *self._second_opinions(), *(() if self.segments is None else self.segments.warnings))
        own = (*unsure, *plan_findings(self.parts), *self._partial_volume(), *self.assessment.findings())
        found = [f.message for f in self.findings if (f.severity is not Severity.NOTE or f.rule in _NOTED) and not _is_told(f)]
        return (*self.result.warnings, *lost, *own, *found)

    def _partial_volume(self) -> list[str]:
        thickest = max(self.ct.geometry.spacing_mm)
        if not any(f.rule == "thick_slices" for f in self.findings) or not self.volumes.flr_functional_ml:
            return []
        bound = partial_volume_ml(self.label_zyx, self.ct.geometry)
        return [
            f"slices of {thickest:.1f} mm: the remnant may be off by about {bound:.0f} ml, half a slice above and below, where all that shows "
            "in a slice was outlined; its share of the liver hardly is"
        ]

    def _difference(self) -> list[str]:
        if self.raw_volumes is None:
            return []
        here, raw = (100 * v.flr_fraction for v in (self.volumes, self.raw_volumes))
        if not abs(here - raw) > COHERENT.unsure_points:  # NaN: no parenchyma, nothing to compare
            return []
        return [
            f"this plan is not sure: its FLR is {here:.0f} % of the parenchyma, that of the networks' own mask, with a shell and crumbs "
            f"left as resection, {raw:.0f} %; look where they differ (--raw gives the other)"
        ]

    def _second_opinions(self) -> list[str]:
        if self.interval is None or not self.by_architecture:
            return []
        fractions = self.interval.architecture_fractions.values()
        points = 100 * (max(fractions) - min(fractions))
        if points <= COHERENT.unsure_points:
            return []
        return [
            f"this plan is not sure: the architectures differ by {points:.0f} points; the FLR of each one's own plan, as a share of the parenchyma: "
            f"{self.by_architecture}; look where they differ (--disagreement)"
        ]

    @property
    def by_architecture(self) -> str:
        """The FLR% of each architecture's own plan in words; empty without second opinions."""
        return "" if self.interval is None else self.interval.by_architecture

    @property
    def why_no_dicom(self) -> str | None:
        """Why :meth:`save` writes no DICOM SEG and SR, in words; None where it does."""
        return (
            "the plan is anonymous; a SEG and an SR name the study they belong to"
            if self.anonymized
            else why_no_objects(self.ct)
        )

    def report(self) -> dict[str, Any]:
        """The content of ``plan.json`` (:class:`flrplan.planning.record.PlanRecord`): plain values, undefined ones None."""
        geometry = self.ct.geometry
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "case": self.ct.name,
            "anonymized": self.anonymized,
            "source": self.ct.source,
            "date": self.made_on,
            "software": f"flrplan {__version__}",
            "use": RESEARCH_ONLY,
            "size_xyz": list(geometry.size_xyz),
            "spacing_mm": [round(s, 6) for s in geometry.spacing_mm],
            "flr_source": self.flr_source,
            "volumes": self.volumes.to_json(),
            "raw_volumes": None if self.raw_volumes is None else self.raw_volumes.to_json(),
            "interval": None if self.interval is None else self.interval.to_json(),
            "flr_partial_volume_ml": round(partial_volume_ml(self.label_zyx, geometry), 3),
            **self.assessment.to_json(),
            **self.parts.to_json(),
            "compared": {name: other.summary() for name, other in self.compared.items()},
            "veins": [vessel.to_json() for vessel in self.vessels],
            "inputs": {str(s): source.value for s, source in self.sources.items()},
            "models": {stage: model.to_json() for stage, model in self.result.models.items()},
            "demo_models": self.result.demo,
            "seconds": dict(self.result.seconds),
            "settings": dict(self.settings),
            "warnings": list(self.warnings),
            "findings": [finding.as_dict() for finding in self.findings],
            "dicom": {"seg": SEG_NAME, "sr": SR_NAME} if self.why_no_dicom is None else {"not_written": self.why_no_dicom},
        }
        if self.anonymized:
            content |= {"source": None, "date": None, "patient": {**content["patient"], "id": None, "scan_date": None}}
            content["growth"] = content["growth"] and {**content["growth"], "prior": None}
        return {**content, "request": dict(self.request)} if self.request else content

    def summary(self) -> dict[str, Any]:
        """What ``plan.json`` holds of a plan that stands beside another."""
        return {
            "remark": self.remark,
            "volumes": self.volumes.to_json(),
            "interval": None if self.interval is None else self.interval.to_json(),
            **self.parts.to_json(),
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the plan into ``folder``, which is made; a plan that is there is replaced.

        The map, picture, report as page and PDF, ``meshes/``, of a DICOM series ``planning.seg.dcm`` and ``plan.sr.dcm``
        (:attr:`why_no_dicom`), ``disagreement.nii.gz`` where it was asked for, and, last, ``plan.json``. What an earlier plan left of them goes first.
        Of two processes that write there at once, one waits for the other, so that the files are of one plan.
        Raises: OutputError where the disk is full or the folder cannot be written; no half-written file is left.
        """
        folder = Path(folder)
        report = self.report()
        checked_plan(json.loads(json.dumps(report)), self.ct.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
        with alone_in(folder):
            self._write(folder, report)

    def _write(self, folder: Path, report: dict[str, Any]) -> None:
        # matplotlib, highdicom and scikit-image: seconds of imports that nothing before needs
        from flrplan.planning.objects import write_dicom, write_meshes
        from flrplan.planning.picture import write_picture
        from flrplan.planning.report import write_report

        given = [stamp[0] for name, stamp in (self.request or {}).items() if name != "options" and not self.anonymized]
        require_kept(folder, given)
        try:
            for file in set(_files_of_plan(folder)) - {folder / MAP_NAME}:
                file.unlink(missing_ok=True)  # beside a new map it would be wrong
        except OSError as error:
            raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
        write_label_map(folder / MAP_NAME, self.label_zyx, self.ct.geometry)
        if self.disagreement_zyx is not None:
            write_label_map(folder / DISAGREEMENT_NAME, self.disagreement_zyx, self.ct.geometry)
        write_picture(folder / PICTURE_NAME, self.ct, self.key_images, self.volumes)
        write_report(folder, self)
        write_meshes(self, folder)
        if self.why_no_dicom is None:
            write_dicom(self, folder)
        write_json(folder / REPORT_NAME, report)
