"""Lesions told apart, as files: label maps in layers, since lesions may overlap.

``instances/<case>/layer1.nii.gz``, ``layer2.nii.gz``, ...: uint8 on the grid of the CT; the value n is lesion n in every layer, and a
lesion lies wholly in one layer. A lesion goes into the first layer in which it overlaps nothing, so a case without overlaps has one
file, and each file is an ordinary segmentation for 3D Slicer or ITK-SNAP. All layers together are the CRLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Mask
from flrplan.errors import LabelError
from flrplan.image import Geometry, read_label_map, require_same_grid, write_label_map
from flrplan.metrics.region import Region, regions_of

MAX_NUMBER = 255

Instances = Mapping[int, Region]
"""Lesions by number 1..255. They may touch and overlap; none is empty."""


def layer_path(folder: Path, layer: int) -> Path:
    """The file of a layer, counted from 1, in the folder of a case."""
    return folder / f"layer{layer}.nii.gz"


def layer_paths(folder: Path) -> tuple[Path, ...]:
    """The layers of a case, in order; empty where nothing tells its lesions apart.

    Raises: LabelError where a layer is missing between others.
    """
    found = {p.name for p in folder.glob("layer*.nii.gz")} if folder.is_dir() else set()
    paths = tuple(layer_path(folder, k) for k in range(1, len(found) + 1))
    if {p.name for p in paths} != found:
        raise LabelError(
            f"{folder}: expected {', '.join(p.name for p in paths)}, found {', '.join(sorted(found))}; prepare it anew"
        )
    return paths


def layers_of(instances: Instances, geometry: Geometry) -> list[NDArray[np.uint8]]:
    """The layers ``(Z, Y, X) uint8`` of some lesions, at least one. Raises LabelError for a number that is not 1..255."""
    layers: list[NDArray[np.uint8]] = [np.zeros(geometry.shape_zyx, np.uint8)]
    for number, lesion in sorted(instances.items()):
        if not 1 <= number <= MAX_NUMBER:
            raise LabelError(f"lesions are numbered 1 to {MAX_NUMBER}, found {number}")
        free = (layer for layer in layers if not layer[lesion.box][lesion.crop_zyx].any())
        layer = next(free, None)
        if layer is None:
            layers.append(layer := np.zeros(geometry.shape_zyx, np.uint8))
        layer[lesion.box][lesion.crop_zyx] = number
    return layers


def write_instances(folder: Path, instances: Instances, geometry: Geometry) -> list[Path]:
    """Writes the layers of a case, each read back; returns their files. Raises OutputError; LabelError for more than 255."""
    paths = []
    for k, layer in enumerate(layers_of(instances, geometry), 1):
        write_label_map(layer_path(folder, k), layer, geometry)
        paths.append(layer_path(folder, k))
    return paths


def read_instances(paths: Sequence[Path], geometry: Geometry, geometry_name: str) -> dict[int, Region]:
    """The lesions in the layers of a case, by rising number.

    Raises: GridError for another grid; LabelError for a number in two layers, or values that are no label; ImageError.
    """
    found: dict[int, Region] = {}
    for path in paths:
        array, grid = read_label_map(path)
        require_same_grid(geometry, grid, geometry_name, str(path))
        if array.size and not 0 <= int(array.min()) <= int(array.max()) <= MAX_NUMBER:
            raise LabelError(f"{path}: expected lesions numbered 1 to {MAX_NUMBER}, found {array.min()} to {array.max()}")
        own = regions_of(array, geometry.spacing_zyx_mm)
        if twice := sorted(own.keys() & found.keys()):
            raise LabelError(f"{path}: lesion {twice[0]} is in another layer, too; expected each lesion in one layer")
        found |= own
    return dict(sorted(found.items()))


def union_of(instances: Instances, geometry: Geometry) -> Mask:
    """All lesions as one mask ``(Z, Y, X) bool``."""
    mask = np.zeros(geometry.shape_zyx, np.bool_)
    for lesion in instances.values():
        mask[lesion.box][lesion.crop_zyx] = True
    return mask
