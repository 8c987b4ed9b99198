"""From what a user names on the command line to a list of CTs, each with a case name of its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from flrplan.errors import ImageError
from flrplan.io.dicom_files import is_dicom
from flrplan.io.volume_file import IMAGE_SUFFIXES, image_suffix


def find_cases(inputs: Sequence[Path]) -> list[Path]:
    """Every CT that the inputs name, in natural order of the case names (``case_2`` before ``case_10``).

    An input is an image file, a DICOM file (its folder is the case), a folder with DICOM files in it (one case, subfolders
    included), or a folder that holds image files and DICOM folders (a case each). Hidden files are left out.

    Raises: ImageError for inputs that are missing or hold nothing, and for two cases of one name.
    """
    if not inputs:
        raise ImageError(f"no input given; expected {_EXPECTED}")
    found = {_key(p): p for path in inputs for p in _cases_of(Path(path))}
    cases = sorted(found.values(), key=lambda p: (natural_key(case_name(p)), str(p)))
    for first, second in pairwise(cases):
        if case_name(first) == case_name(second):
            raise ImageError(
                f"two inputs are called {case_name(first)!r}, so their results would overwrite each other: "
                f"{first} and {second}; rename one or run them into different folders"
            )
    return cases


def case_name(path: Path) -> str:
    """The case id of an input: file name without its ending (``a.b.nii.gz`` is ``a.b``), or name of the DICOM folder."""
    path = Path(path)
    suffix = image_suffix(path)
    if suffix is not None and not path.is_dir():
        return path.name[: -len(suffix)] or "case"
    folder = path.parent if path.is_file() else path
    return folder.name or folder.resolve().name or "case"


CHANNEL = "_0000"
"""What nnU-Net puts behind the names of its images, not of its labels: the number of the channel, of which a CT has one."""


def without_channel(name: str, known: Collection[str]) -> str:
    """The name, or where it is not known but is so without :data:`CHANNEL` or the ``.seg`` of 3D Slicer, the known one."""
    bare = name.removesuffix(".seg").removesuffix(CHANNEL)
    return bare if name not in known and bare in known else name


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts names as people do: numbers by value, letters whatever their case (``case_2`` before ``case_10``).

    Any two names can be compared, and only equal ones are equal: ``P1`` and ``P1-2``, ``a1`` and ``b``, ``y²``.
    """
    parts = [part for part in re.split(r"(\d+)", name.lower()) if part]
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


_EXPECTED = f"a CT file ({', '.join(IMAGE_SUFFIXES)}), a DICOM folder, or a folder of these"


def _cases_of(path: Path) -> list[Path]:
    if path.is_file():
        if image_suffix(path) is not None:
            return [path]
        if is_dicom(path):
            return [path.parent]
        raise ImageError(f"{path}: neither an image nor a DICOM file; expected {_EXPECTED}")
    if not path.is_dir():
        raise ImageError(f"{path}: no such file or folder; expected {_EXPECTED}")
    entries = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    cases = [p for p in entries if p.is_file() and image_suffix(p) is not None]
    if _has_dicom(p for p in entries if p.is_file()):
        cases.append(path)
    else:
        cases += [p for p in entries if p.is_dir() and _has_dicom(sorted(p.rglob("*")))]
    if not cases:
        raise ImageError(f"{path}: no CT in this folder; expected {_EXPECTED}")
    return cases


def _has_dicom(paths: Iterable[Path]) -> bool:
    return any(p.is_file() and image_suffix(p) is None and is_dicom(p) for p in paths)


def _key(path: Path) -> Path:
    return path.resolve()
