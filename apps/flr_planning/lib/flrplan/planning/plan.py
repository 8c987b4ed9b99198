"""The plan of one case as files: compartments, volumes and a picture, written beside and renamed."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flrplan import __version__
from flrplan.cascade_result import CascadeResult
from flrplan.errors import OutputError
from flrplan.io import write_json, write_label_map
from flrplan.planning.picture import write_picture
from flrplan.planning.volumetry import Volumes, measure_volumes

RESEARCH_ONLY = "for research use only; not a medical device"
MAP_NAME = "planning.nii.gz"
REPORT_NAME = "plan.json"
PICTURE_NAME = "plan.png"


def plan_report(result: CascadeResult) -> tuple[Volumes, dict[str, Any]]:
    """Volumes of a finished cascade and the content of ``plan.json`` (plain values, undefined ones None)."""
    label, nesting = result.planning_map()
    volumes = measure_volumes(label, result.ct.geometry.voxel_volume_ml)
    geometry = result.ct.geometry
    return volumes, {
        "case": result.ct.name,
        "source": result.ct.source,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "software": f"flrplan {__version__}",
        "use": RESEARCH_ONLY,
        "size_xyz": list(geometry.size_xyz),
        "spacing_mm": [round(s, 6) for s in geometry.spacing_mm],
        "volumes": volumes.to_json(),
        "inputs": {str(s): source.value for s, source in result.sources.items()},
        "models": dict(result.models),
        "demo_models": result.demo,
        "seconds": dict(result.seconds),
        "warnings": [*result.warnings, *nesting.findings()],
    }


def write_plan(result: CascadeResult, folder: Path, request: dict[str, Any] | None = None) -> tuple[Volumes, list[str]]:
    """Writes ``planning.nii.gz``, ``plan.png`` and, last, ``plan.json`` into ``folder``; returns volumes and warnings.

    request: what was asked, kept in the report so that a later run can tell whether it asks the same.

    Raises: OutputError where the disk is full or the folder cannot be written; no half-written file is left.
    """
    label, _ = result.planning_map()
    volumes, report = plan_report(result)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_NAME).unlink(missing_ok=True)  # an old report beside a new map would be wrong
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
    write_label_map(folder / MAP_NAME, label, result.ct.geometry)
    write_picture(folder / PICTURE_NAME, result.ct, label, volumes)
    write_json(folder / REPORT_NAME, {**report, "request": request} if request else report)
    return volumes, report["warnings"]
