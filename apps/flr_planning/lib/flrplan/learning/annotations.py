"""Annotators' labels as training cases: what a label holds decides which stages it can train; what is left out has a reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flrplan.anatomy import PlanningLabel, Structure
from flrplan.errors import FlrError, LabelError
from flrplan.image import CT, read_ct, write_label_map
from flrplan.method import STAGES, Stage
from flrplan.workfolder import IMAGE_SUFFIX, Case, TruthFiles

logger = logging.getLogger(__name__)

LEAST_CASES = 4
"""Fewest cases that train a stage: one is held out to compare the new model with the current one."""

_NO_LABEL = "no image has a final label, so nothing can be learned. Draw a structure, name it, and submit the label"
_USED = frozenset(s for stage in STAGES.values() for s in (*stage.needs, *stage.targets))


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with a final label somewhere: a file or DICOM folder, and how to read its label on the CT's grid.

    ``label`` returns None where there is none, and raises an FlrError where it cannot be used.
    ``patients``: the PatientID, where the image is DICOM; split files name patients, a DICOMweb server series.
    """

    case_id: str
    image: Path
    label: Callable[[CT], PlanningLabel | None]
    patients: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LeftOut:
    """A case that does not train, and why, in words for the annotator."""

    case_id: str
    reason: str


@dataclass(frozen=True)
class Annotation:
    """A case whose label could be read: its masks as files, and the voxels of each structure that the label holds."""

    case: Case
    voxels: Mapping[Structure, int]


@dataclass(frozen=True)
class StageCases:
    """The cases that can train one stage, sorted by id, and those that cannot. ``held_out``: ids that must never train."""

    stage: Stage
    cases: tuple[Annotation, ...]
    left_out: tuple[LeftOut, ...]
    held_out: frozenset[str] = frozenset()

    def require_enough(self) -> None:
        """Raises LabelError where too few cases can train the stage; it names every reason."""
        held = " and ".join(dict.fromkeys(s.value for s in (*self.stage.needs, self.stage.target)))
        if len(self.cases) < LEAST_CASES:
            raise LabelError(
                f"stage {self.stage}: {len(self.cases)} cases can train it, at least {LEAST_CASES} are needed (one is held out of training to "
                f"compare the new model with the current one). Draw {held} in more images and submit them as final labels. "
                f"{self.describe_left_out()}"
            )

    @property
    def showing(self) -> frozenset[str]:
        """Ids of the cases with voxels of the target."""
        return frozenset(a.case.case_id for a in self.cases if a.voxels[self.stage.target])

    def require_target(self, training: Collection[str]) -> None:
        """Raises LabelError where the target is empty in every case that trains: nothing could be learned."""
        if not self.showing & set(training):
            raise LabelError(
                f"stage {self.stage}: the target {self.stage.target} is empty in all {len(training)} cases that train; nothing can "
                "be learned. Label cases that show it"
            )

    def describe_left_out(self) -> str:
        """One sentence: how many are left out, which, and why."""
        if not self.left_out:
            return "No labelled image was left out."
        return f"Left out ({len(self.left_out)}): " + "; ".join(f"{e.case_id}: {e.reason}" for e in self.left_out)


@dataclass(frozen=True)
class Annotations:
    """Every labelled image of a datastore: readable ones as cases, the others with the reason.

    held_out: the ids of the split file, and those of the images that they hold out.
    """

    cases: tuple[Annotation, ...]
    left_out: tuple[LeftOut, ...]
    held_out: frozenset[str] = frozenset()

    def for_stage(self, stage: Stage) -> StageCases:
        """The cases whose labels hold what the stage takes and predicts. Absent is not empty: an empty CRLM trains."""
        used, out = [], list(self.left_out)
        for annotation in self.cases:
            reason = _unusable(annotation, stage)
            if reason is None:
                used.append(annotation)
            else:
                out.append(LeftOut(annotation.case.case_id, reason))
        return StageCases(stage, tuple(used), tuple(sorted(out, key=lambda entry: entry.case_id)), self.held_out)


def read_annotations(images: Iterable[AnnotatedImage], folder: Path, held_out: Collection[str] = ()) -> Annotations:
    """Reads every label once and writes its masks as ``<folder>/<case>/<structure>.nii.gz``.

    held_out: ids of images or patients that a split file calls ``test``; their files are not even opened.
    Raises: LabelError where there is no labelled image at all; OutputError where a mask cannot be written.
    """
    cases, out = [], []
    never = set(held_out)
    for image in sorted(images, key=lambda i: i.case_id):
        if _held_out_as(image, held_out):
            never.add(image.case_id)
        opened = _open(image, held_out)
        if isinstance(opened, LeftOut):
            out.append(opened)
        else:
            cases.append(_written(image, *opened, folder))
    if not cases and not out:
        raise LabelError(_NO_LABEL)
    for entry in out:
        logger.warning("left out: %s: %s", entry.case_id, entry.reason)
    return Annotations(tuple(cases), tuple(out), frozenset(never))


def require_enough_of(images: Iterable[AnnotatedImage], stages: Sequence[Stage], held_out: Collection[str] = ()) -> None:
    """Raises LabelError, which names every reason, unless one of the stages can be trained; reads no more labels than that takes."""
    cases, out = [], []
    for image in sorted(images, key=lambda i: i.case_id):
        opened = _open(image, held_out)
        if isinstance(opened, LeftOut):
            out.append(opened)
            continue
        cases.append(Annotation(Case(image.case_id, image.image, TruthFiles()), _voxels(opened[1])))
        found = Annotations(tuple(cases), tuple(out))
        if any(len(found.for_stage(stage).cases) >= LEAST_CASES for stage in stages):
            return
    if not cases and not out:
        raise LabelError(_NO_LABEL)
    reasons = []
    for stage in stages:
        try:
            Annotations(tuple(cases), tuple(out)).for_stage(stage).require_enough()
        except LabelError as error:
            reasons.append(str(error))
    raise LabelError(" ".join(reasons))


def _held_out_as(image: AnnotatedImage, held_out: Collection[str]) -> list[str]:
    return sorted(({image.case_id} | image.patients) & set(held_out))


def _open(image: AnnotatedImage, held_out: Collection[str]) -> tuple[CT, PlanningLabel] | LeftOut:
    """The CT and its label, or why it cannot train; of one that is held out no file is opened."""
    if names := _held_out_as(image, held_out):
        known_as = "" if image.case_id in names else f" (PatientID {names[0]})"
        return LeftOut(image.case_id, f"held out by the split file{known_as}")
    try:
        ct = read_ct(image.image)
        for warning in ct.warnings:
            logger.warning("case %s: %s", image.case_id, warning)
        label = image.label(ct)
        if label is None:
            raise LabelError("it has no final label")
    except FlrError as error:
        return LeftOut(image.case_id, " ".join(str(error).split()))
    return ct, label


def _voxels(label: PlanningLabel) -> dict[Structure, int]:
    return {s: int(np.count_nonzero(label.masks[s])) for s in sorted(_USED & label.holds)}


def _written(image: AnnotatedImage, ct: CT, label: PlanningLabel, folder: Path) -> Annotation:
    held = sorted(_USED & label.holds)
    files = {s: folder / image.case_id / f"{s}{IMAGE_SUFFIX}" for s in held}
    for structure, path in files.items():
        write_label_map(path, label.masks[structure].astype(np.uint8), ct.geometry)
    return Annotation(Case(image.case_id, image.image, TruthFiles(masks=files)), _voxels(label))


def _unusable(annotation: Annotation, stage: Stage) -> str | None:
    wanted = dict.fromkeys((*stage.needs, stage.target))
    missing = [s.value for s in wanted if s not in annotation.voxels]
    if missing:
        held = ", ".join(s.value for s in annotation.voxels) or "nothing that a stage uses"
        return f"its label does not hold {' and '.join(missing)}; it holds {held}"
    if Structure.LIVER in wanted and not annotation.voxels[Structure.LIVER]:
        return "its liver has no voxels"
    return None
