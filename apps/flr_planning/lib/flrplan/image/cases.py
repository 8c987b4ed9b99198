"""From what a user names on the command line to a list of CTs, each with a case name of its own."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from flrplan.errors import ImageError
from flrplan.files import entries, files_below
from flrplan.image.dicom_files import first_image, in_one_row, is_dicom
from flrplan.image.volume_file import IMAGE_SUFFIXES, image_suffix

_LONGEST_ID, _LONGEST_NAME = 64, 200
"""Of a PatientID (VR LO), and of a name that folders were added to."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for itself."""


def find_cases(inputs: Sequence[Path], series: str | None = None) -> list[Path]:
    """Every CT that the inputs name, in natural order of the case names (``case_2`` before ``case_10``).

    An input is an image file, a DICOM file (its folder is the case), a folder with DICOM files in it (one case, subfolders
    included), or a folder that holds image files and DICOM folders (a case each; one case where all hold the same series).
    Hidden files are left out, and so are DICOM folders without an image, such as those of a SEG, beside others.

    Raises: ImageError for inputs that are missing or hold nothing, for a series in several DICOM folders among others, and for two
        cases of one name.
    """
    if not inputs:
        raise ImageError(f"no input given; expected {_EXPECTED}")
    found = {_key(p): p for path in inputs for p in _cases_of(Path(path))}
    names = case_names(list(found.values()), series)
    return sorted(found.values(), key=lambda p: (natural_key(names[p]), str(p)))


def case_names(cases: Sequence[Path], series: str | None = None) -> dict[Path, str]:
    """The name of each case, also of its folder of results; no two are equal, whatever the case of their letters.

    A file gives its own name without its ending; a DICOM folder the PatientID of its first image (of ``series``, if given), with
    what a path cannot hold as ``_``, or where that is blank its own name. Where names repeat, files take the name of their folder
    and a PatientID adds it; where that repeats as well, that of the folder above comes before.

    Raises: ImageError where two cases cannot be told apart by their folders.
    """
    names = {path: _own_name(path, series) for path in cases}
    groups: dict[str, list[Path]] = defaultdict(list)
    for path, name in names.items():
        groups[name.casefold()].append(path)
    for alike in groups.values():
        if len(alike) > 1:
            names |= _told_apart(alike, names)
    used: dict[str, Path] = {}
    for path, name in names.items():
        other = used.setdefault(name.casefold(), path)
        if other is not path:
            raise ImageError(
                f"two inputs are called {name!r}, so their results would overwrite each other: "
                f"{other} and {path}; rename one or run them into different folders"
            )
    return names


def case_name(path: Path) -> str:
    """The case id of a path alone: file name without its ending (``a.b.nii.gz`` is ``a.b``), or name of the DICOM folder."""
    path = Path(path)
    suffix = image_suffix(path)
    if suffix is not None and not path.is_dir():
        name = path.name[: -len(suffix)]
        return name if name.strip(".") else "case"
    folder = path.parent if path.is_file() else path
    return folder.name or folder.resolve().name or "case"


CHANNEL = "_0000"
"""What nnU-Net puts behind the names of its images, not of its labels: the number of the channel, of which a CT has one."""


def without_channel(name: str, known: Collection[str]) -> str:
    """The name, or where it is not known but is so without :data:`CHANNEL` or the ``.seg`` of 3D Slicer, the known one."""
    bare = name.removesuffix(".seg").removesuffix(CHANNEL)
    return bare if name not in known and bare in known else name


def safe_name(text: str, longest: int = _LONGEST_ID) -> str:
    """A text, such as a PatientID, as the name of a file or folder on any system; empty where nothing is left of it.

    Letters, digits, ``.``, ``-`` and ``_`` stay (but for ``.``, ``-`` and ``_`` at the ends), all else becomes ``_``.
    """
    name = re.sub(r"[^\w.-]+", "_", text.strip())[:longest].strip("._-")
    return f"{name}_" if _RESERVED.fullmatch(name) else name


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts names as people do: numbers by value, letters whatever their case (``case_2`` before ``case_10``).

    Any two names can be compared, and only equal ones are equal: ``P1`` and ``P1-2``, ``a1`` and ``b``, ``y²``.
    """
    parts = [part for part in re.split(r"(\d+)", name.lower()) if part]
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


_EXPECTED = f"a CT file ({', '.join(IMAGE_SUFFIXES)}), a DICOM folder, or a folder of these"


def _own_name(path: Path, series: str | None) -> str:
    image = first_image(path, series) if path.is_dir() else None
    return (safe_name(image.text("PatientID")) if image is not None else "") or case_name(path)


def _told_apart(alike: Sequence[Path], names: dict[Path, str]) -> dict[Path, str]:
    """Cases of one name under the names of their folders, of as many as it takes; unchanged where that does not help."""
    parts = {path: Path(os.path.abspath(path)).parts for path in alike}
    for levels in range(1, max(len(p) for p in parts.values())):
        found = {}
        for path in alike:
            folders = parts[path][-levels:] if path.is_dir() else parts[path][-levels - 1 : -1]
            before = [names[path]] if path.is_dir() and names[path] != case_name(path) else []
            found[path] = safe_name("_".join([*before, *folders]), _LONGEST_NAME) or names[path]
        if len({name.casefold() for name in found.values()}) == len(alike):
            return found
    return {}


def _cases_of(path: Path) -> list[Path]:
    if path.is_file():
        if image_suffix(path) is not None:
            return [path]
        if is_dicom(path):
            return [path.parent]
        raise ImageError(f"{path}: neither an image nor a DICOM file; expected {_EXPECTED}")
    if not path.is_dir():
        raise ImageError(f"{path}: no such file or folder; expected {_EXPECTED}")
    listed = entries(path)
    # a link to nothing is a case that cannot be read, not one that was never there
    cases = [p for p in listed if image_suffix(p) is not None and (p.is_file() or not p.exists())]
    if _has_dicom(p for p in listed if p.is_file()):
        cases.append(path)
    else:
        cases += _dicom_folders(path, [p for p in listed if p.is_dir() and _has_dicom(files_below(p))])
    if not cases:
        raise ImageError(f"{path}: no CT in this folder; expected {_EXPECTED}")
    return cases


def _dicom_folders(path: Path, folders: list[Path]) -> list[Path]:
    """The DICOM folders with an image; ``path`` itself where they are parts of one series."""
    images = {folder: first_image(folder) for folder in folders}
    with_image = [folder for folder, image in images.items() if image is not None] or folders
    of_series: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for folder in with_image:
        image = images[folder]
        if image is not None and image.text("SeriesInstanceUID"):
            of_series[tuple(image.text(k) for k in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"))].append(folder)
    for parts in of_series.values():
        if len(parts) < 2 or not in_one_row(parts):
            continue  # whole CTs, be they copies or of patients whose UIDs were wiped out
        if len(parts) == len(with_image):
            return [path]
        raise ImageError(
            f"{path}: {', '.join(p.name for p in parts)} hold slices of one series, so each would be planned as a part of its CT; "
            "put them into one folder"
        )
    return with_image


def _has_dicom(paths: Iterable[Path]) -> bool:
    return any(p.is_file() and image_suffix(p) is None and is_dicom(p) for p in paths)


def _key(path: Path) -> Path:
    return Path(os.path.realpath(path))  # resolve() raises at links that go round
