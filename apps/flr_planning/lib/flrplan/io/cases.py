"""From what a user names on the command line to the list of cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from flrplan.errors import ImageError
from flrplan.io.dicom_series import is_dicom_file
from flrplan.io.nifti_header import NIFTI_SUFFIXES

_FILE_SUFFIXES = (".nii.gz", *NIFTI_SUFFIXES, ".nrrd", ".nhdr", ".mha", ".mhd")


def case_name(path: Path) -> str:
    """``a.b.nii.gz`` -> ``a.b``; a DICOM folder's own name; a DICOM file's folder's name."""
    path = Path(path).resolve()
    for suffix in _FILE_SUFFIXES:
        if path.name.lower().endswith(suffix) and not path.is_dir():
            return path.name[: -len(suffix)]
    return path.parent.name if path.is_file() else path.name


def find_cases(inputs: Sequence[Path]) -> list[Path]:
    """Every case in files, DICOM folders, and folders of either, in natural order within each input.

    Raises: ImageError for an input that is not there or holds no image, and where two cases would share a name.
    """
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if not path.exists():
            raise ImageError(f"{path} does not exist; give CT files, DICOM folders, or a folder of these")
        cases = [path] if path.is_file() else _cases_in(path)
        if not cases:
            raise ImageError(f"{path} holds no CT: expected files ending in {', '.join(_FILE_SUFFIXES)}, or DICOM folders")
        found += [case for case in cases if case not in found]
    names: dict[str, Path] = {}
    for case in found:
        other = names.setdefault(case_name(case), case)
        if other != case:
            raise ImageError(
                f"two inputs are both called {case_name(case)}: {other} and {case}; rename one, or plan them apart"
            )
    return found


def _cases_in(folder: Path) -> list[Path]:
    children = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=_natural)
    files = [p for p in children if p.is_file()]
    images = [p for p in files if p.name.lower().endswith(_FILE_SUFFIXES)]
    if images:
        return images
    if any(is_dicom_file(p) for p in files):
        return [folder]
    return [p for p in children if p.is_dir() and any(is_dicom_file(f) for f in p.rglob("*") if f.is_file())]


def _natural(path: Path) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path.name.lower()) if part]
