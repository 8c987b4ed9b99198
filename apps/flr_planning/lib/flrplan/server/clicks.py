"""The tasks that correct a plan by clicks (OHIF's point prompts, 3D Slicer's SmartEdit) and by strokes (3D Slicer's scribbles)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray
from scipy import ndimage

from flrplan import __version__
from flrplan.anatomy import PLANNED, Compartment, Structure, decode_layers, label_name, structure_mask, to_compartments
from flrplan.api.run_plan import run_plan
from flrplan.clicks import BACKGROUND, SAYS, Marks, MarkSet, correct, points_of
from flrplan.engine import Cascade, CascadeSettings
from flrplan.errors import FlrError, LabelError
from flrplan.image import CT, read_ct
from flrplan.image.segmentation import NO_LABELS, read_segmentation
from flrplan.method import Probability
from flrplan.planning import measure_volumes
from flrplan.server.annotations import stored_label
from flrplan.server.answer import models_said, present
from flrplan.server.current import Current, current_of, image_stamp_of
from flrplan.server.doors import is_own_file
from flrplan.server.host import IMAGE_ID, image_path
from flrplan.server.infer import Service
from flrplan.server.label_table import COMPARTMENT_NAMES, label_colors
from flrplan.server.ohif_clicks import CLICKS
from flrplan.server.options import one_of
from flrplan.server.result_file import ResultFormat, write_result

STROKES = "strokes"
FOREGROUND = "foreground"
INSIDE, OUTSIDE = "foreground_scribbles", "background_scribbles"
"""3D Slicer's segments of strokes."""
_NAMES = ", ".join(SAYS)
CLICKED = {Compartment.REMNANT.label_name: 1, Compartment.RESECTION.label_name: 2, "crlm": 3, "liver": 5}
"""What OHIF offers to click. The values are no label's: its panel maps by them, and none may be taken for another compartment's."""


class Start(StrEnum):
    """Which plan is corrected. ``last``: the client's last answer, or its label if that is newer; where there is neither, a prediction."""

    LAST = "last"
    LABEL = "label"
    PREDICTION = "prediction"


class Answer(StrEnum):
    """What strokes are answered with: the painted segment alone, which is what 3D Slicer takes, or the whole plan."""

    SEGMENT = "segment"
    PLAN = "plan"


class _CorrectTask(InferTask):  # type: ignore[misc]  # monailabel is untyped
    """What both tasks share: the plan that is corrected, the correction, and the answer."""

    def __init__(
        self, kind: InferType, labels: Mapping[str, int], description: str, config: Mapping[str, list[str]], service: Service
    ) -> None:
        super().__init__(
            type=kind, labels=dict(labels), dimension=3, description=description, config={"start": list(Start), **config}
        )
        self._service = service

    def is_valid(self) -> bool:
        """Always: a label can be corrected without a model."""
        return True

    def _current(self, request: Mapping[str, Any], path: Path) -> tuple[Current, list[str]]:
        """The plan that is to be corrected, predicted where there is none; and what must be known of it."""
        service, image_id = self._service, request.get(IMAGE_ID)
        start = Start(one_of(request, "start", list(Start)))
        held, image_stamp, notes = service.current.of(request, path), image_stamp_of(path), list[str]()
        if held is None or held.image_stamp != image_stamp:
            ct = read_ct(path)
            if held is not None and ct.geometry == held.ct.geometry and np.array_equal(ct.array_zyx, held.ct.array_zyx):
                held = replace(held, ct=ct, image_stamp=image_stamp)  # linked, copied or renamed, and the same image
            elif held is not None:
                held = None
                notes.append("the image was replaced after your last answer, so that answer is not what is corrected")
        else:
            ct = held.ct
        stamp = None if image_id is None else service.datastore.label_stamp(image_id)
        if start is Start.LAST and held is not None and held.label_stamp == stamp:
            return held, []
        label, came_from = None, "the prediction"
        if start is Start.LABEL or (start is Start.LAST and stamp is not None):
            try:
                tag, label = stored_label(service.datastore, image_id, ct, f"start={start.value}")
                came_from = f"the {tag} label"
            except FlrError as error:
                if start is Start.LABEL:
                    raise
                notes.append(f"{error}; the prediction is corrected")
        given = {} if label is None else {s: m for s, m in label.masks.items() if s in PLANNED}
        lacking = [s.value for s in PLANNED if s not in given]
        if label is not None and lacking:
            notes.append(f"{came_from} does not state {' and '.join(lacking)}: predicted")
        own = service.settings
        cascade = Cascade(
            service.store, CascadeSettings(own.architecture, own.device, own.mirroring, own.largest_liver, own.engine)
        )
        probabilities: dict[Structure, Probability] = {}
        plan = run_plan(cascade, ct, given, on_probability=probabilities.__setitem__)
        found = current_of(plan, probabilities, models_said(plan.result), image_stamp, stamp)
        if found is None:
            raise LabelError(f"there is no plan of {ct.name} to correct; run cascade first")
        if held is not None and found.probability is None:
            found = replace(found, probability=held.probability)
        return replace(found, came_from=came_from), notes

    def _corrected(self, current: Current, marks: Mapping[Structure, Marks]) -> tuple[Current, list[str], dict[str, float]]:
        """The plan after marks, what must be known of them, and what changed [ml]."""
        if not marks:
            return current, [], {}
        before = current.masks
        found = correct(before, current.ct.array_zyx, current.ct.geometry, marks, current.probability)
        label, _ = to_compartments(*(found.masks[s] for s in PLANNED))
        ml = current.ct.geometry.voxel_volume_ml
        changed = {s.value: round(float(np.count_nonzero(before[s] != found.masks[s])) * ml, 3) for s in PLANNED}
        notes = list(found.notes)
        if not any(changed.values()) and not notes:
            notes.append("nothing changed: the label already agrees with every mark; click where it is wrong")
        return replace(current, label_zyx=label), notes, changed

    def _params(
        self,
        current: Current,
        label_zyx: NDArray[np.uint8],
        names: Mapping[str, int],
        changed: Mapping[str, float],
        notes: list[str],
        started: float,
    ) -> dict[str, Any]:
        return {
            "label_names": dict(names),
            "labels_present": present(label_zyx, names),
            "label_colors": label_colors(names),
            "volumes": measure_volumes(current.label_zyx, current.ct.geometry.voxel_volume_ml).to_json(),
            "changed_ml": dict(changed),
            "corrected": current.came_from,
            **current.said,
            "warnings": notes,
            "seconds": {"total": round(perf_counter() - started, 3)},
            "software": f"flrplan {__version__}",
        }


class ClicksTask(_CorrectTask):
    """Clicks: ``{"crlm": [[i, j, k], ...], "background": [...]}``, or ``foreground`` and ``background`` of one ``label``."""

    def __init__(self, service: Service) -> None:
        super().__init__(
            InferType.DEEPEDIT, CLICKED, "the plan, corrected by clicks; it is predicted where there is none yet", {}, service
        )

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Path of the planning map and its params. Raises FlrError, whose message is meant for the user."""
        wanted = ResultFormat.from_request(request)
        started = perf_counter()
        points = _points(request)
        with self._service.lock:
            path = image_path(request, self._service.datastore)
            current, notes = self._current(request, path)
            marks, meant = _marks(points, request.get("label"), current)
            found, said, changed = self._corrected(current, marks)
            found = replace(found, meant={**current.meant, **meant})
            if not marks:
                said = ["no clicks were sent, so the plan is as it was; choose a label and click in the image"]
            self._service.current.keep(request, path, found)
            file = write_result(found.label_zyx, found.ct.geometry, COMPARTMENT_NAMES, wanted)
        return str(file), self._params(found, found.label_zyx, COMPARTMENT_NAMES, changed, [*notes, *said], started)


class StrokesTask(_CorrectTask):
    """Strokes: a label map with 3D Slicer's two segments of scribbles beside what is drawn, and ``selected_label_name``."""

    def __init__(self, service: Service) -> None:
        config = {"answer": [a.value for a in Answer]}
        super().__init__(
            InferType.SCRIBBLES, CLICKED, "one segment, corrected by strokes inside and outside of it", config, service
        )

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Path of the label file and its params. Raises FlrError, whose message is meant for the user."""
        wanted = ResultFormat.from_request(request)
        whole = one_of(request, "answer", list(Answer)) == Answer.PLAN
        started = perf_counter()
        name = label_name(str(request.get("selected_label_name") or ""))
        if name not in SAYS:
            raise LabelError(f"selected_label_name: expected the segment that is painted, one of {_NAMES}; got {name!r:.80}")
        with self._service.lock:
            path = image_path(request, self._service.datastore)
            current, notes = self._current(request, path)
            drawn, inside, outside = _strokes(request, current.ct)
            if drawn is None:
                notes.append(f"the segments that were sent state no whole plan, so {current.came_from} is corrected")
            else:
                current = replace(current, label_zyx=drawn, came_from="the segments that were sent")
            marks = MarkSet(drawn.shape if drawn is not None else current.label_zyx.shape)
            marks.add_named(name, inside)
            marks.deny(name, outside)
            found, said, changed = self._corrected(current, marks.checked())
            self._service.current.keep(request, path, found)
            label, names = (found.label_zyx, COMPARTMENT_NAMES) if whole else (_segment(found.label_zyx, name), {name: 1})
            file = write_result(label, found.ct.geometry, names, wanted)
        return str(file), self._params(found, label, names, changed, [*notes, *said], started)


def click_tasks(service: Service) -> dict[str, _CorrectTask]:
    """Both tasks by name."""
    return {CLICKS: ClicksTask(service), STROKES: StrokesTask(service)}


def _points(request: Mapping[str, Any]) -> dict[str, Any]:
    """The lists of points in a request, by name, not yet checked. Raises: LabelError for names that are no label's."""
    found: dict[str, Any] = {}
    for key, value in request.items():
        name = label_name(key)
        if name in SAYS or key in (BACKGROUND, FOREGROUND):
            if isinstance(value, str):
                try:
                    value = json.loads(value or "[]")
                except (ValueError, RecursionError):
                    raise LabelError(f"{key}: expected voxels as [[column, row, slice], ...], got {value!r:.80}") from None
            name = name if name in SAYS else key
            value = [] if value is None else value
            both = isinstance(value, list) and isinstance(found.get(name), list)  # "CRLM" beside "crlm"
            found[name] = [*found[name], *value] if both else value
        elif isinstance(value, list) and value and isinstance(value[0], list):
            chosen = (
                "no label was chosen: choose one in the list, then click" if key == "null" else f"{key!r:.80} is no label here"
            )
            raise LabelError(f"{chosen}; known are {_NAMES} and {BACKGROUND}")
    return found


def _marks(
    points: Mapping[str, Any], label: Any, current: Current
) -> tuple[dict[Structure, Marks], dict[tuple[int, ...], Structure]]:
    """Marks of points, and what each click on the background was taken to be outside of.

    A click on the background is outside of ``label`` where ``foreground`` goes with it; else of a metastasis that is there; else of what the
    nearest other click names; else of ``label``, and of metastases where there is none. What it once was, it stays.
    """
    shape = current.label_zyx.shape
    voxels = {name: points_of(given, name, shape) for name, given in points.items()}
    named = label_name(label) if isinstance(label, str) else ""
    marks = MarkSet(shape)
    if FOREGROUND in voxels:
        if named and named not in SAYS:
            raise LabelError(f"label={label!r:.80} is no label here; known are {_NAMES}")
        marks.add_named(named or Structure.CRLM.value, voxels[FOREGROUND])
        marks.deny(named or Structure.CRLM.value, voxels.get(BACKGROUND, voxels[FOREGROUND][:0]))
        for name in voxels.keys() & SAYS.keys():
            marks.add_named(name, voxels[name])
        return marks.checked(), {}
    for name in voxels.keys() & SAYS.keys():
        marks.add_named(name, voxels[name])
    clicked = {SAYS[name][0][0]: voxels[name] for name in voxels.keys() & SAYS.keys() if len(voxels[name])}
    otherwise = SAYS[named][0][0] if named in SAYS else Structure.CRLM
    tumour = [int(Compartment.CRLM_IN_RESECTION), int(Compartment.CRLM_IN_REMNANT)]
    meant = {}
    for voxel in voxels.get(BACKGROUND, ()):
        key = tuple(int(n) for n in voxel)
        if key in current.meant:
            structure = current.meant[key]
        elif current.label_zyx[key] in tumour:
            structure = Structure.CRLM
        elif clicked:
            spacing = current.ct.geometry.spacing_zyx_mm
            away = {s: np.linalg.norm((v - voxel) * spacing, axis=1).min() for s, v in clicked.items()}
            structure = min(away, key=lambda s: away[s])
        else:
            structure = otherwise
        meant[key] = structure
        marks.add(structure, False, voxel[None])
    return marks.checked(), meant


def _strokes(request: Mapping[str, Any], ct: CT) -> tuple[NDArray[np.uint8] | None, NDArray[np.intp], NDArray[np.intp]]:
    """The planning map that was sent beneath strokes, or None where it states no whole plan; and the strokes inside and outside."""
    file = request.get("label")
    if not isinstance(file, str) or not is_own_file(file, None):
        raise LabelError("no strokes were sent: send the label map as the form's file 'label', with its names in label_info")
    held = read_segmentation(Path(file)).on(ct.geometry, ct.source)
    names = list(held.names) if held.names is not None else [_names_of(request.get("label_info"))]
    strokes = {}
    layers = []
    for layer, of in zip(held.layers, names, strict=True):
        painted = np.zeros(layer.shape, np.bool_)
        for name in (INSIDE, OUTSIDE):
            if name in of:
                own = layer == of[name]
                strokes[name] = np.argwhere(own)
                painted |= own
        kept = {n: v for n, v in of.items() if n not in NO_LABELS}
        layers.append((_filled(np.where(np.isin(layer, list(kept.values())) | painted, layer, 0), painted), kept))
    inside, outside = (strokes.get(name, np.zeros((0, 3), np.intp)) for name in (INSIDE, OUTSIDE))
    if not len(inside) and not len(outside):
        raise LabelError(f"there are no strokes: paint inside with {INSIDE} or outside with {OUTSIDE}, then update again")
    try:
        masks = decode_layers([layer for layer in layers if layer[1]], "the label beneath the strokes").masks
    except LabelError:
        return None, inside, outside
    if not all(s in masks for s in PLANNED) or not masks[Structure.LIVER].any():
        return None, inside, outside
    return to_compartments(*(masks[s] for s in PLANNED))[0], inside, outside


def _filled(layer: NDArray[Any], painted: NDArray[np.bool_]) -> NDArray[Any]:
    """A label map in which strokes hide what is beneath: there the nearest value beside them is taken."""
    if not painted.any():
        return layer
    box = tuple(slice(max(0, cut.start - 5), cut.stop + 5) for cut in ndimage.find_objects(painted.view(np.uint8))[0])
    if painted[box].all():
        return np.asarray(np.where(painted, 0, layer))
    nearest = ndimage.distance_transform_edt(painted[box], return_distances=False, return_indices=True)
    layer = layer.copy()
    layer[box] = layer[box][tuple(nearest)]
    return layer


def _names_of(info: Any) -> dict[str, int]:
    """3D Slicer's ``label_info`` of strokes, ``[{"name": .., "id": ..}]``. Raises: LabelError."""
    try:
        return {
            entry["name"] if entry["name"] in NO_LABELS else label_name(entry["name"]): int(entry.get("id", entry.get("idx")))
            for entry in info
        }
    except (TypeError, KeyError, ValueError, AttributeError):
        raise LabelError(
            f'label_info: expected the names in the label map as [{{"name": "{INSIDE}", "id": 1}}, ...], got {info!r:.80}'
        ) from None


def _segment(label_zyx: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """The mask of one structure or compartment as 0 and 1."""
    if name in COMPARTMENT_NAMES:
        return np.asarray(label_zyx == COMPARTMENT_NAMES[name], np.uint8)
    return structure_mask(label_zyx, Structure(name)).astype(np.uint8)
