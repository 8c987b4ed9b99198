"""The text header of NRRD and MetaImage files: ITK takes a spacing that is missing or NaN for 1 mm, in silence."""

from __future__ import annotations

from pathlib import Path

from flrplan.errors import ImageError

_MAX_HEADER_BYTES = 1 << 16
_SPACING_FIELDS = {
    ".nrrd": ("space directions", "spacings"),
    ".nhdr": ("space directions", "spacings"),
    ".mha": ("ElementSpacing", "ElementSize"),
    ".mhd": ("ElementSpacing", "ElementSize"),
}


def check_text_header(path: Path, suffix: str) -> None:
    """Raises ImageError where a file that ITK could read states no spacing, one that is not a number, or no orientation."""
    fields = _fields(path, suffix)
    named = [f for f in _SPACING_FIELDS[suffix] if f in fields]
    if not named:
        raise ImageError(
            f"{path}: its header states no spacing (expected {' or '.join(_SPACING_FIELDS[suffix])}); "
            "volumes cannot be computed, export the image again"
        )
    for field in named:
        if any(word in fields[field].lower() for word in ("nan", "inf")):
            raise ImageError(f"{path}: expected a positive spacing, found {field} {fields[field]}; export the image again")
    if suffix in (".nrrd", ".nhdr") and "space" not in fields:
        raise ImageError(
            f"{path}: the NRRD header states no orientation (no 'space'), so left and right would be a guess; export the image again"
        )


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
