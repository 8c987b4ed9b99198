"""Plans that do not say whose they are: a name made from the input, and texts without paths, names, identifiers and dates of the input."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydicom

from flrplan.errors import SettingsError
from flrplan.files import files_below, not_utf8
from flrplan.image.cases import case_name
from flrplan.image.dicom_files import is_dicom
from flrplan.planning.patient import read_prior

REMOVED = "[removed]"
_IDENTIFYING = [
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "InstanceCreationDate",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "SeriesDescription",
    "InstitutionName",
    "InstitutionAddress",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "StationName",
    "DeviceSerialNumber",
]
_SHORTEST = 3
"""Shorter values, such as a PatientID ``7``, would take numbers out of every sentence; nothing writes them."""


class Anonymizer:
    """Takes out of a text what tells whose the inputs are: their paths, the names of their files, and values of their DICOM headers.

    places: paths that are taken out as they are, without a look into them.
    """

    def __init__(self, inputs: Iterable[Path], places: Iterable[Path] = ()) -> None:
        words = {text for place in places for text in (str(place), os.path.abspath(place), str(Path(place).resolve()))}
        for path in inputs:
            path = Path(path)
            words |= {str(path), os.path.abspath(path), str(path.resolve())}
            files = files_below(path) if path.is_dir() else [path]
            words |= {f"'{case_name(path)}'", *(f.name for f in files if not re.fullmatch(r"\d{1,5}", f.name))}
            words |= {str(p) for f in files for p in (f, f.parent.resolve() / f.name)}
            for file in files:  # each: a folder may hold slices of several patients, which an error names
                if file.is_file() and is_dicom(file):
                    words |= _of_header(file)
            if path.suffix.lower() == ".json":
                words |= _of_prior(path)
        words |= {shown for word in words if (shown := not_utf8(word))}  # as errors write it
        words = {w for w in words if len(w) >= _SHORTEST}
        pattern = "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)") if pattern else None

    def __call__(self, text: str) -> str:
        """The text without them."""
        return text if self._pattern is None else self._pattern.sub(REMOVED, text)


def _of_prior(file: Path) -> set[str]:
    """Whose an earlier plan is, and when it was scanned; nothing of a file that is none, which an error names."""
    try:
        prior = read_prior(file)
    except SettingsError:
        return set()
    return {str(prior.patient_id or ""), str(prior.scan_date or "")}


def _of_header(file: Path) -> set[str]:
    header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=_IDENTIFYING)
    words: set[str] = {str(file.parent), file.parent.name if len(file.parent.name) > 2 * _SHORTEST else ""}
    for keyword in _IDENTIFYING:
        value = str(header.get(keyword) or "").strip()
        words |= {value, value.replace("^", " ").strip(), re.sub(r"[^\w.-]+", "_", value).strip("._-")}  # as case names hold it
        if keyword.endswith("Name"):
            words |= {part for part in re.split(r"[\^=\s]+", value) if part}
        if keyword.endswith("Date") and re.fullmatch(r"\d{8}", value):
            words.add(f"{value[:4]}-{value[4:6]}-{value[6:]}")
    return words


def keep_headers_out_of_warnings() -> None:
    """Has Python's warnings leave out pydicom's, which show values that DICOM does not allow; what a plan needs is checked and said by itself."""
    warnings.filterwarnings("ignore", module=r"pydicom\b")


class AnonymousLog(logging.Filter):
    """Takes the same out of what is logged."""

    def __init__(self, clean: Anonymizer) -> None:
        super().__init__()
        self._clean = clean

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record; nothing is held back."""
        record.msg, record.args = self._clean(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = self._clean(logging.Formatter().formatException(record.exc_info))
        return True


def pseudonym(stamp: object) -> str:
    """The name of a case from the stamp of its CT (:func:`flrplan.api.request.request_of`): ``case-`` and eight digits of its SHA-256."""
    return f"case-{_digest(stamp)[:8]}"


def anonymous_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for as a digest, which tells whether a later run asks the same, and nothing else.

    Options that were not used take no part, so that a version that knows more of them asks the same.
    """
    options = {name: value for name, value in request.get("options", {}).items() if value is not None}
    return {"sha256": _digest({**request, "options": options})}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
