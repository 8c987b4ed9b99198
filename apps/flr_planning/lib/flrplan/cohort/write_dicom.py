"""The CTs of a written cohort once more, as DICOM series: ``dicom/<case>/`` beside ``images/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from tqdm import tqdm

from flrplan.cohort.write import OUR_SLICES, dicom_folder, image_path
from flrplan.errors import CohortError
from flrplan.image import CT, read_ct
from flrplan.image.dicom_write import SYNTHETIC_DESCRIPTION, series_uid, write_dicom_series


def write_dicom_cohort(out_dir: Path, case_ids: Sequence[str], progress: bool = True) -> Path:
    """Writes the series of cases whose images lie in ``out_dir``; returns the folder with one folder a case.

    A series that is there and is that of the image stays, so a broken run goes on; one of another image is replaced. Files that are
    not of the series stay with it, and are never removed.
    Raises: ImageError for an image that is missing or damaged; OutputError for a series that cannot be written; CohortError where a
    folder must be replaced and holds files of unknown origin.
    """
    for case_id in tqdm(case_ids, desc="DICOM series", unit="case", disable=not progress):
        ct = read_ct(image_path(out_dir, case_id))
        folder = dicom_folder(out_dir, case_id)
        if not _holds(folder, ct, case_id):
            _require_only_slices(folder)
            write_dicom_series(folder, ct.array_zyx, ct.geometry, case_id, SYNTHETIC_DESCRIPTION, force=True)
    return out_dir / "dicom"


def _holds(folder: Path, ct: CT, case_id: str) -> bool:
    files = sorted(folder.glob(OUR_SLICES))
    if len(files) != len(ct.array_zyx):
        return False
    try:
        found = pydicom.dcmread(files[0], specific_tags=["SeriesInstanceUID"], stop_before_pixels=True)
    except (InvalidDicomError, OSError):
        return False
    return str(found.get("SeriesInstanceUID")) == series_uid(ct.array_zyx, ct.geometry, case_id)


def _require_only_slices(folder: Path) -> None:
    foreign = sorted({p.name for p in folder.iterdir()} - {p.name for p in folder.glob(OUR_SLICES)}) if folder.is_dir() else []
    if foreign:
        raise CohortError(
            f"{folder} must be written anew, but holds files of unknown origin ({', '.join(foreign[:4])}); move them away first"
        )
