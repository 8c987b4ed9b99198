"""Points and planes as 3D Slicer's markups (``.mrk.json``), by its published schema 1.0.3, in LPS millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.files import write_json

SCHEMA = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
"""As 3D Slicer 5 names it in its own files, by which it knows them; no such page need exist."""
Place = tuple[float, float, float]


@dataclass(frozen=True)
class Point:
    """A place with what stands beside it."""

    label: str
    description: str
    place_lps_mm: Place


def write_points(path: Path, name: str, points: Sequence[Point]) -> None:
    """Writes a list of points. Raises: OutputError where it cannot be written."""
    listed = [
        {
            "id": str(number),
            "label": point.label,
            "description": point.description,
            "position": list(point.place_lps_mm),
            "positionStatus": "defined",
        }
        for number, point in enumerate(points, 1)
    ]
    _write(path, {"type": "Fiducial", "name": name, "labelFormat": "%N-%d", "controlPoints": listed})


def write_plane(path: Path, name: str, description: str, centre: NDArray[Any], axes: NDArray[Any], size_mm: Place) -> None:
    """Writes a plane. axes: ``(3, 3)``, its rows the two directions in the plane and its normal, of length 1, right-handed. size_mm: along them.

    Raises: OutputError where it cannot be written.
    """
    middle, half = np.round(centre, 3).tolist(), [s / 2 for s in size_mm]
    orientation = np.round(axes.T, 6).ravel().tolist()  # by columns, as the schema asks
    content = {
        "type": "Plane",
        "name": name,
        "planeType": "pointNormal",
        "sizeMode": "absolute",
        "center": middle,
        "normal": np.round(axes[2], 6).tolist(),
        "orientation": orientation,
        "size": list(size_mm),
        "planeBounds": [-half[0], half[0], -half[1], half[1]],
        "controlPoints": [
            {
                "id": "1",
                "label": name,
                "description": description,
                "position": middle,
                "orientation": orientation,
                "positionStatus": "defined",
            }
        ],
    }
    _write(path, content)


def _write(path: Path, markup: dict[str, Any]) -> None:
    markup = {**markup, "coordinateSystem": "LPS", "coordinateUnits": "mm"}
    write_json(path, {"@schema": SCHEMA, "markups": [markup]})
