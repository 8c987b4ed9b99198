"""Channels that several stages need are on the disk once, under all their names (hard links).

The whole CT is shared by ``liver`` and ``flr_e2e``, the CT in the liver by ``crlm`` and ``flr``. What decides is the content, so a
setting that changes a channel parts them. Preprocessed arrays are shared by the architectures of a stage, not by stages: nnU-Net
normalises a CT with the intensities inside the target.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.files import link
from flrplan.image import Geometry, write_volume

CHANNELS_NAME = "shared_channels"
"""Folder of channels in the work folder; a file is called by the SHA-256 of its voxels and geometry."""


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
