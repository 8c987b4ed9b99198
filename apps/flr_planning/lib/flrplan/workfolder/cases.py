"""Labelled cases on disk, as the cohort and the benchmark's work folder hold them, ready for training and evaluation.

Layout: ``images/<case>.nii.gz``, ``labels/<case>.nii.gz`` (planning label map) and, where the map cannot hold the truth,
``masks/<case>/<structure>.nii.gz`` (binary), which then takes precedence.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flrplan.anatomy import COMPARTMENTS_OF, Mask, Structure, check_planning_map, structure_mask
from flrplan.errors import EmptyLiverError, LabelError
from flrplan.files.listing import entries, files_below
from flrplan.image import CHANNEL, CT, read_ct, read_label_map, read_mask
from flrplan.image.geometry import require_same_grid
from flrplan.image.volume_file import image_suffix

logger = logging.getLogger(__name__)

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
        """The CT and the asked masks, ``(Z, Y, X) bool`` on its grid; masks may be empty. What is odd about the CT is logged.

        Raises: ImageError, GridError, LabelError; LabelError also where a structure is held by no file.
        """
        ct = read_ct(self.image)
        for warning in ct.warnings:
            logger.warning("case %s: %s", self.case_id, warning)
        result: dict[Structure, Mask] = {}
        planning = None
        for structure in structures:
            if structure in self.masks:
                result[structure] = read_mask(self.masks[structure], ct, structure)
                continue
            if self.label is None or structure not in COMPARTMENTS_OF:
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
    """The files behind an image or a mask: the file itself, or every file in the folder of a DICOM series but hidden ones, sorted by path."""
    return files_below(path) if path.is_dir() else [path]


def find_labelled_cases(folder: Path) -> list[LabelledCase]:
    """Every case of a folder in the layout above, sorted by id.

    Raises: LabelError where there is no image, one of another format, or one without a label; the message names them.
    """
    listed = entries(folder / "images") if (folder / "images").is_dir() else []
    images = [p for p in listed if p.name.endswith(IMAGE_SUFFIX)]
    others = [p.name for p in listed if p not in images and image_suffix(p) is not None]
    if others:
        raise LabelError(
            f"{folder / 'images'}: expected <case>{IMAGE_SUFFIX} alone, found {', '.join(others[:5])} ({len(others)} images that would "
            f"not be used); convert them or move them away"
        )
    if not images:
        require_no_nnunet_data(folder)
        raise LabelError(f"{folder}: expected images/<case>{IMAGE_SUFFIX} and labels/<case>{IMAGE_SUFFIX}, found no image")
    cases = []
    for image in images:
        case_id = image.name.removesuffix(IMAGE_SUFFIX)
        label, masks = _labels_of(folder, case_id)
        if label is None and not masks and case_id.endswith(CHANNEL):  # nnU-Net's name of an image, whose label has none
            case_id = case_id.removesuffix(CHANNEL)
            label, masks = _labels_of(folder, case_id)
        if label is None and not masks:
            channel = (
                f" (a second channel of nnU-Net? A case is one CT: take {image.name} out)" if _SECOND.search(case_id) else ""
            )
            expected = f"{folder / 'labels' / f'{case_id}{IMAGE_SUFFIX}'} or masks/{case_id}/<structure>{IMAGE_SUFFIX}"
            raise LabelError(f"{image} has no label; expected {expected}{channel}")
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


_SECOND = re.compile(r"_000[1-9]$")


def require_no_nnunet_data(folder: Path) -> None:
    """Raises LabelError for nnU-Net's raw data, whose label values mean what its ``dataset.json`` says, with the way from there to here."""
    if (folder / "imagesTr").is_dir() and (folder / "labelsTr").is_dir():
        raise LabelError(
            f"{folder} is nnU-Net's raw data: the values in labelsTr mean what its dataset.json says, they are no planning maps. Say which "
            "values are which structure in a layout file, such as\n"
            "  structures:\n"
            "    liver: [{pattern: 'labelsTr/{case}{ext}', values: [1, 2]}]\n"
            "    crlm: [{pattern: 'labelsTr/{case}{ext}', values: [2]}]\n"
            "    flr: ...\n"
            f"then make a work folder of it: benchmark/prepare.py folder {folder} --layout LAYOUT --out W. A stage that needs no FLR "
            "trains on images/<case>.nii.gz and masks/<case>/<structure>.nii.gz alone"
        )
