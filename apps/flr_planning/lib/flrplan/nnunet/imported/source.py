"""Where a foreign model comes from: a trained-model folder of nnU-Net 2, a folder above it, or a zip of ``nnUNetv2_export_model_to_zip``.

What is something else is named for what it is. Of a zip only the files that are needed are unpacked, under names of our own.
"""

from __future__ import annotations

import errno
import lzma
import os
import re
import shlex
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flrplan.errors import ModelError, OutputError
from flrplan.files import current_version, part_folder, require_room
from flrplan.files.folder import VERSIONS_NAME

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
"""nnU-Net's names: when the training was done, when it was at its best, and every 50 epochs until it is done."""

MAX_UNPACKED = 64 * 1024**3
"""Bytes that a zip may unpack to; five folds of nnU-Net's largest preset have about 10 GB."""
MAX_RATIO = 100
"""How much smaller than its content a large file in a zip, and the zip, may be; weights hardly shrink."""
_SMALL = 64 * 1024**2
"""Bytes that may shrink as they will."""
DAMAGED = (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
"""What reading a zip that was damaged raises."""

_EXPECTED = (
    "expected nnU-Net 2's trained-model folder (TRAINER__PLANS__CONFIGURATION, with plans.json, dataset.json and "
    "fold_<k>/checkpoint_final.pth), or the zip of nnUNetv2_export_model_to_zip"
)
_DEPTH = 3
"""Folders below the one that is given, which may be nnUNet_results: data set, model, fold."""


@dataclass(frozen=True)
class ForeignModel:
    """A trained-model folder as it lies on disk. name: what the person who gave it calls it. command: the one that imports
    it, for messages. folds: number to folder name.

    left_out: names of folders that look like folds and are not taken, with the reason.
    """

    name: str
    command: str
    folder: Path
    folds: dict[int, str]
    left_out: dict[str, str]


@contextmanager
def opened(source: Path, configuration: str | None, checkpoint: str, room: Path) -> Iterator[ForeignModel]:
    """Within the block, the model that a source holds. Of a ModelError raised in it, paths name the source.

    configuration: which one, where the source holds several (``3d_fullres``). checkpoint: file of each fold. room: where a zip is unpacked.
    Raises: ModelError for what is no such model, for several, and for a zip that is damaged, encrypted, or too large.
    """
    names = file_names(source)
    inner = _model(source, names, configuration)
    if source.is_dir() and (current := current_version(source / inner)) != source / inner:
        source, inner, names = current, ".", file_names(current)
    held = {name.removeprefix(f"{inner}/") for name in names if inner == "." or name.startswith(f"{inner}/")}
    shown = str(source) if inner == "." else f"{source}/{inner}"
    folds, left_out = _folds(held, checkpoint, shown)
    command = f"flrplan models import {shlex.quote(str(source))}" + (
        f" --configuration {configuration}" if configuration else ""
    )
    if "dataset.json" not in held:
        raise ModelError(f"{shown}: dataset.json is missing; copy it from where the model was trained, beside plans.json")
    if not folds:
        raise ModelError(f"{shown}: {_without_folds(held, checkpoint)}")
    if source.is_dir():
        yield ForeignModel(shown, command, source / inner, folds, left_out)
        return
    from flrplan.nnunet.model.model_folder import COHORT_NAME
    from flrplan.workfolder import RUN_NAME

    with part_folder(room / "unpacked") as folder:
        try:
            needed = {"plans.json", "dataset.json"} | ({COHORT_NAME} & held)
            needed |= {f"{fold}/{name}" for fold in folds.values() for name in (checkpoint, RUN_NAME)} & held
            unpack(source, inner, needed, folder)
            yield ForeignModel(shown, command, folder, folds, left_out)
        except ModelError as error:
            raise ModelError(str(error).replace(str(folder), shown)) from error


def file_names(source: Path) -> set[str]:
    """Paths of the files in a folder (not deeper than nnU-Net's) or a zip, with slashes, without hidden ones.

    Raises: ModelError where neither is there, naming what it is.
    """
    if source.is_dir():
        found = set()
        for folder, folders, files in os.walk(source, followlinks=True):
            inside = Path(folder).relative_to(source)
            folders[:] = [] if len(inside.parts) >= _DEPTH else [name for name in folders if not _is_hidden(name)]
            found |= {(inside / name).as_posix() for name in files if not _is_hidden(name)}
        return found
    if not source.exists():
        raise ModelError(f"{source}: no such file or folder; {_EXPECTED}")
    if not zipfile.is_zipfile(source):
        raise ModelError(f"{source} {_file_kind(source)}")
    return set(members(source))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", VERSIONS_NAME)


def members(source: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip by path.

    Raises: ModelError where it is damaged, for paths that lead out of it, links, doubled files, and a checkpoint, which is a zip, too.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (*DAMAGED, IndexError) as error:  # IndexError: a file without a name
        raise ModelError(f"{source}: the zip is damaged ({error}); download or copy it again") from error
    if not infos:  # also of a zip that ends within a checkpoint, which is one itself
        raise ModelError(f"{source}: the zip is empty or was cut short; download or copy it again")
    members: dict[str, zipfile.ZipInfo] = {}
    known: dict[str, str] = {}
    for info in infos:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise ModelError(f"{source} names {info.filename!r:.80}, a path outside of itself; it is not unpacked. {_EXPECTED}")
        if any(_is_hidden(part) for part in path.parts):
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ModelError(f"{source}: {path} is a link, not a file; export the model again, with the files themselves")
        if (first := known.setdefault(str(path).casefold(), str(path))) != str(path) or first in members:
            twice = "twice" if first == str(path) else f"and {first}, which many disks take for one"
            raise ModelError(f"{source} holds {path} {twice}; export the model again")
        members[str(path)] = info
    if not members:
        raise ModelError(f"{source}: the zip holds hidden files alone, or was cut short; download or copy it again")
    if any(name.endswith("/data.pkl") for name in members):  # how torch.save writes
        raise ModelError(f"{source} {_file_kind(source, checkpoint=True)}")
    return members


def _model(source: Path, names: Collection[str], configuration: str | None) -> str:
    """The folder of the one model, below the source; "." for the source itself."""
    found = sorted({str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name == "plans.json"})
    if "." in found:
        return "."
    if not found:
        raise ModelError(f"{source} {_folder_kind(source, names)}")
    wanted = [name for name in found if configuration is None or name.endswith(f"__{configuration}")]
    if len(wanted) == 1:
        return wanted[0]
    advice = "give its folder" if source.is_dir() else "export one alone"
    kinds = sorted({name.rpartition("__")[2] for name in found if "__" in name})
    if configuration is None and len(kinds) == len(found):
        advice = f"choose with --configuration one of {', '.join(kinds)} (or {advice})"
    raise ModelError(
        f"{source} holds {len(found)} models, {', '.join(found)}{'' if configuration is None else f'; {len(wanted)} are {configuration}'}; {advice}"
    )


def _folds(names: Collection[str], checkpoint: str, shown: str) -> tuple[dict[int, str], dict[str, str]]:
    """Folds by number, and what is left out. As in nnU-Net, ``fold_all`` counts only where it is alone.

    Raises: ModelError for two folders of one number.
    """
    folders = sorted({name.split("/")[0] for name in names if name.startswith("fold_") and "/" in name})
    folds: dict[int, str] = {}
    left_out: dict[str, str] = {}
    for folder in folders:
        number = re.fullmatch(r"fold_([0-9]+|all)", folder)
        if number is None:
            left_out[folder] = "it is not called fold_<number>"
        elif f"{folder}/{checkpoint}" not in names:
            left_out[folder] = f"it has no {checkpoint}"
        elif folder != "fold_all" and (first := folds.setdefault(int(number[1]), folder)) != folder:
            raise ModelError(f"{shown}: {first} and {folder} are both fold {int(number[1])}; delete or rename one of them")
    if f"fold_all/{checkpoint}" in names:
        if folds:
            left_out["fold_all"] = (
                "it was trained on all cases and is no fold of a cross-validation; nnU-Net leaves it out, too"
            )
        else:
            folds[0] = "fold_all"
    return dict(sorted(folds.items())), left_out


def _without_folds(names: Collection[str], checkpoint: str) -> str:
    others = sorted({PurePosixPath(name).name for name in names if PurePosixPath(name).name in CHECKPOINTS})
    if not others:
        return f"expected fold_<k>/{checkpoint}, found none; copy the folder again, with its folds"
    done = "the training was not finished" if checkpoint == CHECKPOINTS[0] else "it has others"
    return f"no fold has a {checkpoint} ({done}); to take another one, give --checkpoint {' or '.join(others)}"


def unpack(source: Path, inner: str, needed: Collection[str], folder: Path) -> None:
    """Unpacks these files, named as they are below the folder ``inner`` of the zip, into a folder.

    Raises: ModelError where it is damaged, encrypted, or would unpack to more than weights can be; OutputError where there is no room.
    """
    found = members(source)
    infos = {name: found[name if inner == "." else f"{inner}/{name}"] for name in sorted(needed)}
    total, packed_bytes = sum(info.file_size for info in infos.values()), source.stat().st_size
    for name, info in infos.items():
        if info.flag_bits & 1:
            raise ModelError(f"{source} is encrypted; unpack it with its password and give the folder")
        if total > MAX_UNPACKED or (info.file_size > _SMALL and info.file_size > MAX_RATIO * info.compress_size):
            raise ModelError(
                f"{source}: {name} would unpack to {info.file_size} bytes from {info.compress_size}, {total} in all, which no weights "
                "do; it is not unpacked"
            )
    if total > _SMALL and total > MAX_RATIO * packed_bytes:
        raise ModelError(
            f"{source} has {packed_bytes} bytes and would unpack to {total}, which no weights do; it is not unpacked"
        )
    require_room(folder, total, f"unpacking {source.name}")
    try:
        with zipfile.ZipFile(source) as archive:
            for name, info in infos.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as packed, (folder / name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1024**2)  # never more than file_size, whatever the content says
    except (*DAMAGED, EOFError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"{source} could not be unpacked into {folder.parent}: {error.strerror}; make room, or choose a folder on another disk"
            ) from error
        raise ModelError(f"{source}: the zip cannot be unpacked ({error}); download it again, or give its folder") from error


def _file_kind(path: Path, checkpoint: bool = False) -> str:
    """What a file is that is no zip of a model, and what to do, as the end of a sentence."""
    name = path.name.lower()
    above = path.resolve().parents[1]
    if name.endswith((".model", ".pkl")):
        return _VERSION_1
    if checkpoint or name.endswith((".pth", ".pt", ".ckpt")):
        place = f": {above}" if (above / "plans.json").is_file() else ", which holds plans.json"
        return f"is a checkpoint, one part of a model; give the folder above its fold{place}"
    if name in ("plans.json", "dataset.json"):
        return f"is one file of a model; give its folder: {path.parent}"
    if name.endswith(".zip"):
        return "is no whole zip; download or copy it again"
    if re.search(r"\.(tar|tgz|gz|xz|bz2|7z|rar|zst)$", name):
        return "is an archive of another kind than zip; unpack it and give the folder"
    return f"is neither a folder nor a zip; {_EXPECTED}"


_VERSION_1 = (
    "is a model of nnU-Net 1, which nnU-Net 2 cannot run. Train it again with nnU-Net 2 (nnUNetv2_convert_old_nnUNet_dataset takes "
    "the data over). STU-Net's published weights can start a training: flrplan train --architecture stunet --pretrained FILE"
)


def _folder_kind(source: Path, names: Collection[str]) -> str:
    """What a folder or zip without a ``plans.json`` is, and what to do, as the end of a sentence."""
    files = {PurePosixPath(name).name for name in names}
    parts = {part for name in names for part in PurePosixPath(name).parent.parts}
    if "plans.pkl" in files or any(name.endswith((".model", ".model.pkl")) for name in files):
        return _VERSION_1
    if source.is_dir() and (source.resolve().parent / "plans.json").is_file():
        return f"is a part of a model; give the folder above it: {source.resolve().parent}"
    if any(part.startswith("fold_") for part in parts) or files & {*CHECKPOINTS}:
        return "lacks plans.json; copy it from where the model was trained, beside dataset.json and the folds"
    if parts & {"imagesTr", "labelsTr", "imagesTs", "gt_segmentations"} or "dataset_fingerprint.json" in files:
        return "holds the data of an nnU-Net training, not its model; trained models lie below nnUNet_results"
    if "metadata.json" in files or any(name.endswith((".pt", ".ts", ".onnx")) for name in files):
        return f"holds a model, but not of nnU-Net 2 (a MONAI bundle?); {_EXPECTED}"
    return f"holds no plans.json; {_EXPECTED}"
