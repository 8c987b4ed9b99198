"""Meshes of a plan as STL in LPS mm and as GLB in metres with y up, read back byte by byte."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flrplan.objects.mesh_files import ColouredMesh, write_glb, write_stl
from flrplan.planning import Mesh, Plan, Plane, read_cut
from flrplan.planning.objects import write_meshes

TETRAHEDRON = ColouredMesh(
    "a corner",
    np.array([[10, 20, 30], [14, 20, 30], [10, 28, 30], [10, 20, 36]], np.float32),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32),
    (255, 188, 0),
    0.5,
)


def read_stl(path: Path) -> tuple[bytes, Any]:
    held = path.read_bytes()
    (count,) = struct.unpack_from("<I", held, 80)
    assert len(held) == 84 + 50 * count
    rows = np.frombuffer(held, np.dtype([("n", "<f4", 3), ("p", "<f4", (3, 3)), ("a", "<u2")]), count, 84)
    return held[:80], rows


def read_glb(path: Path) -> tuple[dict[str, Any], list[tuple[Any, Any, Any]]]:
    """The scene, and points, normals and triangles of each mesh."""
    held = path.read_bytes()
    assert struct.unpack_from("<4sII", held) == (b"glTF", 2, len(held))
    size, kind = struct.unpack_from("<I4s", held, 12)
    assert (size % 4, kind) == (0, b"JSON")
    scene = json.loads(held[20 : 20 + size])
    size_of_blob, kind = struct.unpack_from("<I4s", held, 20 + size)
    assert (kind, size_of_blob) == (b"BIN\0", scene["buffers"][0]["byteLength"])
    blob = held[28 + size :]
    assert len(blob) == size_of_blob

    def array(index: int) -> Any:
        accessor = scene["accessors"][index]
        view = scene["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        flat = np.frombuffer(
            blob[view["byteOffset"] :][: view["byteLength"]], {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        )
        return flat.reshape(accessor["count"], -1)

    meshes = []
    for mesh in scene["meshes"]:
        (primitive,) = mesh["primitives"]
        points, normals = (array(primitive["attributes"][name]) for name in ("POSITION", "NORMAL"))
        bounds = scene["accessors"][primitive["attributes"]["POSITION"]]
        assert np.allclose([points.min(axis=0), points.max(axis=0)], [bounds["min"], bounds["max"]])
        meshes.append((points, normals, array(primitive["indices"]).reshape(-1, 3)))
    return scene, meshes


def volume(corners: Any) -> float:
    return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))) / 6


def test_an_stl_is_in_lps_millimetres_and_says_so(tmp_path: Path) -> None:
    write_stl(tmp_path / "a.stl", TETRAHEDRON)
    header, rows = read_stl(tmp_path / "a.stl")
    assert not header.startswith(b"solid"), "which would make it a text file"
    assert b"SPACE=LPS" in header
    assert rows["p"].tolist() == TETRAHEDRON.vertices_lps_mm[TETRAHEDRON.triangles].tolist()
    assert rows["n"][:3].tolist() == [[0, 0, -1], [0, -1, 0], [-1, 0, 0]], "outwards"
    assert volume(rows["p"].astype(float)) == pytest.approx(4 * 8 * 6 / 6)


def test_a_glb_is_in_metres_with_the_head_up_and_not_mirrored(tmp_path: Path) -> None:
    write_glb(tmp_path / "a.glb", [TETRAHEDRON])
    scene, [(points, normals, triangles)] = read_glb(tmp_path / "a.glb")
    left, head, front = points.T.astype(float)
    assert np.allclose(1000 * np.stack([left, -front, head], axis=1), TETRAHEDRON.vertices_lps_mm, atol=1e-4)
    assert volume(1000 * points[triangles].astype(float)) == pytest.approx(32), "positive: as outwards as before"
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert normals[3] @ [0, 1, 0] > 0, "the top looks to the head"
    assert [n["name"] for n in scene["nodes"]] == ["a corner"]
    (material,) = scene["materials"]
    colour = material["pbrMetallicRoughness"]["baseColorFactor"]
    assert colour == pytest.approx([1, 0.5029, 0, 0.5], abs=1e-3), "linear, not sRGB"
    assert material["alphaMode"] == "BLEND"
    assert "metres" in scene["asset"]["extras"]["coordinates"]


def test_a_plan_has_a_mesh_of_each_structure_metastasis_and_the_cut(tmp_path: Path, make_plan: Callable[..., Plan]) -> None:
    plan = make_plan("oblique")
    write_meshes(plan, tmp_path)
    names = ["crlm_1", "crlm_2", "crlm_3", "flr", "liver", "lrs", "resection_surface"]
    assert sorted(p.name for p in (tmp_path / "meshes").iterdir()) == sorted(
        [*(f"{n}.stl" for n in names), "plan.glb", "crlm.mrk.json", "cut_plane.mrk.json"]
    )
    for name, ml in (
        ("liver", plan.volumes.liver_ml),
        ("lrs", plan.volumes.lrs_ml),
        ("crlm_1", plan.parts.lesions[0].volume_ml),
    ):
        corners = read_stl(tmp_path / "meshes" / f"{name}.stl")[1]["p"].astype(float)
        assert volume(corners - corners[0, 0]) / 1000 == pytest.approx(ml, rel=0.2), name
    middle = read_stl(tmp_path / "meshes" / "crlm_1.stl")[1]["p"].mean(axis=(0, 1))
    assert np.allclose(middle, plan.parts.lesions[0].centre_lps_mm, atol=0.2)
    along = (read_stl(tmp_path / "meshes" / "resection_surface.stl")[1]["p"] - plan.ct.geometry.origin_mm) @ (
        plan.ct.geometry.direction_matrix[:, 0]
    )
    assert np.median(along) == pytest.approx(0.8 * 10.5, abs=0.4), "the cut lies between x = 10 and x = 11"
    scene, _ = read_glb(tmp_path / "meshes" / "plan.glb")
    assert [n["name"] for n in scene["nodes"]] == [
        "Future liver remnant", "Liver resection", "CRLM 1", "CRLM 2", "CRLM 3", "Resection surface",
    ]  # fmt: skip


def test_metastases_and_a_flat_cut_are_markups_of_3d_slicer(tmp_path: Path, make_plan: Callable[..., Plan]) -> None:
    """What markups-schema-v1.0.3.json of 3D Slicer asks for; the whole files were validated against it by hand."""
    plan = make_plan("oblique")
    write_meshes(plan, tmp_path)
    found = {}
    for name, kind in (("crlm", "Fiducial"), ("cut_plane", "Plane")):
        content = json.loads((tmp_path / "meshes" / f"{name}.mrk.json").read_text())
        assert content["@schema"].endswith("markups-schema-v1.0.3.json#")
        (markup,) = content["markups"]
        assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == (kind, "LPS", "mm")
        assert all(point["positionStatus"] == "defined" and isinstance(point["id"], str) for point in markup["controlPoints"])
        found[name] = markup
    lesions = plan.parts.lesions
    assert [p["label"] for p in found["crlm"]["controlPoints"]] == [f"CRLM {n.number}" for n in lesions]
    assert [tuple(p["position"]) for p in found["crlm"]["controlPoints"]] == [n.centre_lps_mm for n in lesions]
    assert "mm to the cut" in found["crlm"]["controlPoints"][0]["description"]
    plane = found["cut_plane"]
    assert (len(plane["orientation"]), len(plane["size"]), len(plane["planeBounds"])) == (9, 3, 4)
    assert np.linalg.det(np.reshape(plane["orientation"], (3, 3))) == pytest.approx(1, abs=1e-3), "right-handed"
    across = plan.ct.geometry.direction_matrix[:, 0]
    assert abs(np.dot(plane["normal"], across)) == pytest.approx(1, abs=1e-3), "the cut is a column of the grid"
    read, frame = read_cut(tmp_path / "meshes" / "cut_plane.mrk.json")
    assert isinstance(read, Plane)
    assert frame == ""
    assert np.dot(np.subtract(read.point_lps_mm, plan.ct.geometry.origin_mm), across) == pytest.approx(0.8 * 10.5, abs=0.4)


def test_a_bent_cut_has_no_plane(tmp_path: Path, make_plan: Callable[..., Plan]) -> None:
    plan = make_plan("axial")
    corner = np.array([[0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40]], np.float32)
    bent = Mesh(corner, np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1]], np.int32))
    plan.__dict__["meshes"] = {"resection_surface": bent}
    write_meshes(plan, tmp_path)
    assert not (tmp_path / "meshes" / "cut_plane.mrk.json").exists()
