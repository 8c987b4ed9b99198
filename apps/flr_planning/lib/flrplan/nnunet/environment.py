"""The one place that sets nnU-Net's environment variables, keeps its prints out of our output, and what it never uses out of our start."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@contextlib.contextmanager
def nnunet_folders(root: Path) -> Iterator[None]:
    """Within the block, nnU-Net works under ``root/raw``, ``root/preprocessed`` and ``root/results``.

    nnU-Net 2.8 reads these variables when it uses them, so they can be set in a running process and are restored after.
    The augmentation workers are a setting of ours: ``nnUNet_n_proc_DA`` is set to 0 here (single process).
    """
    folders = {name: str(root / name.removeprefix("nnUNet_")) for name in VARIABLES}
    for folder in folders.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    before = {name: os.environ.get(name) for name in folders}
    os.environ.update(folders)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def augmentation_workers(count: int) -> Iterator[None]:
    """Within the block, nnU-Net's loaders use ``count`` processes; 0 means the training process itself."""
    name = "nnUNet_n_proc_DA"
    before = os.environ.get(name)
    os.environ[name] = str(count)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextlib.contextmanager
def files_listed_in_process() -> Iterator[None]:
    """Within the block, nnU-Net lists the files of a data set itself; else it forks 12 processes for that.

    Forked beside the threads of torch, or where SIGTERM has a handler in Python, they can hang for ever (seen with 2.8.1).
    """
    from nnunetv2.utilities import utils

    before = utils.create_lists_from_splitted_dataset_folder
    utils.create_lists_from_splitted_dataset_folder = _image_files
    try:
        yield
    finally:
        utils.create_lists_from_splitted_dataset_folder = before


def _image_files(
    folder: str, file_ending: str, identifiers: Sequence[str] | None = None, num_processes: int = 0
) -> list[list[str]]:
    """The files ``<id>_<4 digits><ending>`` of each id, sorted; the signature is nnU-Net's."""
    channels: dict[str, list[str]] = {}
    for path in sorted(Path(folder).glob(f"*_[0-9][0-9][0-9][0-9]{file_ending}")):
        channels.setdefault(path.name[: -len(file_ending) - 5], []).append(str(path))
    return [channels.get(identifier, []) for identifier in (sorted(channels) if identifiers is None else identifiers)]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends what nnU-Net prints to the debug log."""
    captured = io.StringIO()
    try:
        with contextlib.redirect_stdout(captured):
            yield
    finally:
        text = captured.getvalue().strip()
        if text:
            logger.debug("nnU-Net printed:\n%s", text)


_COMPILER = "torch._dynamo"


class _IsCompiled(type):
    def __instancecheck__(cls, network: object) -> bool:
        kind = getattr(sys.modules.get(_COMPILER), "OptimizedModule", None)
        return kind is not None and kind is not _Compiled and isinstance(network, kind)


class _Compiled(metaclass=_IsCompiled):
    """In place of torch's class of compiled networks, of which there is none before its compiler is imported."""


class _LaterCompiler(ModuleType):
    """In place of torch's compiler, which is imported when another name of it is asked for."""

    OptimizedModule = _Compiled

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_COMPILER) is self:
            del sys.modules[_COMPILER]
        return getattr(importlib.import_module(_COMPILER), name)


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Within the block, nnU-Net is imported without torch's compiler, which takes more than a second of CPU.

    A prediction compiles only where nnUNet_compile is set.

    nnU-Net 2.8.1 imports it to ask whether a network is compiled; it still gets the right answer.
    """
    if _COMPILER in sys.modules:
        yield
        return
    later = sys.modules[_COMPILER] = _LaterCompiler(_COMPILER)
    try:
        yield
    finally:
        if sys.modules.get(_COMPILER) is later:
            del sys.modules[_COMPILER]
