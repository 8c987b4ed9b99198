"""Batch inference: the labels of many images under one tag, one after the other, whatever becomes of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType, BatchInferTask

from flrplan.errors import FlrError, SettingsError
from flrplan.server.doors import require_known, require_tag

logger = logging.getLogger(__name__)

_HOST_KEYS = ("images", "multi_gpu", "gpus", "max_workers", "max_batch_size", "logging", "bundle_path")
"""Keys that are of the whole batch, or that MONAI Label 0.8.5 puts in by default; no options of one inference."""
_LONGEST_LIST = 12


class PlanningBatch(BatchInferTask):  # type: ignore[misc]  # monailabel is untyped
    """The host's task, but for these points of 0.8.5: without a GPU its default request divided by zero; the first CT that could not be read
    ended the batch; all was computed again each time; and the labels were readable to the server's user alone.
    """

    def __call__(
        self, request: dict[str, Any], datastore: Any, infer: Callable[..., dict[str, Any]]
    ) -> dict[str, list[str] | dict[str, str]]:
        """The ids that are ``done`` now, those ``skipped`` (they have a label with the tag), and of those that ``failed`` why.

        ``images`` (all, labeled, unlabeled), ``label_tag`` (original), ``max_batch_size`` (0: all that are not skipped), and the options
        of an inference. A device that this machine lacks is ``auto``. Raises: LabelError for what is no tag; SettingsError for other
        ``images`` and ``max_batch_size``.
        """
        tag = require_tag(
            str(getattr(request.get("label_tag"), "value", request.get("label_tag")) or DefaultLabelTag.ORIGINAL.value)
        )
        _require_images(request.get("images", BatchInferImageType.IMAGES_ALL))
        most = _most(request.get("max_batch_size"))
        images = sorted(self.get_images({**request, "label_tag": tag}, datastore))
        skipped = [image for image in images if tag in datastore.get_labels_by_image_id(image)]
        wanted = [image for image in images if image not in skipped][:most]
        options = {key: value for key, value in request.items() if key not in _HOST_KEYS}
        options |= {"save_label": True, "label_tag": tag, "device": _device(request)}
        done, failed = [], {}
        for number, image in enumerate(wanted, 1):
            begun = perf_counter()
            try:
                result = infer({**options, "image": image}, datastore)
                Path(result["file"]).unlink(missing_ok=True)
                _open_to_the_folder(Path(datastore.get_label_uri(image, tag)))
                done.append(image)
                logger.info("%d of %d: %s done in %.0f s", number, len(wanted), image, perf_counter() - begun)
            except Exception as error:  # one image never costs the others their labels
                if not isinstance(error.__cause__, FlrError):
                    logger.exception("batch inference of %s", image)
                failed[image] = str(getattr(error, "msg", error))
                logger.warning("%d of %d: %s failed: %s", number, len(wanted), image, failed[image])
        logger.info("%s", _in_words(done, skipped, failed))
        return {"done": done, "skipped": skipped, "failed": failed}


def _require_images(images: object) -> None:
    """The host takes every other word for ``all``."""
    if isinstance(images, str):
        require_known("choice of images", images, [kind.value for kind in BatchInferImageType])
    elif not (isinstance(images, list) and all(isinstance(image, str) for image in images)):
        raise SettingsError(f"images: expected all, labeled, unlabeled or a list of ids, got {images!r:.80}")


def _most(value: object) -> int | None:
    """How many images at most; None: all."""
    text = str(0 if value is None or value == "" else value)
    if not text.isdecimal():
        raise SettingsError(f"max_batch_size must be a whole number from 1 up, or 0 for all; got {value!r:.80}")
    return int(text) or None


def _device(request: Mapping[str, Any]) -> Any:
    device = request.get("device") or "auto"
    return "auto" if str(device).startswith("cuda") and not torch.cuda.is_available() else device


def _open_to_the_folder(path: Path) -> None:
    """Gives a label that was copied from a private temporary file the permissions of the folder that it lies in."""
    if path.is_file():
        path.chmod(path.parent.stat().st_mode & 0o666)


def _in_words(done: list[str], skipped: list[str], failed: Mapping[str, str]) -> str:
    listed = [f"  {image}: {reason}" for image, reason in list(failed.items())[:_LONGEST_LIST]]
    more = [f"  and {len(failed) - _LONGEST_LIST} more"] if len(failed) > _LONGEST_LIST else []
    return "\n".join([f"{len(done)} done, {len(skipped)} skipped (labelled before), {len(failed)} failed", *listed, *more])
