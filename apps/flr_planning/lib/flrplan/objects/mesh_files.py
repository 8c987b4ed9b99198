"""Triangles as files: binary STL in the patient's millimetres, and glTF 2.0 (GLB) in its own metres, y up."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.files import replacing

_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
STL_HEADER = b"flrplan SPACE=LPS millimetres, for research use only"
"""``SPACE=LPS`` is how 3D Slicer marks the coordinate system of an STL, and what it looks for."""
GLB_AXES = "metres; x to the patient's left, y to the head, z to the front: LPS in mm = 1000 * (x, -z, y)"
_TO_GLB = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32) / 1000  # a turn: right-handed stays so
_FLOAT, _UINT32 = 5126, 5125
_VERTICES, _INDICES = 34962, 34963


@dataclass(frozen=True, eq=False)
class ColouredMesh:
    """Triangles with a name and a look. vertices_lps_mm: ``(N, 3) float32``. triangles: ``(M, 3) int32``. opacity: 0..1."""

    name: str
    vertices_lps_mm: NDArray[np.float32]
    triangles: NDArray[np.int32]
    rgb: tuple[int, int, int]
    opacity: float = 1.0


def write_stl(path: Path, mesh: ColouredMesh) -> None:
    """Writes a binary STL in LPS, mm; STL knows no names and colours. Raises: OutputError where it cannot be written."""
    rows = np.zeros(len(mesh.triangles), _STL_TRIANGLE)
    rows["corners"] = mesh.vertices_lps_mm[mesh.triangles]
    rows["normal"] = _unit(_face_normals(mesh))
    with replacing(path) as part:
        part.write_bytes(STL_HEADER.ljust(80) + struct.pack("<I", len(rows)) + rows.tobytes())


def write_glb(path: Path, meshes: Sequence[ColouredMesh]) -> None:
    """Writes one scene (glTF 2.0, 4.4 and 3.4) with a node a mesh, named and coloured, in metres with y up (:data:`GLB_AXES`).

    Raises: OutputError where it cannot be written.
    """
    blob = bytearray()
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []

    def add(array: NDArray[Any], component: int, kind: str, target: int, **bounds: Any) -> int:
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": array.nbytes, "target": target})
        blob.extend(array.tobytes())  # of 4-byte numbers, so that every view begins at a multiple of 4
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "count": len(array), "type": kind, **bounds}
        )
        return len(accessors) - 1

    primitives: list[dict[str, Any]] = []
    for mesh in meshes:
        points = np.ascontiguousarray(mesh.vertices_lps_mm @ _TO_GLB.T, "<f4")
        normals = np.ascontiguousarray(_vertex_normals(mesh) @ _TO_GLB.T * 1000, "<f4")
        bounds = {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
        attributes = {
            "POSITION": add(points, _FLOAT, "VEC3", _VERTICES, **bounds),
            "NORMAL": add(normals, _FLOAT, "VEC3", _VERTICES),
        }
        indices = add(mesh.triangles.astype("<u4").ravel(), _UINT32, "SCALAR", _INDICES)
        primitives.append({"attributes": attributes, "indices": indices, "material": len(primitives)})
    scene = {
        "asset": {"version": "2.0", "generator": "flrplan", "extras": {"coordinates": GLB_AXES, "use": "research only"}},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(meshes)))}],
        "nodes": [{"mesh": n, "name": mesh.name} for n, mesh in enumerate(meshes)],
        "meshes": [{"name": m.name, "primitives": [p]} for m, p in zip(meshes, primitives, strict=True)],
        "materials": [_material(mesh) for mesh in meshes],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(blob)}],
    }
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + bytes(blob)
    with replacing(path) as part:
        part.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def _material(mesh: ColouredMesh) -> dict[str, Any]:
    srgb = np.asarray(mesh.rgb) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return {
        "name": mesh.name,
        "pbrMetallicRoughness": {
            "baseColorFactor": [*np.round(linear, 4).tolist(), mesh.opacity],
            "metallicFactor": 0.0,
            "roughnessFactor": 0.8,
        },
        "alphaMode": "OPAQUE" if mesh.opacity == 1 else "BLEND",
        "doubleSided": True,
    }


def _face_normals(mesh: ColouredMesh) -> NDArray[np.float32]:
    """``(M, 3)``: normals as long as twice the area of their triangle."""
    a, b, c = np.moveaxis(mesh.vertices_lps_mm[mesh.triangles], 1, 0)
    normals: NDArray[np.float32] = np.cross(b - a, c - a)
    return normals


def _vertex_normals(mesh: ColouredMesh) -> NDArray[np.float32]:
    """``(N, 3)``: the mean of the triangles around a vertex by their area, of length 1."""
    normals = np.repeat(_face_normals(mesh), 3, axis=0)
    corners, count = mesh.triangles.ravel(), len(mesh.vertices_lps_mm)
    return _unit(np.stack([np.bincount(corners, normals[:, axis], count) for axis in range(3)], axis=1))


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.where(length > 0, vectors / np.maximum(length, 1e-30), [0.0, 0.0, 1.0])
    return unit.astype(np.float32)
