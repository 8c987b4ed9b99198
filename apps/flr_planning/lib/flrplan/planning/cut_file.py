"""A surgeon's cut as viewers export it: a plane (3D Slicer's markups JSON) or a mesh (STL, PLY, VTP), in LPS mm.

The frame is the one that the file states: ``coordinateSystem`` of a markup, ``SPACE=LPS`` or ``SPACE=RAS`` in the header of a mesh, as 3D
Slicer writes it; LPS where a mesh states none, as 3D Slicer reads it.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from flrplan.errors import LabelError
from flrplan.files import readable
from flrplan.planning.meshes import Mesh

FORMATS = ".mrk.json (a plane of 3D Slicer), .stl, .ply or .vtp"
_TO_LPS = np.array([-1.0, -1.0, 1.0])
_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"), **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"), **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"), **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"), **dict.fromkeys(("double", "float64"), "f8"),
}  # fmt: skip
_VTK_TYPES = {
    "Int8": "i1", "UInt8": "u1", "Int16": "i2", "UInt16": "u2", "Int32": "i4", "UInt32": "u4", "Int64": "i8", "UInt64": "u8",
    "Float32": "f4", "Float64": "f8",
}  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """A plane through a point, LPS mm. normal_lps: of any length but 0. Raises: LabelError for values that are no plane."""

    point_lps_mm: tuple[float, float, float]
    normal_lps: tuple[float, float, float]

    def __post_init__(self) -> None:
        given = self.point_lps_mm, self.normal_lps
        try:
            point, normal = (tuple(float(value) for value in values) for values in given)
        except (TypeError, ValueError, OverflowError):
            point = normal = ()
        if len(point) != 3 or len(normal) != 3 or not np.isfinite((*point, *normal)).all() or not any(normal):
            raise LabelError(
                f"a cutting plane is a point and a normal that is not 0, three numbers each (LPS, mm), got {given[0]} and {given[1]}"
            )
        object.__setattr__(self, "point_lps_mm", point)  # numpy's own numbers are none of JSON's
        object.__setattr__(self, "normal_lps", normal)


def plane_of_text(text: str) -> Plane | None:
    """The plane of ``x,y,z,nx,ny,nz`` (LPS, mm); None for a text that is not made of numbers, such as a path. Raises: LabelError."""
    parts = text.replace(",", " ").split()
    try:
        x, y, z, nx, ny, nz = (float(part) for part in parts)
    except ValueError:
        if re.fullmatch(r"[-+\d.eE,\s]+", text) and not Path(text).exists():
            raise LabelError(
                f"a cutting plane is six numbers, a point and a normal (x,y,z,nx,ny,nz in LPS mm), got {text!r}"
            ) from None
        return None
    return Plane((x, y, z), (nx, ny, nz))


def read_cut(path: Path) -> tuple[Plane | Mesh, str]:
    """The cut of a file, and a sentence where its frame had to be assumed.

    Raises: LabelError, naming the file, for a damaged file, other formats, no plane, several planes, and a mesh without triangles.
    """
    name = path.name.lower()
    reader: Callable[[bytes], tuple[Plane | Mesh, str]] | None = next(
        (read for end, read in ((".json", _markup), (".stl", _stl), (".ply", _ply), (".vtp", _vtp)) if name.endswith(end)), None
    )
    if reader is None:
        raise LabelError(f"{path}: expected a cut as {FORMATS}; a resection that was drawn as a mask is given as such")
    try:
        cut, frame = reader(path.read_bytes())
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error
    except OSError as error:
        raise LabelError(f"{path}: the cut cannot be read ({error.strerror}); check the path") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ElementTree.ParseError, zlib.error) as error:
        raise LabelError(f"{path}: expected a cut as {FORMATS}, the file is damaged ({error}); export it again") from error
    if frame.upper() not in ("LPS", "RAS", ""):
        raise LabelError(f"{path}: expected the frame LPS or RAS, found {frame!r}; export it again")
    if isinstance(cut, Mesh):
        require_surface(cut, str(path))
        if frame.upper() == "RAS":
            cut = Mesh((cut.vertices_lps_mm * _TO_LPS).astype(np.float32), cut.triangles)
        return (
            cut,
            "" if frame else f"{readable(path.name)} does not say whether its places are LPS or RAS; they were taken as LPS",
        )
    return cut, ""


def require_surface(mesh: Mesh, source: str) -> None:
    """Raises: LabelError, naming the source, for a mesh without triangles, or with places or triangles that are none."""
    places, triangles = np.asarray(mesh.vertices_lps_mm), np.asarray(mesh.triangles)
    if not (_is_table(places, "fiu") and _is_table(triangles, "iu")):
        raise LabelError(f"{source}: expected vertices (N, 3) and triangles (M, 3), found {places.shape} and {triangles.shape}")
    if not len(triangles):
        raise LabelError(f"{source}: the mesh has no triangle; export the surface of the cut")
    if not np.isfinite(places).all():
        raise LabelError(f"{source}: the mesh has places that are no number; export it again")
    if not 0 <= triangles.min() <= triangles.max() < len(places):
        raise LabelError(f"{source}: its triangles name vertices that are not among its {len(places)}; export it again")


def _is_table(array: NDArray[Any], kinds: str) -> bool:
    return array.ndim == 2 and array.shape[1] == 3 and array.dtype.kind in kinds


def _markup(data: bytes) -> tuple[Plane, str]:
    found = [m for m in json.loads(data.decode("utf-8")).get("markups", []) if m.get("type") == "Plane"]
    if len(found) != 1:
        raise LabelError(f"expected one plane among the markups, found {len(found)}; save the plane alone")
    plane = found[0]
    frame = {"0": "RAS", "1": "LPS"}.get(str(plane.get("coordinateSystem")), str(plane.get("coordinateSystem") or "RAS"))
    unit = plane.get("coordinateUnits", "mm")
    if unit not in ("mm", ["mm", "UCUM", "mm"]) and not (isinstance(unit, dict) and "mm" in unit.values()):
        raise LabelError(f"expected millimetres, found {unit!r}; export it in mm")
    centre, normal = plane.get("center", plane.get("origin")), plane.get("normal")
    if centre is None or normal is None:  # planes of before 3D Slicer 5 are three points
        places = [np.asarray(point["position"], float) for point in plane.get("controlPoints", [])]
        if len(places) != 3:
            raise LabelError(
                "expected a plane with center and normal, or three control points; place the plane and save it again"
            )
        centre, normal = places[0], np.cross(places[1] - places[0], places[2] - places[0])
    turn = _TO_LPS if frame.upper() == "RAS" else np.ones(3)
    point, direction = (tuple((np.asarray(v, float) * turn).tolist()) for v in (centre, normal))
    return Plane(point, direction), frame


def _stl(data: bytes) -> tuple[Mesh, str]:
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    if len(data) == 84 + 50 * count:
        faces = np.frombuffer(data, np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")]), count, 84)
        return _welded(faces["corners"]), _space(data[:80])
    if not data.lstrip().startswith(b"solid"):
        raise LabelError(
            f"an STL of {count} triangles has {84 + 50 * count} bytes, found {len(data)}: it is cut off or damaged; export it again"
        )
    places = re.findall(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", data)
    return _welded(np.asarray(places, float).reshape(-1, 3, 3)), _space(data[:400])


def _welded(corners: NDArray[Any]) -> Mesh:
    """A mesh of triangles ``(N, 3, 3)`` that share no vertex in the file."""
    vertices, index = np.unique(np.asarray(corners, np.float32).reshape(-1, 3), axis=0, return_inverse=True)
    return Mesh(vertices, index.reshape(-1, 3).astype(np.int32))


def _ply(data: bytes) -> tuple[Mesh, str]:
    end = re.search(rb"end_header\r?\n", data)
    if end is None or not data.startswith(b"ply"):
        raise LabelError("the header of a PLY is missing; export it again")
    head, body = data[: end.start()].decode("latin-1"), data[end.end() :]
    order = "<" if "format binary_little_endian" in head else ">"
    words = iter(body.split() if "format ascii" in head else [])
    binary = "format ascii" not in head
    at, found = 0, {}

    def take(kind: str, count: int) -> NDArray[Any]:
        nonlocal at
        if not binary:
            return np.asarray([float(next(words, b"")) for _ in range(count)])
        values = np.frombuffer(body, order + _PLY_TYPES[kind], count, at)
        at += values.nbytes
        return values

    for part in re.split(r"^element ", head, flags=re.M)[1:]:
        name, count = part.split()[:2]
        properties = [line.split()[1:] for line in part.splitlines() if line.startswith("property")]
        if name == "vertex":
            named = [p[1] for p in properties]
            if not binary:
                rows = take("double", int(count) * len(named)).reshape(int(count), len(named))
            else:
                kinds = np.dtype([(n, order + _PLY_TYPES[p[0]]) for n, p in zip(named, properties, strict=True)])
                table = np.frombuffer(body, kinds, int(count), at)
                at += table.nbytes
                rows = np.stack([table[n] for n in named], axis=1).astype(float)
            found["vertex"] = rows[:, [named.index(axis) for axis in "xyz"]]
        elif name == "face":
            polygons = []
            for _ in range(int(count)):
                for kinds_of in properties:
                    if kinds_of[0] == "list":
                        values = take(kinds_of[2], int(take(kinds_of[1], 1)[0]))
                        if kinds_of[3] in ("vertex_indices", "vertex_index"):
                            polygons.append(values.astype(int))
                    else:
                        take(kinds_of[0], 1)
            found["face"] = _fans(polygons)
            break
    return Mesh(found["vertex"].astype(np.float32), found["face"]), _space(head.encode("latin-1"))


def _fans(polygons: list[NDArray[Any]]) -> NDArray[np.int32]:
    """Polygons as triangles around their first corner."""
    triangles = [(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)]
    return np.asarray(triangles, np.int32).reshape(-1, 3)


def _vtp(data: bytes) -> tuple[Mesh, str]:
    """VTK XML PolyData: ascii, base64 or appended arrays, raw or compressed by zlib."""
    text, mark, rest = data.partition(b"<AppendedData")
    raw = rest.partition(b"_")[2] if mark else b""
    encoded = b'encoding="base64"' in rest.partition(b">")[0]
    root = ElementTree.fromstring(text + (b"</VTKFile>" if mark else b""))
    order = ">" if root.get("byte_order") == "BigEndian" else "<"
    length = np.dtype(order + _VTK_TYPES[root.get("header_type", "UInt32")])

    def values(array: ElementTree.Element) -> NDArray[Any]:
        kind = np.dtype(order + _VTK_TYPES[array.get("type", "")])
        form = array.get("format")
        if form == "ascii":
            return np.asarray((array.text or "").split(), float).astype(kind)
        source, in_text = (
            ((array.text or "").strip().encode(), True) if form == "binary" else (raw[int(array.get("offset", 0)) :], encoded)
        )
        return np.frombuffer(_blocks(source, length, in_text, root.get("compressor")), kind)

    def named(where: str, name: str) -> NDArray[Any]:
        arrays = root.findall(f"./PolyData/Piece/{where}/DataArray")
        array = arrays[:1] if where == "Points" else [a for a in arrays if a.get("Name") == name]
        return values(array[0]) if array else np.zeros(0)

    if len(root.findall("./PolyData/Piece")) != 1:
        raise LabelError("expected one piece of PolyData; export the surface as one model")
    vertices = named("Points", "").reshape(-1, 3)
    corners, ends = named("Polys", "connectivity").astype(int), named("Polys", "offsets").astype(int)
    triangles = _fans([corners[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=False)])
    said = root.find(".//Array[@Name='SPACE']")
    codes = ((said.text if said is not None else None) or "").split()
    frame = "".join(chr(int(code)) for code in codes if int(code))
    return Mesh(vertices.astype(np.float32), triangles), frame


def _blocks(source: bytes, length: np.dtype[Any], in_text: bool, compressor: str | None) -> bytes:
    """The bytes of one array: its length and they, or, compressed, the number and sizes of blocks and they; each may be base64."""

    def part(count: int, start: int = 0) -> tuple[bytes, int]:
        if not in_text:
            return source[start : start + count], start + count
        end = start + -(-count // 3) * 4
        return base64.b64decode(source[start:end])[:count], end

    if compressor is None:
        head, end = part(length.itemsize)
        size = int(np.frombuffer(head, length)[0])
        if in_text and b"=" not in source[:end]:  # one stream with its length
            return part(length.itemsize + size)[0][length.itemsize :]
        return part(size, end)[0]
    if compressor != "vtkZLibDataCompressor":
        raise LabelError(f"its arrays are compressed by {compressor}; export it uncompressed or with zlib")
    count = int(np.frombuffer(part(length.itemsize)[0], length)[0])
    head, end = part((3 + count) * length.itemsize)
    sizes = np.frombuffer(head, length)[3:].tolist()
    packed, out, at = part(sum(sizes), end)[0], b"", 0
    for size in sizes:
        out += zlib.decompress(packed[at : at + size])
        at += size
    return out


def _space(head: bytes) -> str:
    """What a header states: ``SPACE=LPS``; nothing where it does not."""
    found = re.search(rb"SPACE\s*=\s*(\w+)", head)
    return found[1].decode() if found else ""
