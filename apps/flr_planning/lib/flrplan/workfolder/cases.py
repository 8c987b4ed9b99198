"""Labelled cases on disk, as the cohort and the benchmark's work folder hold them (:class:`flrplan.workfolder.folder.WorkFolder`)."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from flrplan.anatomy import Mask, Structure
from flrplan.errors import EmptyLiverError, LabelError
from flrplan.files import entries, files_below, sha256_of_file
from flrplan.image import CHANNEL, CT, read_ct
from flrplan.image.masks import read_mask_on
from flrplan.image.volume_file import image_suffix
from flrplan.workfolder.folder import IMAGE_SUFFIX, WorkFolder
from flrplan.workfolder.truth import TruthFiles

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One CT with its truth.

    image: a file, or the folder of a DICOM series.
    predicted: masks that a model made of it; only trainings on predicted inputs read them (:mod:`flrplan.input_masks`).
    """

    case_id: str
    image: Path
    truth: TruthFiles = field(default_factory=TruthFiles)
    predicted: Mapping[Structure, Path] = field(default_factory=dict)

    def file_stamps(self) -> list[list[object]]:
        """Path, size and modification time (ns) of every file: where they are the same, :meth:`sha256` is."""
        return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for _, path in self._named() for f in files_of(path)]

    def sha256(self) -> str:
        """Hex SHA-256 over the id and the content of every file; it changes when an image or a label does."""
        digest = hashlib.sha256(self.case_id.encode())
        for name, given in self._named():
            for path in files_of(given):
                digest.update(f"\0{name}\0{sha256_of_file(path)}".encode())
        return digest.hexdigest()

    def _named(self) -> list[tuple[str, Path]]:
        predicted = sorted((f"predicted {structure}", path) for structure, path in self.predicted.items())
        return [("image", self.image), *self.truth.named(), *predicted]

    def load(self, structures: Collection[Structure]) -> tuple[CT, dict[Structure, Mask]]:
        """The CT and the asked masks, ``(Z, Y, X) bool`` on its grid; all but the liver may be empty. What is odd about the CT is logged.

        Raises: ImageError, GridError, LabelError (also where a structure is held by no file), EmptyLiverError.
        """
        ct = read_ct(self.image)
        for warning in ct.warnings:
            logger.warning("case %s: %s", self.case_id, warning)
        masks, _ = self.truth.read(structures, self.case_id, ct.geometry, ct.source)
        if Structure.LIVER in masks and not masks[Structure.LIVER].any():
            raise EmptyLiverError(
                f"{self.truth.file_of(Structure.LIVER)}: the liver has no voxels; draw it, or take the case out"
            )
        return ct, masks

    def load_predicted(self, structures: Iterable[Structure], ct: CT) -> dict[Structure, Mask]:
        """The asked predicted masks, ``(Z, Y, X) bool`` on the CT's grid; also a liver may be empty.

        Raises: ImageError, GridError, LabelError.
        """
        return {s: read_mask_on(self.predicted[s], s, ct.geometry, ct.source)[0] for s in structures}


def files_of(path: Path) -> list[Path]:
    """The files behind an image or a mask: the file itself, or every file in the folder of a DICOM series but hidden ones, sorted by path."""
    return files_below(path) if path.is_dir() else [path]


def find_labelled_cases(folder: Path) -> list[Case]:
    """Every case of a folder laid out as a :class:`WorkFolder`, sorted by id.

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
        truth = _truth_of(folder, case_id)
        if not truth and case_id.endswith(CHANNEL):  # nnU-Net's name of an image, whose label has none
            case_id = case_id.removesuffix(CHANNEL)
            truth = _truth_of(folder, case_id)
        if not truth:
            channel = (
                f" (a second channel of nnU-Net? A case is one CT: take {image.name} out)" if _SECOND.search(case_id) else ""
            )
            expected = f"{folder / 'labels' / f'{case_id}{IMAGE_SUFFIX}'} or masks/{case_id}/<structure>{IMAGE_SUFFIX}"
            raise LabelError(f"{image} has no label; expected {expected}{channel}")
        cases.append(Case(case_id, image, truth))
    return cases


def with_labels_of(cases: Iterable[Case], folder: Path) -> list[Case]:
    """The same cases with the labels of another folder in that layout, which need not have the images.

    Raises: LabelError naming the cases that have none there. That a label lies on its CT's grid is found when it is loaded.
    """
    relabelled = [replace(case, truth=_truth_of(folder, case.case_id)) for case in cases]
    without = [case.case_id for case in relabelled if not case.truth]
    if without:
        raise LabelError(
            f"{folder}: expected labels/<case>{IMAGE_SUFFIX} or masks/<case>/<structure>{IMAGE_SUFFIX} of every case; "
            f"{len(without)} have none: {', '.join(without)}"
        )
    return relabelled


def _truth_of(folder: Path, case_id: str) -> TruthFiles:
    work = WorkFolder(folder)
    label = work.label(case_id)
    masks = {s: p for s in Structure if (p := work.mask(case_id, s)).is_file()}
    return TruthFiles(label if label.is_file() else None, masks)


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
