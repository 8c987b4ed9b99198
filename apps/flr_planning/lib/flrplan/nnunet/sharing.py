"""Files that several stages or architectures need are on the disk once, under all their names (hard links).

Raw channels are shared by their content: the whole CT by ``liver`` and ``flr_e2e``, the CT in the liver by ``crlm`` and ``flr``.
Preprocessed arrays are shared where everything that decides them agrees (:func:`preprocessing_key`): by architectures of a stage
that plan the same grid. Not by ``liver`` and ``flr_e2e``: nnU-Net normalises a CT with the intensities inside the target.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.geometry import Geometry
from flrplan.io import replacing, write_json, write_volume

CHANNELS_NAME = "shared_channels"
PREPROCESSED_NAME = "shared_preprocessed"

_DECIDING = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_seg",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg_kwargs",
)
"""What of a configuration decides the preprocessed arrays; patch, batch and network do not."""
_DECIDING_GLOBAL = ("transpose_forward", "foreground_intensity_properties_per_channel", "image_reader_writer")


def write_shared(path: Path, array_zyx: NDArray[Any], geometry: Geometry, shared: Path | None) -> None:
    """Writes a channel ``(Z, Y, X)``, or links it to the file in ``shared`` with the same voxels and geometry."""
    if shared is None:
        write_volume(path, array_zyx, geometry, compression_level=1)
        return
    digest = hashlib.sha256(f"{geometry}{array_zyx.dtype}{array_zyx.shape}".encode())
    digest.update(np.ascontiguousarray(array_zyx).data)
    source = shared / f"{digest.hexdigest()}.nii.gz"
    if not source.is_file():
        write_volume(source, array_zyx, geometry, compression_level=1)
    link(source, path)


def link(source: Path, path: Path) -> None:
    """A second name for a file, in one step; a copy where the file system has no hard links. Raises: OutputError."""
    with replacing(path) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)


def preprocessing_key(data: Mapping[str, Any], plans: Mapping[str, Any], configuration: str) -> str:
    """Hex SHA-256 of all that decides preprocessed arrays: the raw data (``data``) and these parts of nnU-Net's plan."""
    plan = plans["configurations"][configuration]
    content = {
        "data": data,
        **{name: plans[name] for name in _DECIDING_GLOBAL},
        **{name: plan[name] for name in _DECIDING},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def take_preprocessed(root: Path, key: str, folder: Path) -> bool:
    """Links the arrays that another preparation under ``root`` made into ``folder``; False where there is none."""
    record = root / PREPROCESSED_NAME / f"{key}.json"
    if not record.is_file():
        return False
    content = json.loads(record.read_text(encoding="utf-8"))
    source = root / content["folder"]
    if source == folder or any(not _is_same(source / name, size) for name, size in content["files"].items()):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    for name in content["files"]:
        link(source / name, folder / name)
    return True


def offer_preprocessed(root: Path, key: str, folder: Path) -> None:
    """Lets other preparations under ``root`` link these arrays. Call it when they are whole."""
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    write_json(root / PREPROCESSED_NAME / f"{key}.json", {"folder": str(folder.relative_to(root)), "files": files})


def _is_same(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
