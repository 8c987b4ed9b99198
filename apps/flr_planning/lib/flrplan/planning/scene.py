"""The turnable 3D view of a plan as data: meshes of remnant, resection, metastases, veins and cut, which ``view3d.js`` draws."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import APPEARANCE, Compartment, Mask, Structure
from flrplan.image import Geometry
from flrplan.metrics.cut import Fate
from flrplan.planning.meshes import CUT, Mesh, surface_mesh
from flrplan.planning.parts import Lesion

_VEINS_RGB = ((70, 110, 220), (150, 90, 200))


def scene_of(
    meshes: Mapping[str, Mesh], geometry: Geometry, lesions: tuple[Lesion, ...], veins: Mapping[str, Mask]
) -> dict[str, Any]:
    """What ``view3d.js`` draws, JSON-ready: parts, the labels of metastases, all as LPS mm from the middle of the liver.

    meshes: as :func:`flrplan.planning.meshes.meshes_of` names them; without any there is no part. lesions: of the plan. veins: masks on
    ``geometry``; what of them lies outside the liver is shown, too.
    """
    if not meshes:
        return {"radius": 1.0, "away": [0.0, 0.0, 0.0], "parts": [], "labels": []}
    sides = [meshes[s] for s in (Structure.FLR, Structure.LRS) if s in meshes]
    points = [mesh.vertices_lps_mm for mesh in sides]
    low, high = (edge(np.concatenate(points), axis=0) for edge in (np.min, np.max))
    middle, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    none = Mesh.empty()
    parts = [
        _part("cut", "cut", meshes.get(CUT, none), middle, (240, 240, 240), shown=False),
        *_lesion_parts(meshes, lesions, middle),
        *(
            _part(name, name, surface_mesh(vein, geometry, 1.5), middle, rgb)
            for (name, vein), rgb in zip(veins.items(), _VEINS_RGB, strict=False)
        ),
        _part("remnant", "remnant", meshes.get(Structure.FLR, none), middle, APPEARANCE[Compartment.REMNANT].rgb, alpha=0.35),
        _part(
            "resection",
            "resection",
            meshes.get(Structure.LRS, none),
            middle,
            APPEARANCE[Compartment.RESECTION].rgb,
            alpha=0.3,
            striped=True,
            moves=True,
        ),
    ]
    away = np.zeros(3)
    if len(points) == 2:
        apart = points[1].mean(axis=0) - points[0].mean(axis=0)
        away = radius * apart / max(float(np.linalg.norm(apart)), 1e-6)
    labels = [
        {
            "text": str(lesion.number),
            "place": np.round(np.asarray(lesion.centre_lps_mm) - middle, 1).tolist(),
            "moves": lesion.fate is Fate.RESECTED,
        }
        for lesion in lesions
    ]
    return {
        "radius": round(radius, 1),
        "away": np.round(away, 1).tolist(),
        "parts": [part for part in parts if part is not None],
        "labels": labels,
    }


def _lesion_parts(meshes: Mapping[str, Mesh], lesions: Sequence[Lesion], middle: NDArray[Any]) -> list[dict[str, Any] | None]:
    """One part for the metastases of each fate."""
    parts = []
    for fate, name, look in (
        (Fate.RESECTED, "resected", Compartment.CRLM_IN_RESECTION),
        (Fate.CUT_THROUGH, "cut through", Structure.CRLM),
        (Fate.LEFT, "left", Compartment.CRLM_IN_REMNANT),
    ):
        of_fate = [meshes[f"crlm_{n.number}"] for n in lesions if n.fate is fate and f"crlm_{n.number}" in meshes]
        moves = fate is Fate.RESECTED
        parts.append(_part(name, f"metastases {name}", _together(of_fate), middle, APPEARANCE[look].rgb, moves=moves))
    return parts


def _together(meshes: list[Mesh]) -> Mesh:
    """Some meshes as one."""
    if not meshes:
        return Mesh.empty()
    starts = np.cumsum([0, *(len(mesh.vertices_lps_mm) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices_lps_mm for mesh in meshes]),
        np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, starts, strict=True)]).astype(np.int32),
    )


def _part(
    name: str,
    title: str,
    mesh: Mesh,
    middle: NDArray[Any],
    rgb: tuple[int, int, int],
    *,
    alpha: float = 1.0,
    striped: bool = False,
    moves: bool = False,
    shown: bool = True,
) -> dict[str, Any] | None:
    """A mesh in tenths of a millimetre, 16 bit; None for an empty one."""
    if mesh.is_empty:
        return None
    wide = len(mesh.vertices_lps_mm) > np.iinfo(np.uint16).max
    tenths = np.clip(np.rint(10 * (mesh.vertices_lps_mm - middle)), -32768, 32767).astype("<i2")
    return {
        "name": name,
        "title": title,
        "rgb": list(rgb),
        "alpha": alpha,
        "striped": striped,
        "moves": moves,
        "shown": shown,
        "wide": wide,
        "places": b64encode(tenths.tobytes()).decode(),
        "triangles": b64encode(mesh.triangles.astype("<u4" if wide else "<u2").tobytes()).decode(),
    }
