"""The area of the surface that passes between 2x2x2 neighbouring voxels, as in surface-distance (Nikolov 2018).

A neighbourhood is a byte: bit ``4*dz + 2*dy + dx`` is the voxel at that corner. The surface is that of marching cubes
(Lorensen 1987) with the triangles' corners at the middle of the cube's edges, so it depends on nothing but the byte and
the spacing. Which triangles close an ambiguous neighbourhood is a convention; the one of
https://github.com/google-deepmind/surface-distance is the same for all rotations, mirror images and complements of a
neighbourhood. Fourteen kinds of neighbourhood are therefore enough to state it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import permutations, product
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

AreaVectors = tuple[tuple[int, int, int], ...]

_CORNER_CUT = (1, 1, 1)

TRIANGLES_BY_KIND: Mapping[int, AreaVectors] = MappingProxyType(
    {
        0b00000000: (),
        0b00000001: (_CORNER_CUT,),
        0b00000011: ((2, 2, 0),) * 2,
        0b00000110: (_CORNER_CUT,) * 2,
        0b00000111: (_CORNER_CUT, (2, 2, 2), (4, 0, 0)),
        0b00001111: ((4, 0, 0),) * 2,
        0b00010110: (_CORNER_CUT,) * 3,
        0b00010111: (_CORNER_CUT, _CORNER_CUT, (2, 2, 2), (2, 2, 2)),
        0b00011000: (_CORNER_CUT,) * 2,
        0b00011001: (_CORNER_CUT, (0, 2, 2), (0, 2, 2)),
        0b00011011: (_CORNER_CUT, (0, 2, 2), (2, 0, 2), (3, 3, 3)),
        0b00011110: (_CORNER_CUT, _CORNER_CUT, (2, 2, 2), (4, 0, 0)),
        0b00111100: ((2, 2, 0),) * 4,
        0b01101001: (_CORNER_CUT,) * 4,
    }
)
"""One neighbourhood of each kind and its triangles: their area vectors (z, y, x), signs dropped, in eighths of a voxel face.

``(1, 1, 1)`` is the triangle that cuts off one corner, ``(4, 0, 0)`` half of the face across z, and so on.
"""


def _symmetries() -> Iterator[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    for axes in permutations((0, 1, 2)):
        for mirror in product((0, 1), repeat=3):
            yield (axes[0], axes[1], axes[2]), (mirror[0], mirror[1], mirror[2])


def _moved(code: int, axes: tuple[int, int, int], mirror: tuple[int, int, int]) -> int:
    """The byte of a neighbourhood after its axes are exchanged (new axis i is old axis ``axes[i]``) and mirrored."""
    result = 0
    for corner in product((0, 1), repeat=3):
        if code >> (4 * corner[0] + 2 * corner[1] + corner[2]) & 1:
            z, y, x = (corner[axes[i]] ^ mirror[i] for i in range(3))
            result |= 1 << (4 * z + 2 * y + x)
    return result


@lru_cache(maxsize=1)
def _triangles_by_code() -> tuple[AreaVectors, ...]:
    table: dict[int, AreaVectors] = {}
    for kind, triangles in TRIANGLES_BY_KIND.items():
        for axes, mirror in _symmetries():
            code = _moved(kind, axes, mirror)
            moved = tuple((t[axes[0]], t[axes[1]], t[axes[2]]) for t in triangles)
            table[code] = table[255 - code] = moved
    return tuple(table[code] for code in range(256))


@lru_cache(maxsize=64)
def area_table_mm2(spacing_zyx_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """``(256,) float64``: the area in mm2 of the surface inside each of the 256 neighbourhoods; 0 where there is none."""
    z, y, x = spacing_zyx_mm
    faces = np.array([y * x, z * x, z * y]) / 8.0
    areas = [sum((float(np.linalg.norm(np.array(t) * faces)) for t in code), 0.0) for code in _triangles_by_code()]
    table = np.array(areas)
    table.flags.writeable = False
    return table
