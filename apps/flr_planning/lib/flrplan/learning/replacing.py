"""Model folders that change places so that a working one is there at every instant, also if the process is killed.

``<architecture>`` serves; ``.<architecture>.previous`` is the one before. On Linux old and new model change places in one step. Elsewhere
two renames follow each other; in between, the old one has the name :func:`flrplan.engine.models.replaced_folder`, under which it is found
and served as well.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from flrplan.engine.models import replaced_folder
from flrplan.errors import OutputError
from flrplan.files import exchange
from flrplan.nnunet.publishing import changing

logger = logging.getLogger(__name__)


def previous_folder(target: Path) -> Path:
    """Where the model before the current one is kept."""
    return target.with_name(f".{target.name}.previous")


def settle(target: Path) -> None:
    """Finishes or undoes what a killed process left between two renames; nothing to do otherwise."""
    old = replaced_folder(target)
    if not old.exists():
        return
    if target.exists():
        _keep_as_previous(old, target)
    else:
        old.rename(target)


def replace_model(new: Path, target: Path) -> None:
    """The folder ``new`` (on the same disk) becomes ``target``; what was there becomes the previous one.

    A training that publishes a fold into the same folder is waited for, and waits (:func:`flrplan.nnunet.publishing.changing`).
    Raises: OutputError where a rename fails; then the old model serves.
    """
    with changing(target):
        _replace(new, target)


def _replace(new: Path, target: Path) -> None:
    settle(target)
    if target.exists() and exchange(new, target):
        try:
            _keep_as_previous(new, target)  # killed before this, the model before is lost with the work folder
        except OSError as error:
            logger.warning("%s holds the new model, but the one before could not be kept: %s", target, error.strerror)
        return
    old = replaced_folder(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.rename(old)
        new.rename(target)
        if old.exists():
            _keep_as_previous(old, target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        raise OutputError(f"could not put the new model into {target}: {error.strerror}; the current one stays") from error


def _keep_as_previous(old: Path, target: Path) -> None:
    previous = previous_folder(target)
    if previous.exists() and exchange(old, previous):
        shutil.rmtree(old, ignore_errors=True)
        return
    shutil.rmtree(previous, ignore_errors=True)
    old.rename(previous)
