"""Writing results: beside, flushed to disk, then renamed. A reader sees the whole file or the previous one."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.errors import OutputError
from flrplan.geometry import Geometry


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to; it is renamed onto ``path`` if the block succeeds, removed if not.

    Raises: OutputError where the block raises OSError, or SimpleITK's RuntimeError (a full disk, no permission).
    """
    path = Path(path)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise OutputError(
            f"{path} could not be written ({lines[-1] if lines else type(error).__name__}); free disk space, or choose a folder "
            "that can be written"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_label_map(path: Path, array_zyx: NDArray[Any], geometry: Geometry) -> None:
    """A label map ``(Z, Y, X)`` bool or uint8 on ``geometry``, compressed; read back and compared before it counts.

    (ITK's NIfTI writer does not notice a full disk, so only reading back tells.)
    Raises: GridError for another shape; OutputError where it cannot be written whole.
    """
    image = geometry.image(array_zyx.astype(np.uint8))
    with replacing(path) as beside:
        sitk.WriteImage(image, str(beside), useCompression=True)
        written = sitk.ReadImage(str(beside))
        if not Geometry.of(written).is_same_grid(geometry) or not np.array_equal(
            sitk.GetArrayViewFromImage(written), array_zyx
        ):
            raise OSError("the file on disk is not what was written")


def write_text(path: Path, text: str) -> None:
    """Text in UTF-8. Raises: OutputError where it cannot be written whole."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Indented JSON; NaN and infinity become null. Raises: OutputError where it cannot be written whole."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """Values that JSON knows, recursively."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    return str(value) if isinstance(value, Path) else value
