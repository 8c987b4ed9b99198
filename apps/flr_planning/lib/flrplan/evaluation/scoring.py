"""Scores every prediction of one case, and the baselines, against its truth. Runs in a worker process, one case at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from flrplan.errors import FlrError, OutputError
from flrplan.evaluation.baselines import LIVER_COLUMN, TRUTH_BASELINES, Baseline, predicted_liver_baseline
from flrplan.evaluation.columns import COLUMNS, Column, Part, cascade_context
from flrplan.evaluation.inputs import CaseFiles, Gap
from flrplan.evaluation.reading import read_binary, read_truth, slice_spacing_mm
from flrplan.evaluation.rows import CaseResult, LesionRow, Row
from flrplan.geometry import Geometry
from flrplan.labels import Structure
from flrplan.metrics import Region, Scores, score_mask
from flrplan.metrics.lesions import IOU_THRESHOLDS, LesionMatching, components, iou_key

UNREADABLE = (FlrError, OSError, RuntimeError)
"""What a broken file raises; SimpleITK's own errors are RuntimeErrors."""

Regions = Mapping[Structure, Region]
Predicted = dict[tuple[str, str], Region]


def score_case(files: CaseFiles) -> CaseResult:
    """All rows of one case. A broken file becomes a gap with its message; what depends on it is left out, the rest is scored.

    Reads each file once; the truth's surfaces are computed once. Memory: the truth and one whole prediction at a time, the
    others only as crops.
    """
    try:
        masks, geometry = read_truth(files.label, files.case)
    except UNREADABLE as error:
        return CaseResult(gaps=(Gap("broken label", str(files.label.first), files.case, _one_line(error)),))
    truth = {structure: Region.of(mask, geometry.spacing_zyx_mm) for structure, mask in masks.items()}
    del masks
    case = _Case(files, truth, slice_spacing_mm(geometry))
    case.read_predictions(geometry)
    return case.result()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Case:
    """One case while it is scored."""

    def __init__(self, files: CaseFiles, truth: Regions, slice_spacing: float) -> None:
        self.files = files
        self.truth = truth
        self.slice_spacing = slice_spacing
        grid = truth[Structure.LIVER]
        self.diagonal_mm = math.hypot(*(n * mm for n, mm in zip(grid.grid_shape_zyx, grid.spacing_zyx_mm, strict=True)))
        self.tumours = len(components(truth[Structure.CRLM])[1])
        self.predicted: Predicted = {}
        self.gaps: list[Gap] = []

    def read_predictions(self, geometry: Geometry) -> None:
        """Reads every prediction of the case as a region; a broken one becomes a gap."""
        name = str(self.files.label.first)
        for (architecture, column), path in self.files.predictions.items():
            try:
                mask, _ = read_binary(path, geometry, name)
            except UNREADABLE as error:
                where = f"{architecture}/{column}"
                self.gaps.append(Gap("broken prediction", where, self.files.case, _one_line(error)))
                continue
            self.predicted[architecture, column] = Region.of(mask, geometry.spacing_zyx_mm)

    def result(self) -> CaseResult:
        """Scores everything that was read."""
        rows, lesions = [], []
        for (architecture, name), region in self.predicted.items():
            scores, source = self._score(architecture, COLUMNS[name], region)
            rows.append(self._row(architecture, COLUMNS[name], scores, source))
            if scores.lesions is not None:
                lesions += list(self._lesion_rows(architecture, name, scores.lesions))
        return CaseResult(tuple(rows), tuple(self._baselines()), tuple(lesions), tuple(self.gaps))

    def _score(self, architecture: str | None, column: Column, region: Region) -> tuple[Scores, str]:
        """The scores, and in words which liver and CRLM the prediction's FLR% was taken of."""
        context = {
            structure: self.predicted[architecture, name]
            for structure, name in cascade_context(column).items()
            if architecture is not None and (architecture, name) in self.predicted
        }
        source = ""
        if column.target is Structure.FLR:
            own, given = [str(s) for s in context], [str(s) for s in (Structure.LIVER, Structure.CRLM) if s not in context]
            parts = [f"predicted {' and '.join(own)}"] * bool(own) + [f"reference {' and '.join(given)}"] * bool(given)
            source = ", ".join(parts)
        return score_mask(column.target, self.truth, region, context), source

    def _row(self, architecture: str, column: Column, scores: Scores, source: str) -> Row:
        reasons = {name: str(reason) for name, reason in scores.reasons.items()}
        facts = (self.slice_spacing, self.tumours, self.diagonal_mm)
        return Row(self.files.case, self.files.fold, architecture, column.name, *facts, scores.values, reasons, source)

    def _lesion_rows(self, architecture: str, column: str, matching: LesionMatching) -> Iterator[LesionRow]:
        matched = {iou_key(t): matching.matched(t) for t in IOU_THRESHOLDS}
        lowest = matched[iou_key(min(IOU_THRESHOLDS))]
        sides = (("reference", 1, matching.reference_diameters_mm), ("prediction", 2, matching.prediction_diameters_mm))
        for side, place, diameters in sides:
            iou_of = {pair[place]: pair[0] for pair in lowest}
            for k, diameter in enumerate(diameters):
                found = {key: any(pair[place] == k for pair in pairs) for key, pairs in matched.items()}
                ids = (self.files.case, self.files.fold, architecture, column)
                yield LesionRow(*ids, side, diameter, float(iou_of.get(k, 0.0)), found)

    def _baselines(self) -> Iterator[Row]:
        liver, crlm = self.truth[Structure.LIVER], self.truth[Structure.CRLM]
        without = _without(liver, crlm)
        for baseline, region in zip(TRUTH_BASELINES, (liver, without), strict=True):
            scored = self._score(None, baseline.columns[0], region)  # against the truth it is the same in each of its columns
            yield from (self._row(baseline.name, column, *scored) for column in self._open_columns(baseline))
        for (architecture, column), region in self.predicted.items():
            if column == LIVER_COLUMN:
                own = predicted_liver_baseline(architecture)
                for open_column in self._open_columns(own):
                    yield self._row(own.name, open_column, *self._score(architecture, open_column, region))

    def _open_columns(self, baseline: Baseline) -> Iterator[Column]:
        """The columns of a baseline that the case's part has, cascaded ones of the cross-validation where its architecture has them.

        The paper has none there; none is opened for a baseline alone.
        """
        for column in baseline.columns:
            optional = self.files.part is Part.CV and bool(cascade_context(column))
            if not optional or (baseline.architecture, column.name) in self.predicted:
                yield column


def _without(region: Region, other: Region) -> Region:
    """The voxels of one region that are not in the other."""
    crop = region.crop_zyx.copy()
    boxes = region.shared_box(other)
    if boxes is not None:
        crop[boxes[0]] &= ~other.crop_zyx[boxes[1]]
    left = Region.of(crop, region.spacing_zyx_mm)
    start = tuple(a + b for a, b in zip(region.start_zyx, left.start_zyx, strict=True))
    return Region(left.crop_zyx, (start[0], start[1], start[2]), region.grid_shape_zyx, region.spacing_zyx_mm, left.voxels)


def score_cases(cases: Iterable[CaseFiles], workers: int) -> Iterator[CaseResult]:
    """Results as they are ready, in any order; ``workers`` processes, each holding one case at a time."""
    listed = list(cases)
    if workers <= 1 or len(listed) <= 1:
        yield from map(score_case, listed)
        return
    # spawn: a forked child of a process in which SimpleITK has started threads can hang.
    with ProcessPoolExecutor(min(workers, len(listed)), mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(score_case, case) for case in listed]):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise OutputError(
                    f"a worker process was ended from outside (out of memory?) with {workers} workers; use --workers 1"
                ) from error
