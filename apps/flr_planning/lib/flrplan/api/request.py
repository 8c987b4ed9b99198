"""What a plan was asked for: its files and options, and whether a folder holds that plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flrplan.engine import Cascade, CascadeSettings
from flrplan.files import files_below
from flrplan.method import FLR, stage_named
from flrplan.planning import REPORT_NAME
from flrplan.planning.cut_file import Plane
from flrplan.workfolder import ModelIdentity, require_same


def asked_also(settings: CascadeSettings) -> list[str] | None:
    """The second opinions as an option of :func:`request_of`; None where there are none."""
    return [*settings.architectures[1:]] or None


def options_of(plane: Plane | None, **options: Any) -> dict[str, Any]:
    """Options of :func:`request_of`: those of :func:`plan` by name, None where nothing is asked, and the cut where it is a plane."""
    return {**options, "plane": None if plane is None else [*plane.point_lps_mm, *plane.normal_lps]}


def request_of(ct: Path, files: Mapping[str, Path], options: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for one case: files, with size and time, and options, so that a plan of others is never taken for it."""

    def stamp(file: Path) -> list[object]:
        parts = [p for p in (files_below(file) if file.is_dir() else [file]) if p.is_file()]  # a link to nothing is none
        return [
            str(file.resolve()),
            sum(p.stat().st_size for p in parts),
            max((p.stat().st_mtime_ns for p in parts), default=0),
        ]

    return {"ct": stamp(ct), **{str(name): stamp(file) for name, file in files.items()}, "options": dict(options)}


def is_planned(folder: Path, request: Mapping[str, Any], cascade: Cascade) -> bool:
    """True if the folder holds the plan of this request by these models. Raises SettingsError where it holds another one's."""
    report = folder / REPORT_NAME
    if not report.is_file():
        return False
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        before = content.get("request")
        models = {s: ModelIdentity.from_json(m).decides for s, m in content.get("models", {}).items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        before, models = None, {}
    # 0.1.0 names no options, and knew no other plan than the raw one.
    if "options" in request:
        before = {"options": {**dict.fromkeys(request["options"]), "raw": True}, **(before or {})}
    before = before or {}
    asked = {f"{FLR}/{name}" for name in cascade.settings.also}
    now = {"models": {s: _identity(cascade, s).decides for s in models if "/" not in s or s in asked}, **request}
    remedy = "use another --out, or --force to replace it"
    require_same({"models": models, **before}, now, f"{folder}: the plan there", remedy)
    return True


def _identity(cascade: Cascade, place: str) -> ModelIdentity:
    """Which model serves a stage, or gives the second opinion ``<stage>/<architecture>``."""
    stage, _, opinion = place.partition("/")
    return (cascade.second_opinion(opinion) if opinion else cascade).identity(stage_named(stage))
