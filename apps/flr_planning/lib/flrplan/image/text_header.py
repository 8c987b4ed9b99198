"""The text header of NRRD and MetaImage files: ITK takes a spacing that is missing or NaN for 1 mm, a negative one for positive and an
origin that is NaN for 0, in silence.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from flrplan.errors import ImageError

_MAX_HEADER_BYTES = 1 << 16
_SPACING_FIELDS = {
    ".nrrd": ("space directions", "spacings"),
    ".nhdr": ("space directions", "spacings"),
    ".mha": ("ElementSpacing", "ElementSize"),
    ".mhd": ("ElementSpacing", "ElementSize"),
}
_ORIGIN_FIELDS = ("space origin", "Offset", "Position", "Origin")


def check_text_header(path: Path, suffix: str) -> None:
    """Raises ImageError where a file that ITK could read states no spacing, one that is not positive, no orientation, or a broken origin."""
    fields = _fields(path, suffix)
    named = [f for f in _SPACING_FIELDS[suffix] if f in fields]
    if not named:
        raise ImageError(
            f"{path}: its header states no spacing (expected {' or '.join(_SPACING_FIELDS[suffix])}); "
            "volumes cannot be computed, export the image again"
        )
    for field in named:
        if _is_broken(fields[field]) or (field != "space directions" and min(_numbers(fields[field]), default=0) <= 0):
            raise ImageError(f"{path}: expected a positive spacing, found {field} {fields[field]}; export the image again")
    for field in _ORIGIN_FIELDS:
        if _is_broken(fields.get(field, "")):
            raise ImageError(f"{path}: expected a finite origin, found {field} {fields[field]}; export the image again")
    directions, axes = fields.get("space directions", "").split(), _numbers(fields.get("dimension", ""))
    if axes and directions.count("none") > axes[0] - 3:
        raise ImageError(
            f"{path}: an axis of the image has no direction and so no spacing (space directions {' '.join(directions)}); export the image again"
        )
    if suffix in (".nrrd", ".nhdr") and "space" not in fields:
        raise ImageError(
            f"{path}: the NRRD header states no orientation (no 'space'), so left and right would be a guess; export the image again"
        )


def _is_broken(value: str) -> bool:
    return any(word in value.lower() for word in ("nan", "inf"))


def _numbers(value: str) -> list[float]:
    with suppress(ValueError):
        return [float(word) for word in value.split()]
    return []


def _fields(path: Path, suffix: str) -> dict[str, str]:
    with path.open("rb") as stream:
        head = stream.read(_MAX_HEADER_BYTES)
    nrrd = suffix in (".nrrd", ".nhdr")
    fields: dict[str, str] = {}
    for line in head.decode("latin-1").splitlines():
        key, found, value = line.partition(":" if nrrd else "=")
        if nrrd and not line.strip():
            break  # an empty line ends a NRRD header
        if found:
            fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break  # the last line of a MetaImage header
    return fields
