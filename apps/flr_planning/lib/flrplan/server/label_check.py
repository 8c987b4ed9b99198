"""A label is checked before it is stored: what an inference would refuse is refused at once, and the upload is kept aside."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from uuid import uuid4

import numpy as np

from flrplan.anatomy import PLANNED, PlanningLabel, Structure, label_name, to_compartments, to_label_map
from flrplan.errors import EmptyLiverError, FlrError, ImageError, LabelError
from flrplan.files import write_json
from flrplan.image import Geometry, read_grid, write_label_map
from flrplan.image.segmentation import Segmentation, read_segmentation
from flrplan.planning import measure_volumes
from flrplan.server.client_error import errors_for_client
from flrplan.server.label_table import names_sent
from flrplan.studies.stored import check_info

logger = logging.getLogger(__name__)

REFUSED = "refused"
"""Folder beside the studies' images: the uploads that were refused, each with its reason."""

_LAST: ContextVar[tuple[str, dict[str, Any]] | None] = ContextVar("last_checked_label", default=None)


class Studies(Protocol):
    """What the check asks of a datastore."""

    _datastore_path: str

    def list_images(self) -> list[str]:
        """Ids of all images."""

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image."""

    def source_of(self, image_id: str, path: Path) -> Path:
        """What is read in place of the image's ``path``."""


@dataclass(frozen=True)
class CheckedLabel:
    """A label on the grid of its image: as it was drawn, and the structures that it holds. moved: the file lies on another grid."""

    drawn: Segmentation
    label: PlanningLabel
    moved: bool

    def summary(self) -> dict[str, Any]:
        """What a person should know of a label that was stored: ``volumes`` in ml (``flr_fraction`` 0..1), and ``warnings``."""
        masks, voxel_ml = self.label.masks, self.drawn.geometry.voxel_volume_ml
        volumes: dict[str, float | None] = {
            f"{s}_ml": round(float(np.count_nonzero(m)) * voxel_ml, 3) for s, m in masks.items()
        }
        warnings = [
            f"{s} is named and has no voxels: it says that there is none" for s, mask in masks.items() if not mask.any()
        ]
        unsaid = [s.value for s in PLANNED if s not in masks]
        if unsaid:
            warnings.append(f"nothing is said of {' and '.join(unsaid)}: not drawn, and not named either")
        if not unsaid:
            planning, lost = to_compartments(*(masks[s] for s in PLANNED))
            volumes |= {k: v if v is None else round(v, 4) for k, v in measure_volumes(planning, voxel_ml).to_json().items()}
            warnings += lost.findings()
        elif Structure.LIVER in masks:
            warnings += [
                f"{n} {s} voxels lie outside the liver"
                for s, mask in masks.items()
                if s is not Structure.LIVER and (n := np.count_nonzero(mask & ~masks[Structure.LIVER]))
            ]
        return {"volumes": volumes, "warnings": warnings}


def check_label(file: Path, info: Mapping[str, Any], grid: Geometry, image_id: str) -> CheckedLabel:
    """Reads a label as a client sent it, for the image ``image_id`` on ``grid``. The names in a file's own header go before ``info``'s.

    Raises: ImageError, GridError, LabelError where an inference could not use it; EmptyLiverError for a liver without voxels.
    """
    what = f"the label of {image_id}"
    try:
        held = replace(read_segmentation(file), source=what)
    except FlrError as error:
        raise type(error)(str(error).replace(str(file), what)) from error
    names = {} if held.names is not None else names_sent(info, what)
    drawn = held.on(grid, f"image {image_id}")
    label = drawn.label(grid, f"image {image_id}", names)
    if not any(mask.any() for mask in label.masks.values()):
        raise LabelError(f"{what} has no voxels; draw at least one structure before it is submitted")
    if Structure.LIVER in label.masks and not label.masks[Structure.LIVER].any():
        raise EmptyLiverError(f"{what}: the liver is named and has no voxels; draw it, or delete its name")
    return CheckedLabel(drawn, label, drawn is not held)


@contextmanager
def checked_upload(
    studies: Studies, image_id: str, file: str, tag: str, info: Mapping[str, Any] | None, as_label_map: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The file and the info to store in place of what a client sent, on the grid of the image; they last for the block.

    A file that lies on that grid is stored as it is. as_label_map: as one label map, for a writer that knows no other.
    Raises: ClientError (400) where :func:`check_label` refuses the label; the upload is kept under :data:`REFUSED` with the reason.
    """
    _LAST.set(None)
    with errors_for_client(), ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(TemporaryDirectory(prefix="flrplan_label_")))

        try:
            if info is not None and not isinstance(info, Mapping):
                raise LabelError(f'the label of {image_id}: expected params like {{"label_info": [...]}}, got {info!r}')
            check_info(info or {}, f"the label of {image_id}")
            if image_id not in studies.list_images():
                raise ImageError(f"no image {image_id!r} in this server's studies; ask /datastore/ for the ids")
            image = Path(studies.get_image_uri(image_id))
            label = Path(file) if not file.endswith(".bin") else _unpacked(Path(file), _grid(image), folder())
            checked = check_label(label, info or {}, _grid(studies.source_of(image_id, image)), image_id)
            stored, names = _to_store(checked, label, folder, as_label_map)
        except FlrError as error:
            raise type(error)(
                f"{str(error).rstrip('.')}. {_keep_aside(studies, image_id, Path(file), tag, info, error)}"
            ) from error
        except Exception as error:  # whatever it is, a person's work is not lost by it
            logger.exception("the label of %s", image_id)
            reason = LabelError(f"the label of {image_id} could not be read ({type(error).__name__}: {error})")
            raise LabelError(f"{reason}. {_keep_aside(studies, image_id, Path(file), tag, info, reason)}") from error
        summary = checked.summary()
        _LAST.set((image_id, summary))
        yield str(stored), {**(info or {}), **({"label_info": names} if names else {}), "flrplan": summary}


def last_summary(image_id: str) -> dict[str, Any]:
    """The summary of the label that this thread has stored last, if it is this image's; else an empty one."""
    last = _LAST.get()
    return dict(last[1]) if last is not None and last[0] == image_id else {}


def _grid(path: Path) -> Geometry:
    stat = path.stat()
    return _grid_of(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _grid_of(path: Path, *_stamp: int) -> Geometry:
    return read_grid(path)


def _unpacked(file: Path, grid: Geometry, folder: Path) -> Path:
    """A label that came as bare bytes (``.bin``: one a voxel, as the host's NIfTI of the image lies) as a label map."""
    array = np.fromfile(file, np.uint8)
    if array.size != np.prod(grid.size_xyz):
        raise LabelError(
            f"the label has {array.size} bytes, and its image {np.prod(grid.size_xyz)} voxels; send one byte a voxel"
        )
    path = folder / "unpacked.nii.gz"
    write_label_map(path, array.reshape(grid.shape_zyx), grid)
    return path


def _to_store(
    checked: CheckedLabel, file: Path, folder: Callable[[], Path], as_label_map: bool
) -> tuple[Path, list[dict[str, Any]]]:
    """The file to store and its ``label_info``; no info where what was sent is right."""
    drawn = checked.drawn
    if as_label_map and drawn.names is not None:
        if len(drawn.layers) > 1 or drawn.layers[0].max() > np.iinfo(np.uint8).max:
            array, names = to_label_map(checked.label, drawn.source)
        else:
            array, names = drawn.layers[0].astype(np.uint8), dict(drawn.names[0])
        path = folder() / "label.nii.gz"
        write_label_map(path, array, drawn.geometry)
        return path, _entries([names])
    if not checked.moved:
        return file, _entries(drawn.names or ())
    path = folder() / f"label{''.join(file.suffixes)}"
    drawn.write(path)
    return path, _entries(drawn.names or ())


def _entries(names: Iterable[Mapping[str, int]]) -> list[dict[str, Any]]:
    """``label_info`` as clients send it, in our spelling."""
    return [{"name": label_name(n), "idx": i} for named in names for n, i in named.items()]


def _keep_aside(studies: Studies, image_id: str, file: Path, tag: str, info: object, error: FlrError) -> str:
    """Copies a refused upload beside the studies; a sentence that says where."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in image_id).strip(".")[:80] or "unnamed"
    now = datetime.now(timezone.utc)
    folder = Path(studies._datastore_path, REFUSED, f"{safe}-{now:%Y%m%dT%H%M%S}-{uuid4().hex[:6]}")
    try:
        folder.mkdir(parents=True)
        kept = folder / f"label{''.join(file.suffixes)}"
        shutil.copyfile(file, kept)
        why = {"image": image_id, "tag": tag, "info": info, "reason": str(error), "date": now.isoformat(timespec="seconds")}
        try:
            write_json(folder / "why.json", why)
        except (TypeError, ValueError):  # info that JSON cannot hold
            write_json(folder / "why.json", {**why, "info": ascii(info)})
    except (OSError, TypeError) as failed:
        return f"The upload could not be kept ({failed}): do not close your viewer before it is saved elsewhere."
    return f"Nothing was stored; the label before, if any, is untouched. The upload is kept as {kept}."
