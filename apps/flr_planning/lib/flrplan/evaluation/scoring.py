"""Scores every prediction of one case, and the baselines, against its truth. Runs in a worker process, one case at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar

from flrplan.anatomy import Mask, Structure
from flrplan.evaluation.baselines import (
    CRLM_COLUMN,
    LIVER_COLUMN,
    ORIGINAL,
    TRUTH_BASELINES,
    predicted_baselines,
)
from flrplan.evaluation.columns import COLUMNS, REQUIRED, Column, Part
from flrplan.evaluation.inputs import CaseFiles, Gap
from flrplan.evaluation.probabilities import ProbabilityRow, probability_row, read_probabilities
from flrplan.evaluation.reading import UNREADABLE, read_binary, slice_spacing_mm
from flrplan.evaluation.rows import COMPONENTS, INSTANCES, CaseResult, LesionRow, Row
from flrplan.evaluation.trivial_plans import Plane
from flrplan.image import Geometry, require_same_grid
from flrplan.method import Inputs
from flrplan.metrics import Region, Scores, Undefined, score_mask
from flrplan.metrics.lesions import IOU_THRESHOLDS, LesionMatching, iou_key, lesions_of
from flrplan.metrics.volume import flr_percent
from flrplan.workfolder import TRUTH

Regions = Mapping[Structure, Region]
Result = TypeVar("Result")
Predicted = dict[tuple[str, str], Region]


def score_case(files: CaseFiles, planes: Mapping[int | None, Plane] = MappingProxyType({})) -> CaseResult:
    """All rows of one case. A broken file becomes a gap with its message; what depends on it is left out, the rest is scored.

    planes: the fixed plane by fold, and of held-out cases (None). Reads each file once; the truth's surfaces are computed once. Memory: the truth and one whole prediction at a time, the
    others only as crops.
    """
    try:
        targets = (COLUMNS[column].target for _, column in files.predictions)
        masks, geometry = files.label.read(tuple(dict.fromkeys((*TRUTH, *targets))), files.case)
    except UNREADABLE as error:
        return CaseResult(gaps=(Gap("broken label", str(files.label.first), files.case, _one_line(error)),))
    truth = {structure: Region.of(mask, geometry.spacing_zyx_mm) for structure, mask in masks.items()}
    case = _Case(files, truth, geometry, planes.get(files.fold))
    case.read_lesions(masks[Structure.CRLM])
    del masks
    case.read_predictions()
    case.read_original()
    case.read_probabilities()
    return case.result()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Case:
    """One case while it is scored."""

    def __init__(self, files: CaseFiles, truth: Regions, geometry: Geometry, plane: Plane | None) -> None:
        self.files = files
        self.truth = truth
        self.geometry = geometry
        self.plane = plane
        self.slice_spacing = slice_spacing_mm(geometry)
        self.diagonal_mm = math.hypot(*(n * mm for n, mm in zip(geometry.shape_zyx, geometry.spacing_zyx_mm, strict=True)))
        liver, crlm = truth[Structure.LIVER], truth[Structure.CRLM]
        percent = flr_percent(liver, crlm, truth[Structure.FLR])
        self.flr_percent = math.nan if percent is None else percent
        self.tumour_percent = 100.0 * crlm.voxels / liver.voxels if liver.voxels else math.nan
        self.lesions: dict[int, Region] = {}
        self.lesions_from = INSTANCES
        self.predicted: Predicted = {}
        self.original: Regions = {}
        self.probabilities: list[ProbabilityRow] = []
        self.gaps: list[Gap] = []

    def read_lesions(self, crlm: Mask) -> None:
        """The lesions of the truth: its instances, else its components; instances that cannot be used become a gap."""
        label = self.files.label
        try:
            lesions = label.read_lesions(crlm, self.geometry)
        except UNREADABLE as error:
            lesions = None
            self.gaps.append(Gap("broken instances", str(label.instances[0].parent), self.files.case, _one_line(error)))
        if lesions is None:
            self.lesions_from = COMPONENTS
            lesions = dict(enumerate(lesions_of(self.truth[Structure.CRLM]), 1))
        self.lesions = lesions

    def read_predictions(self) -> None:
        """Reads every prediction of the case as a region; a broken one becomes a gap."""
        name, geometry = str(self.files.label.first), self.geometry
        for (architecture, column), path in self.files.predictions.items():
            try:
                mask, _ = read_binary(path, geometry, name)
            except UNREADABLE as error:
                where = f"{architecture}/{column}"
                self.gaps.append(Gap("broken prediction", where, self.files.case, _one_line(error)))
                continue
            self.predicted[architecture, column] = Region.of(mask, geometry.spacing_zyx_mm)

    def read_original(self) -> None:
        """Reads the original labels of the case, where they are asked for; broken ones become a gap."""
        files = self.files.original
        if files is None:
            return
        try:
            masks, found = files.read(TRUTH, self.files.case)
            require_same_grid(self.geometry, found, str(self.files.label.first), str(files.first))
        except UNREADABLE as error:
            self.gaps.append(Gap("broken original label", str(files.first), self.files.case, _one_line(error)))
            return
        self.original = {structure: Region.of(mask, found.spacing_zyx_mm) for structure, mask in masks.items()}

    def read_probabilities(self) -> None:
        """Scores the saved probabilities one after the other; those that are broken or another mask's become a gap."""
        for key, path in self.files.probabilities.items():
            if key not in self.predicted:
                continue  # its prediction is broken, which is a gap already
            try:
                values = read_probabilities(path, self.predicted[key], self.geometry, str(self.files.label.first))
            except UNREADABLE as error:
                self.gaps.append(Gap("broken probabilities", "/".join(key), self.files.case, _one_line(error)))
                continue
            column = COLUMNS[key[1]]
            seen: Region | None = self.truth[Structure.LIVER]
            if column.inputs is Inputs.CASCADED:
                seen = self.predicted.get((key[0], LIVER_COLUMN))
            lesions = list(self.lesions.values())
            self.probabilities.append(probability_row(self.files, key, values, self.truth[column.target], lesions, seen))

    def result(self) -> CaseResult:
        """Scores everything that was read."""
        rows, lesions = [], []
        for (architecture, name), region in self.predicted.items():
            scores = self._score(architecture, COLUMNS[name], region, self._given(architecture, COLUMNS[name]))
            rows.append(self._row(architecture, COLUMNS[name], scores))
            if scores.lesions is not None:
                lesions += list(self._lesion_rows(architecture, name, scores.lesions))
        return CaseResult(
            tuple(rows),
            tuple(self._baselines()),
            tuple(lesions),
            tuple(self.probabilities),
            tuple(self.gaps),
            tuple(self._original_rows()),
        )

    def _given(self, architecture: str, column: Column) -> Region | Undefined | None:
        """The region inside which the model of a column looked: of the truth, or what the cascade itself predicted."""
        if column.stage.region is None:
            return None
        if column.inputs is Inputs.CASCADED:
            return self.predicted.get((architecture, LIVER_COLUMN), Undefined.NO_GIVEN_LIVER)
        return self.truth[column.stage.region]

    def _original_rows(self) -> Iterator[Row]:
        """The original labels as one more rater: a liver, its tumours and its FLR, beside every column of those."""
        if not self.original:
            return
        for column in self._open_columns(map(COLUMNS.__getitem__, REQUIRED[self.files.part])):
            if column.target in self.original:
                own = self.original
                yield self._row(ORIGINAL, column, self._against_truth(column, own[column.target], own, own[Structure.LIVER]))

    def _score(self, architecture: str | None, column: Column, region: Region, given: Region | Undefined | None) -> Scores:
        """The scores. The FLR% is of the true liver and CRLM; beside it, where ``architecture`` predicted both, of its own."""
        own = {s: self.predicted.get((architecture or "", name)) for s, name in column.own_masks.items()}
        known = {structure: mask for structure, mask in own.items() if mask is not None}
        return self._against_truth(column, region, known if len(known) == len(own) else None, given)

    def _against_truth(self, column: Column, region: Region, own: Regions | None, given: Region | Undefined | None) -> Scores:
        return score_mask(column.target, self.truth, region, own, given, list(self.lesions.values()))

    def _row(self, architecture: str, column: Column, scores: Scores) -> Row:
        reasons = {name: str(reason) for name, reason in scores.reasons.items()}
        place = (self.files.case, self.files.fold, architecture, column.name)
        facts = (self.slice_spacing, len(self.lesions), self.diagonal_mm)
        of_truth = (self.tumour_percent, self.flr_percent)
        return Row(*place, *facts, scores.values, reasons, *of_truth, self.lesions_from)

    def _lesion_rows(self, architecture: str, column: str, matching: LesionMatching) -> Iterator[LesionRow]:
        matched = {iou_key(t): matching.matched(t) for t in IOU_THRESHOLDS}
        lowest = matched[iou_key(min(IOU_THRESHOLDS))]
        sides = (("reference", 1, matching.reference_diameters_mm), ("prediction", 2, matching.prediction_diameters_mm))
        for side, place, diameters in sides:
            iou_of = {pair[place]: pair[0] for pair in lowest}
            is_reference = side == "reference"
            numbers = list(self.lesions) if is_reference else range(1, len(diameters) + 1)
            for k, diameter in enumerate(diameters):
                found = {key: any(pair[place] == k for pair in pairs) for key, pairs in matched.items()}
                ids = (self.files.case, self.files.fold, architecture, column)
                facts = (numbers[k], is_reference and matching.covered[k])
                yield LesionRow(*ids, side, diameter, float(iou_of.get(k, 0.0)), found, *facts)

    def _baselines(self) -> Iterator[Row]:
        liver, crlm = self.truth[Structure.LIVER], self.truth[Structure.CRLM]
        for baseline in TRUTH_BASELINES:
            region = baseline.rule.remnant(liver, crlm, self.geometry, self.plane)
            if region is not None:
                scored = self._score(None, baseline.columns[0], region, liver)  # the same in each of its columns
                yield from (self._row(baseline.name, column, scored) for column in self._open_columns(baseline.columns))
        for (architecture, column), own_liver in self.predicted.items():
            if column != LIVER_COLUMN:
                continue
            own_crlm = self.predicted.get((architecture, CRLM_COLUMN))
            for own in predicted_baselines(architecture):
                region = own.rule.remnant(own_liver, own_crlm, self.geometry, self.plane)
                if region is not None:
                    for open_column in self._open_columns(own.columns, architecture):
                        yield self._row(own.name, open_column, self._score(architecture, open_column, region, own_liver))

    def _open_columns(self, columns: Iterable[Column], architecture: str | None = None) -> Iterator[Column]:
        """Of the columns those that the case's part has, cascaded ones of the cross-validation where ``architecture`` has them.

        The paper has none there; none is opened for a baseline alone, and none of a stage beside the paper's that nobody predicted.
        """
        for column in columns:
            if not column.is_papers:
                is_open = any(name == column.name for _, name in self.predicted)
            else:
                optional = self.files.part is Part.CV and column.inputs is Inputs.CASCADED
                is_open = not optional or (architecture, column.name) in self.predicted
            if is_open:
                yield column
