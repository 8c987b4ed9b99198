"""From a CT, and the masks that are given, to its plan."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from flrplan.anatomy import PLANNED, Mask, Structure
from flrplan.api.anonymous import Anonymizer, anonymous_request, pseudonym
from flrplan.engine import Cascade, CascadeSettings, NoteStep, TakeProbability
from flrplan.errors import GridError, LabelError, ModelError, SettingsError
from flrplan.files import files_below
from flrplan.image import CT, read_ct, read_label_map, read_mask, require_same_grid
from flrplan.image.dicom_files import first_image, is_dicom
from flrplan.image.finite import count_non_finite, require_finite, require_unmasked
from flrplan.image.hounsfield import check_grid
from flrplan.image.masks import binary_mask
from flrplan.method import CASCADE, FLR, CascadeResult, Probability, Source, Stage, stage_named
from flrplan.method.engine import APP_ENGINE
from flrplan.planning import COHERENT, REPORT_NAME, Clinical, Interval, LiverState, Plan
from flrplan.planning.calibration import CALIBRATION_NAME, Calibration, settings_of_run, uncalibrated
from flrplan.planning.cut_file import Plane, read_cut, require_surface
from flrplan.planning.evidence import Evidence, disagreement_of, evidence_of
from flrplan.planning.given import NOT_ADVICE, at_least_percent, largest_resection, remnant_of_cut, remnant_of_masks
from flrplan.planning.meshes import Mesh
from flrplan.planning.patient import Patient, patient_of_header, read_prior
from flrplan.planning.segments import checked_segment_map, read_segment_map, segments_of
from flrplan.workfolder import ModelIdentity, require_same

PathLike = str | os.PathLike[str]
ReadCT = Callable[[Path, str | None], CT]
_GIVEN_SEGMENTS = "the given liver_segments"


def plan(
    ct: CT | PathLike,
    *,
    liver: PathLike | NDArray[Any] | None = None,
    crlm: PathLike | NDArray[Any] | None = None,
    flr: PathLike | NDArray[Any] | None = None,
    resection: PathLike | NDArray[Any] | None = None,
    cut: PathLike | Plane | Mesh | None = None,
    other_side: bool = False,
    at_least: float | None = None,
    series: str | None = None,
    name: str | None = None,
    cascade: Cascade | None = None,
    on_step: NoteStep | None = None,
    raw: bool = False,
    height_cm: float | None = None,
    weight_kg: float | None = None,
    liver_state: LiverState | str | None = None,
    prior: PathLike | None = None,
    weeks: float | None = None,
    hepatic_veins: PathLike | NDArray[Any] | None = None,
    portal_veins: PathLike | NDArray[Any] | None = None,
    liver_segments: PathLike | NDArray[Any] | None = None,
    disagreement: bool = False,
    anonymize: bool = False,
    read: ReadCT = read_ct,
) -> Plan:
    """Segments liver, metastases and future liver remnant (FLR), and measures them. For research use only.

    Example::

        plan = flrplan.plan("patient.nii.gz", liver="my_liver.nii.gz")
        plan.volumes.flr_fraction    # 0..1, remnant parenchyma over all parenchyma
        plan.save("plans/patient")

    Args:
        ct: what :func:`flrplan.image.ct.read_ct` reads (NIfTI, NRRD, MetaImage, a DICOM folder), or the CT that it gave.
        liver, crlm: masks that are taken and not predicted. A file (NIfTI, NRRD, DICOM SEG) must lie on the CT's grid; an array
            ``(Z, Y, X)``, bool or 0 and one other value, must have the CT's shape, in the CT's own axis order.
        flr, resection, cut: a resection of a person's own, one of the three; the predicted plan then stands beside it (``compared``). Masks like
            ``liver``; a cut is a plane, a mesh, or a file of one (:mod:`flrplan.planning.cut_file`), and its side that holds more of the
            metastases is resected (:func:`flrplan.planning.given.remnant_of_cut`); other_side: the other one.
        at_least: percent of the parenchyma: the largest resection that leaves it, its cut parallel to the plan's, stands beside the plan.
            Arithmetic, not advice.
        series: SeriesInstanceUID, where a DICOM folder holds several.
        name: what the case is called; by default after the file or the PatientID.
        cascade: models, device and how they run, and which architectures give second opinions; given several times, it keeps its models
            loaded, and predicts only what changed since (:mod:`flrplan.engine.cache`). None: the app's models (the demo models where none was trained), on a GPU where there is one, the
            same in every call of this process.
        on_step: called with a short text before each prediction.
        raw: plan with the FLR as the network gave it, shell and crumbs included; by default the plan is coherent
            (:mod:`flrplan.planning.coherent`), and both volumes stand in it.
        height_cm, weight_kg: of the patient, for sFLR; by default those of the DICOM header. Never guessed.
        liver_state: ``normal``, ``chemotherapy`` or ``injured``, which decides about the thresholds; None: none is judged.
        prior: ``plan.json`` of the volumetry before an embolisation. weeks: from the embolisation to this CT.
        hepatic_veins, portal_veins: masks like ``liver``, which are measured against the cut.
        liver_segments: a map on the CT's grid, 1 to 8 for Couinaud's segments I to VIII, a file or an array: in which of them each
            metastasis lies, and what of each is resected (:mod:`flrplan.planning.segments`).
        disagreement: also keep, and save, how far the folds, those of second opinions too, differ about each voxel
            (:attr:`flrplan.planning.plan.Plan.disagreement_zyx`).
        anonymize: nothing of the patient, no date and no path is in what the plan says and saves; by default it is then called after a
            digest of where the CT lies (:mod:`flrplan.api.anonymous`), and no DICOM object is made.
        read: what reads a path and a series, for who has read them already.

    Raises: ImageError for a CT that cannot be used; GridError for a mask on another grid; LabelError for one that is not binary;
        EmptyLiverError where the liver is empty, be it given or predicted (an empty CRLM is an answer); ModelError where a model is
        missing or damaged; SettingsError. All are FlrError.
    """
    for kind, said, of_kind in (
        (bool, "True or False", {"other_side": other_side, "raw": raw, "disagreement": disagreement, "anonymize": anonymize}),
        (str, "a text", {"series": series, "name": name}),
        ((str, os.PathLike), "a path", {"prior": prior}),
        (Cascade, "a flrplan.engine.Cascade", {"cascade": cascade}),
    ):
        for option, value in of_kind.items():
            if value is not None and not isinstance(value, kind):
                raise SettingsError(f"{option}: expected {said}, got {value!r:.80}")
    cascade = _own_cascade() if cascade is None else cascade
    drawn = {n: v for n, v in (("flr", flr), ("resection", resection)) if v is not None}
    own = {**drawn, **({} if cut is None else {"cut": cut})}
    if len(own) > 1:
        raise SettingsError(f"a resection is given in one way, got {' and '.join(own)}; leave out all but one")
    if other_side and cut is None:
        raise SettingsError("the other side is one of a cut; give a cut, or leave it out")
    wanted = None if at_least is None else at_least_percent(at_least)
    masks = {s: mask for s, mask in ((Structure.LIVER, liver), (Structure.CRLM, crlm)) if mask is not None}
    veins = {n: mask for n, mask in (("hepatic_veins", hepatic_veins), ("portal_veins", portal_veins)) if mask is not None}
    stated = Patient(height_cm, weight_kg)
    state = None if liver_state is None else liver_state_named(liver_state)
    before = None if prior is None else read_prior(Path(prior))
    known = Clinical(stated, state, before, weeks)  # what is wrong with it is said before anything is predicted
    path = None
    if isinstance(ct, str | os.PathLike):
        path = Path(ct)
        ct = read(path, series)
    elif not isinstance(ct, CT):
        raise SettingsError(f"ct: expected a path or a flrplan.CT, which knows its grid, got {type(ct).__name__}")
    image = ct if name is None else replace(ct, name=name)
    patient, notes = patient_of_ct(stated, path, series)
    clinical = replace(known, patient=patient)
    given = {s: _mask(mask, image, s) for s, mask in masks.items()}
    of_veins = {n.replace("_", " "): _mask(mask, image, n) for n, mask in veins.items()}
    segment_map = None if liver_segments is None else _segment_map(liver_segments, image)
    of_own = {n: _mask(mask, image, Structure.FLR if n == "flr" else n) for n, mask in drawn.items()}
    surface, frame_note = _cut(cut) if cut is not None else (None, "")
    check_grid(image.geometry, image.source)  # this and the next of a CT of the caller's own; read_ct has looked
    if image.array_zyx.dtype.kind == "f":
        require_finite(count_non_finite(image.array_zyx), image.array_zyx.size, f"case {image.name}")
    image = replace(image, warnings=(*image.warnings, *notes))
    if anonymize:
        clean = Anonymizer([] if path is None else [path])
        called = name or ("case" if path is None else pseudonym(request_of(path, {}, {})["ct"]))
        image = CT(image.array_zyx, image.geometry, called, "the CT", tuple(clean(w) for w in image.warnings))
        frame_note = frame_note and f"the given cut {frame_note.partition(' ')[2]}"
    planned = run_plan(cascade, image, given, on_step=on_step, raw=raw, disagreement=disagreement)
    if own:
        planned = _with_given(planned, of_own, surface, other_side, [frame_note] if frame_note else [])
    if wanted is not None:
        planned = _with_alternative(planned, wanted)
    if segment_map is not None:
        named = str(liver_segments) if isinstance(liver_segments, str | os.PathLike) else _GIVEN_SEGMENTS
        found = segments_of(segment_map, planned.masks[Structure.LIVER], image.geometry, named)
        beside = {name: replace(other, segments=found) for name, other in planned.compared.items()}
        planned = replace(planned, segments=found, compared=beside)
    for of in (planned, *planned.compared.values()):
        for mask in of.masks.values():
            mask.setflags(write=False)  # volumes and warnings are computed from them later
    plane = cut if isinstance(cut, Plane) else None
    asked: dict[str, Any] = {**{s.value: mask for s, mask in masks.items()}, **veins, **own}
    if plane is not None:
        del asked["cut"]
    asked |= {n: given for n, given in (("prior", prior), ("liver_segments", liver_segments)) if given is not None}
    files = {n: Path(f) for n, f in asked.items() if isinstance(f, str | os.PathLike)}
    request = None
    if path is not None and len(files) == len(asked):
        options = options_of(
            plane,
            raw=raw,
            height_cm=stated.height_cm,
            weight_kg=stated.weight_kg,
            liver_state=state,
            weeks=known.weeks,
            other_side=other_side or None,
            at_least=wanted,
            disagreement=disagreement or None,
            also=asked_also(cascade.settings),
        )
        request = request_of(path, files, options)
        request = anonymous_request(request) if anonymize else request
    settings = {
        "networks": f"{cascade.settings.architecture}, test-time mirroring {'on' if cascade.settings.mirroring else 'off'}, "
        f"engine {cascade.settings.engine}"
    }
    if asked_about := [opinion for place in planned.result.models if (opinion := place.partition("/")[2])]:
        settings["second opinions on the remnant"] = ", ".join(asked_about)
    if planned.raw is not None:
        settings["coherent plan"] = ", ".join(f"{name} {value:g}" for name, value in asdict(COHERENT).items())
    if planned.segments is not None:
        settings["liver segments"] = planned.segments.said
    return replace(planned, request=request, clinical=clinical, veins=of_veins, settings=settings, anonymized=anonymize)


@cache
def _own_cascade() -> Cascade:
    return Cascade(settings=CascadeSettings(engine=APP_ENGINE))


def _cut(cut: PathLike | Plane | Mesh) -> tuple[Plane | Mesh, str]:
    """The cut, read where it is a file, and what was assumed of its frame."""
    if isinstance(cut, Mesh):
        require_surface(cut, "the given cut")
    if isinstance(cut, Plane | Mesh):
        return cut, ""
    if isinstance(cut, str | os.PathLike):
        return read_cut(Path(cut))
    raise SettingsError(f"cut: expected a file, a Plane or a Mesh of flrplan.planning, got {type(cut).__name__}")


def _with_given(
    predicted: Plan, drawn: Mapping[str, Mask], surface: Plane | Mesh | None, other_side: bool, notes: list[str]
) -> Plan:
    """The plan of a given resection, the predicted one beside it."""
    result = predicted.result
    liver, crlm, grid = result.masks[Structure.LIVER], result.masks[Structure.CRLM], result.ct.geometry
    if surface is None:
        flr, said = remnant_of_masks(drawn.get("flr"), drawn.get("resection"), liver, grid.voxel_volume_ml)
        notes = [*notes, *said]
    else:
        flr, side = remnant_of_cut(surface, liver, crlm, grid, other_side)
        notes = [*notes, f"given cut: {side}"]
    changed = replace(
        result,
        masks={**result.masks, Structure.FLR: flr},
        sources={**result.sources, Structure.FLR: Source.GIVEN},
        warnings=(*result.warnings, *notes),
    )
    return Plan(changed, compared={"predicted": predicted}, disagreement_zyx=predicted.disagreement_zyx)


def _with_alternative(planned: Plan, percent: float) -> Plan:
    """The plan with the largest resection beside it that leaves so much of the parenchyma; a warning where there is no cut to move."""
    name, result = f"at least {percent:g} %", planned.result
    liver, crlm, flr = (planned.masks[s] for s in PLANNED)
    found = largest_resection(liver, crlm, flr, result.ct.geometry, percent)
    if found is None:
        note = f"{name}: the plan has no cut to move, so no other resection was computed"
        return replace(planned, result=replace(result, warnings=(*result.warnings, note)))
    other_flr, moved_mm = found
    way = "more is resected" if moved_mm > 0 else "less is resected"
    where = (
        f"the cut of this plan moved by {abs(moved_mm):.0f} mm, {way}" if round(moved_mm) else "the cut of this plan as it is"
    )
    other = Plan(
        replace(result, masks={**result.masks, Structure.FLR: other_flr}),
        remark=f"{name} of the parenchyma: {where}; {NOT_ADVICE}",
    )
    return replace(planned, compared={**planned.compared, name: other})


def liver_state_named(name: LiverState | str) -> LiverState:
    """The state of a name. Raises SettingsError naming the known ones."""
    try:
        return LiverState(name)
    except ValueError:
        raise SettingsError(
            f"unknown state of the liver {name!r}; known are {', '.join(s.value for s in LiverState)}"
        ) from None


def patient_of_ct(stated: Patient, path: Path | None, series: str | None) -> tuple[Patient, list[str]]:
    """The patient of the CT's DICOM header, if it has one; what was stated goes before it. And what the header says that cannot be."""
    header: Any = {}
    if path is not None and (path.is_dir() or is_dicom(path)):
        file = first_image(path, series) if path.is_dir() else None
        keywords = ["PatientSize", "PatientWeight", "PatientID", "StudyDate"]
        header = pydicom.dcmread(path if file is None else file.path, force=True, specific_tags=keywords)
    found, notes = patient_of_header(header)
    if stated.height_cm is None and stated.weight_kg is None:
        return found, notes
    height, weight = stated.height_cm or found.height_cm, stated.weight_kg or found.weight_kg
    whole = stated.height_cm is not None and stated.weight_kg is not None
    source = "given" if whole or not (found.height_cm or found.weight_kg) else "given, the other from the DICOM header"
    return replace(found, height_cm=height, weight_kg=weight, source=source), notes


def run_plan(
    cascade: Cascade,
    ct: CT,
    given: Mapping[Structure, Mask],
    stages: Sequence[Stage] = CASCADE,
    on_step: NoteStep | None = None,
    raw: bool = False,
    disagreement: bool = False,
    on_probability: TakeProbability | None = None,
) -> Plan:
    """The plan of what a cascade gives for these stages, coherent unless ``raw``; arguments and Raises as :meth:`flrplan.engine.cascade.Cascade.run`.

    A predicted remnant is shown to the second opinions of the cascade's settings: each architecture's FLR model predicts it on the plan's own liver
    and metastases. The masks stay as they are; the interval, the disagreement and a warning know of them. Of a raw plan the disagreement alone does.
    """
    if raw:
        folds: list[Probability] = []
        if disagreement:
            _require_opinions(cascade, stages, given)
        plan = Plan(
            cascade.run(ct, given, stages, on_step, on_probability, {Structure.FLR: folds.extend} if disagreement else None)
        )
        if cascade.settings.also and FLR.name in plan.result.models:
            if not disagreement:
                note = (
                    "second opinions were not asked for: a raw plan has no interval; plan without --raw, or with --disagreement"
                )
                return replace(plan, result=replace(plan.result, warnings=(*plan.result.warnings, note)))
            for name, second, _ in _second_opinions(cascade, plan.result, on_step, folds):
                plan = _with_opinion(plan, name, second)
        return _with_disagreement(plan, folds)
    plan, evidence = coherent_plan(cascade, ct, given, stages, on_step, disagreement, on_probability)
    return plan if evidence is None else replace(plan, interval=interval_of(cascade, evidence, plan.result.models))


def coherent_plan(
    cascade: Cascade,
    ct: CT,
    given: Mapping[Structure, Mask],
    stages: Sequence[Stage] = CASCADE,
    on_step: NoteStep | None = None,
    disagreement: bool = False,
    on_probability: TakeProbability | None = None,
) -> tuple[Plan, Evidence | None]:
    """The coherent plan without its interval, and what there is to be sure or unsure of it; None unless its FLR is predicted."""
    flr: list[Probability] = []
    folds: list[Probability] = []
    _require_opinions(cascade, stages, given)

    def keep_flr(structure: Structure, probability: Probability) -> None:
        if structure is Structure.FLR:
            flr.append(probability)
        if on_probability is not None:
            on_probability(structure, probability)

    result = cascade.run(ct, given, stages, on_step=on_step, on_probability=keep_flr, on_folds={Structure.FLR: folds.extend})
    plan = Plan.coherent(result, flr[0] if flr else None)
    evidence = None
    if plan.raw is not None and flr and Structure.CRLM in result.masks:
        evidence = evidence_of(result, plan.masks[Structure.FLR], flr[0], folds, plan.checked)
    if evidence is not None and cascade.settings.also and FLR.name in result.models:
        fractions = {cascade.settings.architecture: evidence.flr_fraction}
        for name, second, probability in _second_opinions(cascade, result, on_step, folds if disagreement else None):
            fractions[name] = Plan.coherent(second, probability).volumes.flr_fraction
            plan = _with_opinion(plan, name, second)
        evidence = replace(evidence, architecture_fractions=fractions)
    return _with_disagreement(plan, folds if disagreement else []), evidence


def _require_opinions(cascade: Cascade, stages: Sequence[Stage], given: Mapping[Structure, Mask]) -> None:
    """Raises ModelError where the FLR model of a second opinion that will be asked for is missing: before minutes of work, not after."""
    if FLR not in stages or Structure.FLR in given:
        return
    for name in cascade.settings.architectures[1:]:
        try:
            cascade.store.find(FLR, name)
        except ModelError as error:
            raise ModelError(f"second opinion by {name}: {error}; or plan without it") from error


def _second_opinions(
    cascade: Cascade, first: CascadeResult, on_step: NoteStep | None, folds: list[Probability] | None
) -> Iterator[tuple[str, CascadeResult, Probability]]:
    """By each further architecture, what it gives on the liver and metastases of ``first``, and its FLR's probability.

    folds: is filled with its folds'; None: they are not asked for.
    """
    given = {structure: first.masks[structure] for structure in FLR.needs}
    for name in cascade.settings.architectures[1:]:
        found: dict[Structure, Probability] = {}
        tell = None if on_step is None else (lambda step, name=name: on_step(f"{step}, second opinion by {name}"))
        of_folds = None if folds is None else {Structure.FLR: folds.extend}
        second = cascade.second_opinion(name).run(first.ct, given, (FLR,), tell, found.__setitem__, of_folds)
        yield name, second, found[Structure.FLR]


def _with_opinion(plan: Plan, name: str, second: CascadeResult) -> Plan:
    """The same plan, with the model of a second opinion in its record, and what must be said of it."""
    first = plan.result
    place = f"{FLR}/{name}"
    of_model = f"{FLR}: "  # what is said of a model is said of each
    told = [f"{name}: {said}" for said in second.warnings if said.startswith(of_model) or said not in first.warnings]
    joined = replace(
        first,
        models={**first.models, place: second.models[FLR.name]},
        seconds={**first.seconds, **{step.replace(FLR.name, place, 1): s for step, s in second.seconds.items()}},
        warnings=(*first.warnings, *told),
    )
    return replace(plan, result=joined)


def _with_disagreement(plan: Plan, folds: Sequence[Probability]) -> Plan:
    liver = plan.masks.get(Structure.LIVER)
    return replace(plan, disagreement_zyx=disagreement_of(liver, folds)) if folds and liver is not None else plan


def interval_of(cascade: Cascade, evidence: Evidence, models: Mapping[str, ModelIdentity]) -> Interval:
    """The interval by the calibration of these very models, run as the cascade runs them, or why there is none. Raises: ModelError."""
    settings = cascade.settings
    ran = settings_of_run(settings.mirroring, settings.largest_liver)
    for path in cascade.store.files(CALIBRATION_NAME):
        calibration = Calibration.read(path, *settings.architectures)
        if calibration is not None and calibration.is_of(models, ran):
            return calibration.interval(evidence)
    also = f" --also {','.join(settings.architectures[1:])}" if settings.also else ""
    return uncalibrated(
        evidence, f"there is no calibration of these models, run in this way (flrplan calibrate{also} makes one)"
    )


def _mask(mask: PathLike | NDArray[Any], ct: CT, name: Structure | str) -> Mask:
    """The given mask of a structure, or of what has only a name."""
    if isinstance(mask, str | os.PathLike):
        if isinstance(name, Structure):
            return read_mask(Path(mask), ct, name)
        array, geometry = read_label_map(Path(mask))
        require_same_grid(ct.geometry, geometry, ct.source, str(mask))
        return binary_mask(array, name, str(mask))
    return binary_mask(_array(mask, ct, name), name, f"the given {name}")


def _segment_map(given: PathLike | NDArray[Any], ct: CT) -> NDArray[np.uint8]:
    """The given map of liver segments, on the CT's grid."""
    if isinstance(given, str | os.PathLike):
        return read_segment_map(Path(given), ct)
    return checked_segment_map(_array(given, ct, "liver_segments"), _GIVEN_SEGMENTS)


def _array(given: NDArray[Any], ct: CT, name: Structure | str) -> NDArray[Any]:
    """A given array as numbers of the CT's shape."""
    require_unmasked(given, f"the given {name}")
    array = np.array(given)  # a copy: what becomes of the caller's array is not the plan's
    if array.dtype.kind not in "biuf":
        raise LabelError(f"the given {name}: expected an array of bool or of numbers, found {array.dtype}")
    if array.dtype.kind == "f":
        require_finite(count_non_finite(array), array.size, f"the given {name}")
    if array.shape != ct.geometry.shape_zyx:
        raise GridError(f"case {ct.name}: the given {name} has shape {array.shape}, the CT {ct.geometry.shape_zyx}")
    return array


def asked_also(settings: CascadeSettings) -> list[str] | None:
    """The second opinions as an option of :func:`request_of`; None where there are none."""
    return [*settings.architectures[1:]] or None


def options_of(plane: Plane | None, **options: Any) -> dict[str, Any]:
    """Options of :func:`request_of`: those of :func:`plan` by name, None where nothing is asked, and the cut where it is a plane."""
    return {**options, "plane": None if plane is None else [*plane.point_lps_mm, *plane.normal_lps]}


def request_of(ct: Path, files: Mapping[str, Path], options: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for one case: files, with size and time, and options, so that a plan of others is never taken for it."""

    def stamp(file: Path) -> list[object]:
        parts = [p for p in (files_below(file) if file.is_dir() else [file]) if p.is_file()]  # a link to nothing is none
        return [
            str(file.resolve()),
            sum(p.stat().st_size for p in parts),
            max((p.stat().st_mtime_ns for p in parts), default=0),
        ]

    return {"ct": stamp(ct), **{str(name): stamp(file) for name, file in files.items()}, "options": dict(options)}


def is_planned(folder: Path, request: Mapping[str, Any], cascade: Cascade) -> bool:
    """True if the folder holds the plan of this request by these models. Raises SettingsError where it holds another one's."""
    report = folder / REPORT_NAME
    if not report.is_file():
        return False
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        before = content.get("request")
        models = {s: ModelIdentity.from_json(m).decides for s, m in content.get("models", {}).items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        before, models = None, {}
    # 0.1.0 names no options, and knew no other plan than the raw one.
    if "options" in request:
        before = {"options": {**dict.fromkeys(request["options"]), "raw": True}, **(before or {})}
    before = before or {}
    asked = {f"{FLR}/{name}" for name in cascade.settings.also}
    now = {"models": {s: _identity(cascade, s).decides for s in models if "/" not in s or s in asked}, **request}
    remedy = "use another --out, or --force to replace it"
    require_same({"models": models, **before}, now, f"{folder}: the plan there", remedy)
    return True


def _identity(cascade: Cascade, place: str) -> ModelIdentity:
    """Which model serves a stage, or gives the second opinion ``<stage>/<architecture>``."""
    stage, _, opinion = place.partition("/")
    return (cascade.second_opinion(opinion) if opinion else cascade).identity(stage_named(stage))
