"""From a CT, and the masks that are given, to its plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from flrplan.anatomy import PLANNED, Mask, Structure
from flrplan.api.anonymous import Anonymizer, anonymous_request, pseudonym
from flrplan.api.request import asked_also, options_of, request_of
from flrplan.api.run_plan import run_plan
from flrplan.engine import Cascade, CascadeSettings, NoteStep
from flrplan.errors import GridError, LabelError, SettingsError
from flrplan.image import CT, read_ct, read_label_map, read_mask, require_same_grid
from flrplan.image.dicom_files import first_image, is_dicom
from flrplan.image.finite import count_non_finite, require_finite, require_unmasked
from flrplan.image.hounsfield import check_grid
from flrplan.image.masks import binary_mask
from flrplan.method import Source
from flrplan.method.engine import APP_ENGINE
from flrplan.planning import COHERENT, Clinical, LiverState, Plan
from flrplan.planning.cut_file import Plane, read_cut, require_surface
from flrplan.planning.given import (
    NOT_ADVICE,
    at_least_percent,
    largest_resection,
    remnant_of_cut,
    remnant_of_masks,
    require_in_liver,
)
from flrplan.planning.meshes import Mesh
from flrplan.planning.patient import Patient, patient_of_header, read_prior
from flrplan.planning.segments import checked_segment_map, read_segment_map, segments_of

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
    _require_crlm_in_liver(given, given, image)
    planned = run_plan(cascade, image, given, on_step=on_step, raw=raw, disagreement=disagreement)
    _require_crlm_in_liver(given, planned.masks, image)
    if own:
        planned = _with_given(planned, of_own, surface, other_side, [frame_note] if frame_note else [])
    if wanted is not None:
        planned = _with_alternative(planned, wanted)
    if segment_map is not None:
        named = str(liver_segments) if isinstance(liver_segments, str | os.PathLike) else _GIVEN_SEGMENTS
        found = segments_of(segment_map, planned.masks[Structure.LIVER], planned.masks[Structure.CRLM], image.geometry, named)
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


def _require_crlm_in_liver(given: Mapping[Structure, Mask], masks: Mapping[Structure, Mask], image: CT) -> None:
    """Metastases of another CT would be none in this plan."""
    if Structure.CRLM in given and Structure.LIVER in masks:
        require_in_liver(given[Structure.CRLM], str(Structure.CRLM), masks[Structure.LIVER], image.geometry.voxel_volume_ml)


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
