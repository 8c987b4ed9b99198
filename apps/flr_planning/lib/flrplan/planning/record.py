"""What ``plan.json`` holds, as a type: its form has a version, and it is checked when it is written and when it is read.

A plan of a version before has no ``schema`` and is of the first form where the keys that are asked for are there.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from flrplan.errors import SettingsError
from flrplan.files import read_json

SCHEMA = 1
"""Of ``plan.json``; raised when a key changes its meaning or goes. New keys do not raise it."""

_MORE = ConfigDict(extra="allow")
Place = list[float]
"""x, y, z: LPS, mm."""


@with_config(_MORE)
class VolumesRecord(TypedDict):
    """Millilitres, and fractions (0..1) that are null without a denominator: :class:`flrplan.planning.volumetry.Volumes`."""

    liver_ml: float
    crlm_ml: float
    functional_liver_ml: float
    flr_ml: float
    flr_functional_ml: float
    lrs_ml: float
    flr_fraction: float | None
    flr_of_liver: float | None


@with_config(_MORE)
class PartRecord(TypedDict):
    """A connected part of one side, and the numbers of the metastases in it."""

    volume_ml: float
    lesions: list[int]


@with_config(_MORE)
class ShareRecord(TypedDict):
    """How much (0..1) of a metastasis lies in a segment of the liver; null: outside the map of segments."""

    segment: str | None
    fraction: float


@with_config(_MORE)
class SegmentRecord(TypedDict):
    """A segment of the liver, null: the liver outside the map: :class:`flrplan.planning.segments.SegmentVolume`."""

    segment: str | None
    volume_ml: float
    resected_ml: float
    resected_fraction: float | None


@with_config(_MORE)
class LesionRecord(TypedDict):
    """A metastasis: :class:`flrplan.planning.parts.Lesion`."""

    number: int
    volume_ml: float
    diameter_mm: float
    centre_lps_mm: Place
    fate: str
    margin_mm: float | None
    nearest_lps_mm: Place | None
    segments: NotRequired[list[ShareRecord] | None]


@with_config(_MORE)
class MarginRecord(TypedDict):
    """The smallest margin: of which metastasis, and where on the cut."""

    mm: float
    lesion: int
    nearest_lps_mm: Place | None


@with_config(_MORE)
class ComparedRecord(TypedDict):
    """A plan that stands beside this one."""

    remark: str
    volumes: VolumesRecord
    interval: NotRequired[dict[str, Any] | None]
    resection_parts: list[PartRecord]
    remnant_parts: list[PartRecord]
    lesions: list[LesionRecord]
    liver_part: NotRequired[str]
    segments: NotRequired[list[SegmentRecord] | None]
    smallest_margin: MarginRecord | None


@with_config(_MORE)
class ThresholdRecord(TypedDict):
    """A threshold of the literature, what it is over, and the verdict."""

    liver: str
    percent: float
    over: str
    source: str
    remark: str
    flr_percent: float | None
    verdict: str


@with_config(_MORE)
class VeinRecord(TypedDict):
    """Veins that were given: :class:`flrplan.planning.parts.Vessel`."""

    name: str
    remnant_ml: float
    resection_ml: float
    outside_ml: float
    distance_mm: float | None


@with_config(_MORE)
class PlanRecord(TypedDict):
    """``plan.json``. Of an anonymized plan ``source``, ``date`` and what tells the patient are null, and ``request`` is a digest."""

    schema: NotRequired[int]
    case: str
    anonymized: NotRequired[bool]
    source: str | None
    date: str | None
    software: str
    use: str
    size_xyz: list[int]
    spacing_mm: list[float]
    flr_source: str
    volumes: VolumesRecord
    raw_volumes: VolumesRecord | None
    interval: NotRequired[dict[str, Any] | None]
    flr_partial_volume_ml: float
    patient: dict[str, Any]
    sflr_percent: float | None
    standardised: list[dict[str, Any]] | str
    flr_to_weight: dict[str, Any]
    liver_state: str | None
    thresholds: list[ThresholdRecord]
    thresholds_after: str
    growth: dict[str, Any] | None
    resection_parts: list[PartRecord]
    remnant_parts: list[PartRecord]
    lesions: list[LesionRecord]
    liver_part: NotRequired[str]
    segments: NotRequired[list[SegmentRecord] | None]
    smallest_margin: MarginRecord | None
    compared: NotRequired[dict[str, ComparedRecord]]
    veins: list[VeinRecord]
    inputs: dict[str, str]
    models: dict[str, dict[str, Any]]
    demo_models: bool
    seconds: dict[str, float]
    settings: NotRequired[dict[str, str]]
    warnings: list[str]
    findings: list[dict[str, Any]]
    dicom: NotRequired[dict[str, Any]]
    request: NotRequired[dict[str, Any]]


@cache
def _adapter() -> TypeAdapter[PlanRecord]:
    return TypeAdapter(PlanRecord)


def plan_schema() -> dict[str, Any]:
    """The JSON Schema of ``plan.json`` (draft 2020-12)."""
    return _adapter().json_schema()


def require_form(content: Any, source: str) -> None:
    """Raises: SettingsError for a plan that says it is of another form than :data:`SCHEMA`."""
    if isinstance(content, dict) and content.get("schema", SCHEMA) != SCHEMA:
        raise SettingsError(
            f"{source}: expected a plan of form {SCHEMA}, found {content['schema']!r}: another version of flrplan wrote it; use that one"
        )


def checked_plan(content: Any, source: str) -> PlanRecord:
    """The content of a ``plan.json``. Raises: SettingsError naming the source, the key, what was expected and what was found."""
    require_form(content, source)
    try:
        return _adapter().validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise SettingsError(
            f"{source} is no plan.json of flrplan: {where}: {first['msg'][0].lower()}{first['msg'][1:]}, found {first['input']!r:.80}; plan "
            "the case again"
        ) from None


def read_plan(path: Path) -> PlanRecord:
    """The content of a ``plan.json``. Raises: SettingsError for a file that is missing, damaged, of a newer form, or no plan."""
    return checked_plan(read_json(path, "the plan.json of a plan"), str(path))
