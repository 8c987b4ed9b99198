"""The turnable 3D view of a plan as data: meshes of remnant, resection, metastases, veins and cut, which ``view3d.js`` draws."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import APPEARANCE, Compartment, Mask, Structure, structure_mask
from flrplan.image import Geometry
from flrplan.metrics.cut import Fate
from flrplan.metrics.region import Region
from flrplan.planning.coherent import TOUCHING
from flrplan.planning.meshes import Mesh, cut_mesh, surface_mesh
from flrplan.planning.parts import Lesion

EDGE_MM = 3.0
"""Of the page's triangles; a liver is then some 300 kB."""
_VEINS_RGB = ((70, 110, 220), (150, 90, 200))


def scene_of(
    label_zyx: NDArray[np.uint8], geometry: Geometry, lesions: tuple[Lesion, ...], veins: Mapping[str, Mask]
) -> dict[str, Any]:
    """What ``view3d.js`` draws, JSON-ready: parts, the labels of metastases, all as LPS mm from the middle of the liver.

    An empty map has no part. lesions: of the plan. veins: masks on the same grid; what of them lies outside the liver is shown, too.
    """
    around = Region.of(label_zyx > 0, geometry.spacing_zyx_mm)
    if around.is_empty:
        return {"radius": 1.0, "away": [0.0, 0.0, 0.0], "parts": [], "labels": []}
    whole, label, liver = geometry, label_zyx[around.box], around.crop_zyx
    geometry, flr = geometry.crop(around.box), structure_mask(label, Structure.FLR)
    sides = {"remnant": surface_mesh(flr, geometry, EDGE_MM), "resection": surface_mesh(liver & ~flr, geometry, EDGE_MM)}
    points = [mesh.vertices_lps_mm for mesh in sides.values() if not mesh.is_empty]
    low, high = (edge(np.concatenate(points), axis=0) for edge in (np.min, np.max))
    middle, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    parts = [
        _part("cut", "cut", cut_mesh(liver, flr, geometry, EDGE_MM), middle, (240, 240, 240), shown=False),
        *_lesion_parts(label, geometry, middle),
        *(
            _part(name, name, surface_mesh(vein, whole, 1.5), middle, rgb)
            for (name, vein), rgb in zip(veins.items(), _VEINS_RGB, strict=False)
        ),
        _part("remnant", "remnant", sides["remnant"], middle, APPEARANCE[Compartment.REMNANT].rgb, alpha=0.35),
        _part(
            "resection",
            "resection",
            sides["resection"],
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
            "moves": lesion.fate is not Fate.LEFT,
        }
        for lesion in lesions
    ]
    return {
        "radius": round(radius, 1),
        "away": np.round(away, 1).tolist(),
        "parts": [part for part in parts if part is not None],
        "labels": labels,
    }


def _lesion_parts(label: NDArray[np.uint8], geometry: Geometry, middle: NDArray[Any]) -> list[dict[str, Any] | None]:
    """One part for the metastases of each side; a small one has finer triangles."""
    parts = []
    for compartment, name, title, moves in (
        (Compartment.CRLM_IN_RESECTION, "resected", "metastases resected", True),
        (Compartment.CRLM_IN_REMNANT, "left", "metastases left", False),
    ):
        found, _ = ndimage.label(label == compartment, TOUCHING)
        meshes = []
        for number, box in enumerate(ndimage.find_objects(found), 1):
            z, y, x = (slice(cut.start, cut.stop) for cut in box)
            meshes.append(surface_mesh(found[box] == number, geometry.crop((z, y, x)), 1.5))
        parts.append(_part(name, title, _together(meshes), middle, APPEARANCE[compartment].rgb, moves=moves))
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
