"""Given resections: planes and meshes as files state them, masks, and the largest resection that keeps a threshold."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flrplan.errors import LabelError, SettingsError
from flrplan.image import Geometry
from flrplan.planning.cut_file import Plane, plane_of_text, read_cut, require_surface
from flrplan.planning.given import at_least_percent, largest_resection, remnant_of_cut, remnant_of_masks
from flrplan.planning.meshes import Mesh, cut_mesh, surface_mesh

GRID = Geometry((40, 30, 16), (1.0, 1.5, 2.5), (-20.0, 10.0, 300.0))
LIVER = np.zeros(GRID.shape_zyx, bool)
LIVER[2:14, 3:27, 4:36] = True  # 32 x 36 x 30 mm
CRLM = np.zeros_like(LIVER)
CRLM[6:9, 10:14, 28:32] = True
LEFT_OF_X0 = LIVER.copy()
LEFT_OF_X0[:, :, :21] = False  # voxel centres at x = 1 mm and more

SQUARE = np.array([[0.5, -50, 250], [0.5, 150, 250], [0.5, 150, 400], [0.5, -50, 400]], np.float32)
"""A plane x = 0.5 mm, far beyond the liver."""
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def stl(mesh: Mesh, space: bytes = b"3D Slicer output. SPACE=LPS") -> bytes:
    faces = np.zeros(len(mesh.triangles), np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")]))
    faces["corners"] = mesh.vertices_lps_mm[mesh.triangles]
    return space.ljust(80, b" ") + struct.pack("<I", len(faces)) + faces.tobytes()


def ascii_stl(mesh: Mesh) -> bytes:
    text = "solid 3D Slicer output. SPACE=RAS\n"
    for corners in mesh.vertices_lps_mm[mesh.triangles] * [-1, -1, 1]:
        text += (
            "facet normal 0 0 0\nouter loop\n"
            + "".join(f"vertex {x} {y} {z}\n" for x, y, z in corners.tolist())
            + "endloop\nendfacet\n"
        )
    return (text + "endsolid\n").encode()


def ply(mesh: Mesh, binary: bool) -> bytes:
    form = "binary_little_endian" if binary else "ascii"
    head = (
        f"ply\nformat {form} 1.0\ncomment 3D Slicer output. SPACE=LPS\nelement vertex {len(mesh.vertices_lps_mm)}\nproperty float x\n"
        f"property float y\nproperty float z\nelement face {len(mesh.triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    ).encode()
    if binary:
        faces = b"".join(b"\x03" + np.asarray(t, "<i4").tobytes() for t in mesh.triangles)
        return head + mesh.vertices_lps_mm.astype("<f4").tobytes() + faces
    lines = [" ".join(map(str, v)) for v in mesh.vertices_lps_mm.tolist()] + [
        f"3 {a} {b} {c}" for a, b, c in mesh.triangles.tolist()
    ]
    return head + "\n".join(lines).encode() + b"\n"


def vtp(mesh: Mesh, form: str) -> bytes:
    """VTK XML: ascii, binary (base64), zlib (compressed, base64), raw (appended)."""
    appended = b""

    def array(name: str, kind: str, values: np.ndarray, components: int = 1) -> str:
        nonlocal appended
        data = values.tobytes()
        start = f'<DataArray type="{kind}" Name="{name}" NumberOfComponents="{components}" '
        if form == "ascii":
            return start + f'format="ascii">{" ".join(map(str, values.ravel().tolist()))}</DataArray>'
        if form == "raw":
            offset = len(appended)
            appended += struct.pack("<I", len(data)) + data
            return start + f'format="appended" offset="{offset}"/>'
        if form == "zlib":
            packed = zlib.compress(data)
            head = struct.pack("<4I", 1, len(data), 0, len(packed))
            text = base64.b64encode(head) + base64.b64encode(packed)
        else:
            text = base64.b64encode(struct.pack("<I", len(data)) + data)
        return start + f'format="binary">\n{text.decode()}\n</DataArray>'

    points = array("Points", "Float32", mesh.vertices_lps_mm.astype("<f4"), 3)
    polys = array("connectivity", "Int64", mesh.triangles.astype("<i8").ravel())
    polys += array("offsets", "Int64", np.arange(3, 3 * len(mesh.triangles) + 1, 3, dtype="<i8"))
    compressor = ' compressor="vtkZLibDataCompressor"' if form == "zlib" else ""
    text = (
        f'<?xml version="1.0"?><VTKFile type="PolyData" version="0.1" byte_order="LittleEndian" header_type="UInt32"{compressor}>'
        f'<PolyData><FieldData><Array type="String" Name="SPACE" format="ascii">76 80 83 0</Array></FieldData>'
        f"<Piece><Points>{points}</Points><Polys>{polys}</Polys></Piece></PolyData>"
    ).encode()
    return (
        text + (b'<AppendedData encoding="raw">\n_' + appended + b"\n</AppendedData>" if form == "raw" else b"") + b"</VTKFile>"
    )


def markup(**plane: object) -> bytes:
    return json.dumps({"markups": [{"type": "Plane", "coordinateSystem": "LPS", "coordinateUnits": "mm", **plane}]}).encode()


SQUARE_MESH = Mesh(SQUARE, TRIANGLES)
FILES = {
    "a.mrk.json": markup(planeType="pointNormal", center=[0.5, 0, 0], normal=[1, 0, 0]),
    "b.mrk.json": markup(coordinateSystem="RAS", center=[-0.5, 7, 9], normal=[-2, 0, 0]),
    "c.mrk.json": markup(controlPoints=[{"position": p} for p in ([0.5, 0, 0], [0.5, 1, 0], [0.5, 0, 1])]),
    "d.stl": stl(SQUARE_MESH),
    "e.stl": ascii_stl(SQUARE_MESH),
    "f.ply": ply(SQUARE_MESH, True),
    "g.ply": ply(SQUARE_MESH, False),
    **{f"{form}.vtp": vtp(SQUARE_MESH, form) for form in ("ascii", "binary", "zlib", "raw")},
}


@pytest.mark.parametrize("name", list(FILES))
def test_a_plane_cuts_the_same_from_every_file_and_takes_the_side_of_the_metastases(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    cut, note = read_cut(tmp_path / name)
    flr, said = remnant_of_cut(cut, LIVER, CRLM, GRID)
    assert np.array_equal(flr, LIVER & ~LEFT_OF_X0)
    assert "the side with more of the metastases is resected" in said
    assert note == ""
    assert np.array_equal(remnant_of_cut(cut, LIVER, CRLM, GRID, other_side=True)[0], LEFT_OF_X0)


def test_without_metastases_the_smaller_side_is_resected_whichever_way_the_normal_points() -> None:
    for x in (1.0, -1.0, 1e-200, -1e200):
        flr, said = remnant_of_cut(Plane((0.5, 0.0, 0.0), (x, 0.0, 0.0)), LIVER, np.zeros_like(LIVER), GRID)
        assert np.array_equal(flr, LIVER & ~LEFT_OF_X0)
        assert "the smaller side is resected" in said


@pytest.mark.parametrize("direction", [(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), (0, -1.0, 0, 1.0, 0, 0, 0, 0, 1.0)])
def test_a_cut_and_a_resection_that_were_exported_as_meshes_come_back(direction: tuple[float, ...], tmp_path: Path) -> None:
    grid = Geometry(GRID.size_xyz, GRID.spacing_mm, GRID.origin_mm, direction)
    flr = LIVER.copy()
    z, y, x = np.indices(LIVER.shape)
    flr &= x < 18 + 0.3 * y - 0.4 * (z - 8)  # an oblique cut
    bent = flr & ~((y > 14) & (x > 16))  # and one with a corner
    for name, remnant in (("oblique", flr), ("bent", bent)):
        (tmp_path / "cut.stl").write_bytes(stl(cut_mesh(LIVER, remnant, grid)))
        back, _ = remnant_of_cut(read_cut(tmp_path / "cut.stl")[0], LIVER, CRLM, grid)
        assert np.count_nonzero(back ^ remnant) < 0.03 * LIVER.sum(), name
        (tmp_path / "part.stl").write_bytes(stl(surface_mesh(LIVER & ~remnant, grid, 1.0)))
        back, said = remnant_of_cut(read_cut(tmp_path / "part.stl")[0], LIVER, CRLM, grid)
        assert np.count_nonzero(back ^ remnant) < 0.04 * LIVER.sum(), name
        assert "what the closed mesh encloses is resected" in said


def test_a_closed_mesh_far_larger_than_the_liver_encloses_its_part() -> None:
    corners = np.array([[x, y, z] for x in (0.5, 900) for y in (-900, 900) for z in (-900, 900)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    box = Mesh(corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32))
    assert box.is_closed
    flr, _ = remnant_of_cut(box, LIVER, CRLM, GRID)
    assert np.array_equal(flr, LIVER & ~LEFT_OF_X0)


def short_of(y_to: float) -> Mesh:
    """The square that ends at a y inside the liver."""
    square = SQUARE.copy()
    square[[1, 2], 1] = y_to
    return Mesh(square, TRIANGLES)


def test_an_open_mesh_may_end_a_little_before_the_capsule_and_no_more() -> None:
    flr, _ = remnant_of_cut(short_of(43.0), LIVER, CRLM, GRID)  # the liver ends at y = 50
    assert np.array_equal(flr, LIVER & ~LEFT_OF_X0)
    with pytest.raises(
        LabelError, match=r"does not divide the liver: it ends, or has a hole, inside it .* extend it beyond the liver"
    ):
        remnant_of_cut(short_of(25.0), LIVER, CRLM, GRID)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (Plane((60.0, 0.0, 0.0), (1.0, 0.0, 0.0)), r"the plane misses the liver; it passes 45 mm from it, the liver at x -16 to 15"),
        (Mesh(SQUARE + 200, TRIANGLES), r"the cut surface misses the liver; it lies at x 200 to 200.*states LPS or RAS rightly"),
        (surface_mesh(CRLM, Geometry(GRID.size_xyz, GRID.spacing_mm, (500.0, 0.0, 0.0))), r"the closed mesh misses the liver"),
    ],
)  # fmt: skip
def test_a_cut_that_misses_the_liver_says_where_both_lie(cut: Plane | Mesh, said: str) -> None:
    with pytest.raises(LabelError, match=said):
        remnant_of_cut(cut, LIVER, CRLM, GRID)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("cut.obj", b"v 0 0 0", "expected a cut as .mrk.json"),
        ("cut.stl", stl(SQUARE_MESH)[:-7], "cut off or damaged; export it again"),
        ("cut.stl", stl(Mesh.empty()), "the mesh has no triangle"),
        ("cut.stl", stl(Mesh(SQUARE * np.float32("nan"), TRIANGLES)), "places that are no number"),
        ("cut.ply", b"nothing", "the header of a PLY is missing"),
        ("cut.ply", ply(SQUARE_MESH, True)[:-5], "the file is damaged"),
        ("cut.ply", ply(Mesh(SQUARE, TRIANGLES + 2), False), "name vertices that are not among its 4"),
        ("cut.vtp", vtp(SQUARE_MESH, "binary")[:-40], "the file is damaged"),
        ("cut.mrk.json", b"{", "the file is damaged"),
        ("cut.mrk.json", b"[" * 100_000, "the file is damaged"),
        ("cut.mrk.json", json.dumps({"markups": [{"type": "Line"}]}).encode(), "expected one plane among the markups, found 0"),
        ("cut.mrk.json", markup(center=[0, 0, 0], normal=[0, 0, 0]), "a normal that is not 0"),
        ("cut.mrk.json", markup(center=[0, 0], normal=[0, 0, 1]), "the file is damaged"),
        ("cut.mrk.json", markup(coordinateSystem="IJK", center=[0, 0, 0], normal=[0, 0, 1]), "expected the frame LPS or RAS, found 'IJK'"),
    ],
)  # fmt: skip
def test_files_that_are_no_cut_are_named_with_what_to_do(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LabelError, match=re.escape(said)) as found:
        read_cut(tmp_path / name)
    assert str(tmp_path / name) in str(found.value)


def test_a_mesh_that_states_no_frame_is_taken_as_lps_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "cut.stl").write_bytes(stl(SQUARE_MESH, b"made elsewhere"))
    cut, note = read_cut(tmp_path / "cut.stl")
    assert note == "cut.stl does not say whether its places are LPS or RAS; they were taken as LPS"
    assert np.array_equal(remnant_of_cut(cut, LIVER, CRLM, GRID)[0], LIVER & ~LEFT_OF_X0)


def test_given_masks_may_be_empty_but_not_elsewhere() -> None:
    assert np.array_equal(remnant_of_masks(None, LEFT_OF_X0, LIVER, 0.001)[0], LIVER & ~LEFT_OF_X0)
    assert remnant_of_masks(np.zeros_like(LIVER), None, LIVER, 0.001) == (pytest.approx(np.zeros_like(LIVER)), [])
    beyond = LEFT_OF_X0.copy()
    beyond[0] = True
    assert remnant_of_masks(None, beyond, LIVER, 0.001)[1] == [
        "1.2 ml of the given resection lie outside the liver and take no part"
    ]
    with pytest.raises(
        LabelError, match=r"the given FLR \(1.2 ml\) lies outside the liver; give one that was drawn on this CT"
    ):
        remnant_of_masks(beyond & ~LIVER, None, LIVER, 0.001)


def test_the_largest_resection_keeps_the_threshold_by_less_than_one_layer() -> None:
    flr = LIVER & ~LEFT_OF_X0
    for percent in (30.0, 50.0, 80.0):
        found = largest_resection(LIVER, CRLM, flr, GRID, percent)
        assert found is not None
        remnant, moved_mm = found
        share = (remnant & ~CRLM).sum() / (LIVER & ~CRLM).sum()
        assert percent / 100 <= share < percent / 100 + 1 / 32, "one column of 32"
        columns = np.flatnonzero(remnant.any(axis=(0, 1)))
        assert moved_mm == pytest.approx(20 - columns[-1], abs=1.01), "columns of 1 mm, the plan's remnant ends at 20"
        lesion = remnant[CRLM]
        assert lesion.all() or not lesion.any(), "no cut goes through it"
    assert largest_resection(LIVER, CRLM, LIVER, GRID, 30.0) is None
    assert largest_resection(np.zeros_like(LIVER), CRLM, flr, GRID, 30.0) is None


@pytest.mark.parametrize(("value", "said"), [(0.3, "looks like a fraction: 30"), (0, "between 0 and 100"), (100, "between 0 and 100"), (float("nan"), "between")])  # fmt: skip
def test_a_wanted_percentage_is_one(value: float, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        at_least_percent(value)


@pytest.mark.parametrize(
    ("point", "normal"),
    [((0, 0), (0, 1, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((0, 0, float("nan")), (1, 0, 0)), (("a", 0, 0), (1, 0, 0)), (None, (1, 0, 0)), ((10**400, 0, 0), (1, 0, 0))],
)  # fmt: skip
def test_a_plane_is_two_times_three_numbers(point: Any, normal: Any) -> None:
    with pytest.raises(LabelError, match=r"a cutting plane is a point and a normal that is not 0, three numbers each"):
        Plane(point, normal)


def test_a_plane_of_arrays_holds_plain_numbers() -> None:
    plane = Plane(np.float32([1, 2, 3]), np.int64([0, 0, 1]))  # type: ignore[arg-type]
    assert plane == Plane((1.0, 2.0, 3.0), (0.0, 0.0, 1.0))
    assert {type(v) for v in (*plane.point_lps_mm, *plane.normal_lps)} == {float}


@pytest.mark.parametrize(
    ("vertices", "triangles", "said"),
    [
        (SQUARE, TRIANGLES[:0], "the given cut: the mesh has no triangle"),
        (np.where(SQUARE == 400, np.nan, SQUARE), TRIANGLES, "the given cut: the mesh has places that are no number"),
        (SQUARE, TRIANGLES + 1, "the given cut: its triangles name vertices that are not among its 4"),
        (SQUARE, TRIANGLES - 1, "the given cut: its triangles name vertices that are not among its 4"),
        (SQUARE[:, :2], TRIANGLES, "expected vertices (N, 3) and triangles (M, 3), found (4, 2) and (2, 3)"),
        (SQUARE, TRIANGLES.astype(float), "expected vertices (N, 3) and triangles (M, 3)"),
        (None, None, "expected vertices (N, 3) and triangles (M, 3), found () and ()"),
    ],
)
def test_a_mesh_that_is_no_surface_is_told(vertices: Any, triangles: Any, said: str) -> None:
    with pytest.raises(LabelError, match=re.escape(said)):
        require_surface(Mesh(vertices, triangles), "the given cut")


def test_six_numbers_are_a_plane_and_a_path_is_none() -> None:
    assert plane_of_text("-1,2.5, 3, 0,0,-1") == Plane((-1.0, 2.5, 3.0), (0.0, 0.0, -1.0))
    assert plane_of_text("plane.mrk.json") is None
    with pytest.raises(LabelError, match=r"a cutting plane is six numbers.* got '1,2,3'"):
        plane_of_text("1,2,3")
