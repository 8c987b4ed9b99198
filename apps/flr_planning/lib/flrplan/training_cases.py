"""Labelled cases on disk, as the cohort and the benchmark's work folder hold them, ready for training and evaluation.

Layout: ``images/<case>.nii.gz``, ``labels/<case>.nii.gz`` (planning label map) and, where the map cannot hold the truth,
``masks/<case>/<structure>.nii.gz`` (binary), which then takes precedence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flrplan.errors import EmptyLiverError, LabelError
from flrplan.geometry import require_same_grid
from flrplan.io import CT, read_ct, read_label_map, read_mask
from flrplan.labels import Mask, Structure, check_planning_map, structure_mask

IMAGE_SUFFIX = ".nii.gz"


@dataclass(frozen=True)
class LabelledCase:
    """One CT with its truth: a planning map, binary masks, or both (then the masks are the truth).

    image: a file, or the folder of a DICOM series.
    predicted: masks that a model made of it; only trainings on predicted inputs read them (:mod:`flrplan.input_masks`).
    """

    case_id: str
    image: Path
    label: Path | None = None
    masks: Mapping[Structure, Path] = field(default_factory=dict)
    predicted: Mapping[Structure, Path] = field(default_factory=dict)

    def file_stamps(self) -> list[list[object]]:
        """Path, size and modification time (ns) of every file: where they are the same, :meth:`sha256` is."""
        paths = [self.image, *([self.label] if self.label else []), *self.masks.values(), *self.predicted.values()]
        return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for path in paths for f in files_of(path)]

    def sha256(self) -> str:
        """Hex SHA-256 over the id and the content of every file; it changes when an image or a label does."""
        digest = hashlib.sha256(self.case_id.encode())
        masks = sorted((str(s), p) for s, p in self.masks.items())
        predicted = sorted((f"predicted {s}", p) for s, p in self.predicted.items())
        for name, given in (("image", self.image), ("label", self.label), *masks, *predicted):
            for path in [] if given is None else files_of(given):
                with path.open("rb") as file:
                    digest.update(f"\0{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        return digest.hexdigest()

    def load(self, structures: Iterable[Structure]) -> tuple[CT, dict[Structure, Mask]]:
        """The CT and the asked masks, ``(Z, Y, X) bool`` on its grid; masks may be empty.

        Raises: ImageError, GridError, LabelError; LabelError also where a structure is held by no file.
        """
        ct = read_ct(self.image)
        result: dict[Structure, Mask] = {}
        planning = None
        for structure in structures:
            if structure in self.masks:
                result[structure] = read_mask(self.masks[structure], ct, structure)
                continue
            if self.label is None:
                raise LabelError(self._absent(structure))
            if planning is None:
                array, geometry = read_label_map(self.label)
                require_same_grid(ct.geometry, geometry, str(self.image), str(self.label))
                planning = check_planning_map(array, str(self.label))
            result[structure] = structure_mask(planning, structure)
        return ct, result

    def _absent(self, structure: Structure) -> str:
        """What is said where no file holds a structure; who knows the case puts its id before."""
        folder = next((p.parent for p in self.masks.values()), self.image.parent.parent / "masks" / self.case_id)
        return (
            f"no file holds {structure}: expected {folder / f'{structure}{IMAGE_SUFFIX}'} or a planning label map for {self.image}, "
            f"found {', '.join(str(self.masks[s]) for s in sorted(self.masks)) or 'nothing'}. Add one of them (an empty mask where "
            f"there is no {structure}), or take the case out of the split"
        )

    def load_predicted(self, structures: Iterable[Structure], ct: CT) -> dict[Structure, Mask]:
        """The asked predicted masks, ``(Z, Y, X) bool`` on the CT's grid; also a liver may be empty.

        Raises: ImageError, GridError, LabelError.
        """
        masks = {}
        for structure in structures:
            try:
                masks[structure] = read_mask(self.predicted[structure], ct, structure)
            except EmptyLiverError:
                masks[structure] = np.zeros(ct.geometry.shape_zyx, bool)
        return masks


def files_of(path: Path) -> list[Path]:
    """The files behind an image or a mask: the file itself, or everything in the folder of a DICOM series, sorted by path."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def find_labelled_cases(folder: Path) -> list[LabelledCase]:
    """Every case of a folder in the layout above, sorted by id.

    Raises: LabelError where there is no image, or an image has no label; the message names them.
    """
    images = sorted(p for p in (folder / "images").glob(f"*{IMAGE_SUFFIX}") if not p.name.startswith("."))
    if not images:
        raise LabelError(f"{folder}: expected images/<case>{IMAGE_SUFFIX} and labels/<case>{IMAGE_SUFFIX}, found no image")
    cases = []
    for image in images:
        case_id = image.name.removesuffix(IMAGE_SUFFIX)
        label, masks = _labels_of(folder, case_id)
        if label is None and not masks:
            expected = folder / "labels" / image.name
            raise LabelError(f"{image} has no label; expected {expected} or masks/{case_id}/<structure>{IMAGE_SUFFIX}")
        cases.append(LabelledCase(case_id, image, label, masks))
    return cases


def with_labels_of(cases: Iterable[LabelledCase], folder: Path) -> list[LabelledCase]:
    """The same cases with the labels of another folder in that layout, which need not have the images.

    Raises: LabelError naming the cases that have none there. That a label lies on its CT's grid is found when it is loaded.
    """
    relabelled = [
        replace(case, label=label, masks=masks) for case in cases for label, masks in [_labels_of(folder, case.case_id)]
    ]
    without = [case.case_id for case in relabelled if case.label is None and not case.masks]
    if without:
        raise LabelError(
            f"{folder}: expected labels/<case>{IMAGE_SUFFIX} or masks/<case>/<structure>{IMAGE_SUFFIX} of every case; "
            f"{len(without)} have none: {', '.join(without)}"
        )
    return relabelled


def _labels_of(folder: Path, case_id: str) -> tuple[Path | None, dict[Structure, Path]]:
    """The planning map of a case and its binary masks, as far as they are there."""
    label = folder / "labels" / f"{case_id}{IMAGE_SUFFIX}"
    masks = {s: p for s in Structure if (p := folder / "masks" / case_id / f"{s}{IMAGE_SUFFIX}").is_file()}
    return label if label.is_file() else None, masks
