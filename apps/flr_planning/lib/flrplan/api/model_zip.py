"""Models as one zip, to hand on: what ``flrplan models export`` writes and ``flrplan models import`` takes.

In the zip:

- ``manifest.json``: its form, which models, and the SHA-256 of every other file
- ``README.md``: what the models are, for who opens the zip
- ``<stage>/<architecture>/``: the version that serves: plans, weights, what trained them, its card (``README.md``) and ``LICENSE``
- ``calibration.json``: what the plans of these models were off by, where that is known
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from flrplan import __version__
from flrplan.engine import DEMO_NOTE, FoundModel, ModelStore
from flrplan.engine.models import FINE_TUNED_NOTE, IS_DEMO, describe_distilled
from flrplan.errors import ModelError, OutputError
from flrplan.files import part_folder, read_json, read_text, replacing, sha256_of_file, write_json
from flrplan.method import STAGES, Stage, stage_named
from flrplan.nnunet.imported.source import DAMAGED, members, unpack
from flrplan.nnunet.model import ModelFolder, StagePredictor
from flrplan.nnunet.model.model_folder import PUBLISHED_NAME
from flrplan.nnunet.train.publishing import replacing_models
from flrplan.planning.calibration import CALIBRATION_NAME, Calibration
from flrplan.workfolder import FINAL_CHECKPOINT, RUN_NAME, read_record, write_record

MANIFEST_NAME = "manifest.json"
CARD_NAME, LICENCE_NAME = "README.md", "LICENSE"
_FORM = "flrplan models 1"
_OF_MODEL = ("plans.json", "dataset.json", PUBLISHED_NAME, CARD_NAME, LICENCE_NAME)
_OF_FOLD = (FINAL_CHECKPOINT, RUN_NAME)
_FOLD = re.compile(r"fold_[0-9]+")
_MODEL = re.compile(r"[a-z0-9_]+/[A-Za-z0-9][\w.-]*")
_LARGEST_MANIFEST_BYTES = 1 << 20
_NO_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every file in a zip: the same models give the same zip."""


def export_models(
    store: ModelStore,
    out: Path,
    stages: Sequence[Stage] = (),
    architecture: str = "nnunet",
    licence: Path | None = None,
    card: Path | None = None,
) -> dict[str, FoundModel]:
    """Writes models as one zip, whole or not at all; returns them by ``<stage>/<architecture>``.

    stages: by default all of which there is a model of the store's own, and where it has none, the demo models.
    licence, card: their texts; by default those that lie in each model's folder, and of the demo models theirs.
    Raises: ModelError where there is no model, it is damaged, or nothing says under which licence it is; OutputError.
    """
    if out.exists():
        raise OutputError(f"{out} exists already; give another name, or delete it")
    found = _found(store, stages, architecture)
    content: dict[str, Path | bytes] = {}
    for name, model in found.items():
        folder = model.folder
        files = [folder.path / file for file in _OF_MODEL]
        files += [folder.checkpoint(fold).with_name(file) for fold in folder.folds for file in _OF_FOLD]
        content |= {f"{name}/{file.relative_to(folder.path).as_posix()}": file for file in files if file.is_file()}
        for file_name, given in ((CARD_NAME, card), (LICENCE_NAME, licence)):
            beside = [store.demo / file_name] if store.demo is not None and model.demo else []
            path = given or next((p for p in (folder.path / file_name, *beside) if p.is_file()), None)
            if path is not None:
                content[f"{name}/{file_name}"] = read_text(path, ModelError).encode()
        if f"{name}/{LICENCE_NAME}" not in content:
            raise ModelError(
                f"{folder.path}: nothing says under which licence this model may be used; give its text with --licence FILE (what trained "
                "it may bind it)"
            )
    calibration = _calibration_of(store, architecture, found)
    if calibration is not None:
        content[CALIBRATION_NAME] = calibration
    content[CARD_NAME] = _card(found, out.name, calibration is not None).encode()
    manifest = {
        "form": _FORM,
        "software": f"flrplan {__version__}",
        "models": {name: {IS_DEMO: model.demo} for name, model in found.items()},
        "sha256": {name: _sha256(part) for name, part in sorted(content.items())},
    }
    with replacing(out) as part, zipfile.ZipFile(part, "w") as archive:
        for name, source in {MANIFEST_NAME: json.dumps(manifest, indent=1).encode(), **dict(sorted(content.items()))}.items():
            with archive.open(zipfile.ZipInfo(name, _NO_TIME), "w", force_zip64=True) as target:
                if isinstance(source, bytes):
                    target.write(source)
                else:
                    with source.open("rb") as file:
                        shutil.copyfileobj(file, target, 1 << 20)
    return found


def is_exported(path: Path) -> bool:
    """Whether a file is a zip of :func:`export_models`."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST_NAME in archive.namelist()
    except DAMAGED:
        return False


def import_exported(source: Path, root: Path, stages: Collection[Stage] = (), force: bool = False) -> dict[str, ModelFolder]:
    """Takes the models of a zip of :func:`export_models` into ``root``, all or none; returns them by ``<stage>/<architecture>``.

    Nothing is taken before every file is what was exported and every model can be opened, without running code of theirs.
    stages: these alone, without the calibration unless that is all; by default all. force: what is there becomes the version before.
    Raises: ModelError naming the file that was changed, added or left out, for paths that lead out of the zip, and for what is too large; or
    where a model is there and ``force`` is not given. OutputError.
    """
    manifest = _manifest(source)
    sums, models = manifest["sha256"], manifest["models"]
    there = set(members(source)) - {MANIFEST_NAME}
    for names, what in ((there - sums.keys(), "was added to it"), (sums.keys() - there, "is missing in it")):
        if names:
            raise ModelError(f"{source}: {min(names):.200} {what} after it was exported; ask for the zip again")
    if odd := [name for name in there if not _is_part(name, models)]:
        raise ModelError(
            f"{source}: {min(odd):.200} is no file of an exported model, so nothing is taken; ask for the zip again"
        )
    if bare := [name for name in models if f"{name}/{LICENCE_NAME}" not in there]:
        raise ModelError(
            f"{source}: nothing says under which licence {min(bare)} may be used; ask for the zip again, with its {LICENCE_NAME}"
        )
    wanted = [name for name in models if not stages or name.partition("/")[0] in {s.name for s in stages}]
    if not wanted:
        raise ModelError(f"{source} holds no model of stage {', '.join(map(str, stages))}, but {', '.join(models)}")
    for name in wanted:
        if (root / name).exists() and not force:
            raise ModelError(f"{root / name} exists already; give --force to replace it, or another --models folder")
    with _unpacked(source, root, sums) as folder:
        decides: dict[str, Any] = {}
        for name in wanted:
            stage, _, architecture = name.partition("/")
            model = ModelStore(folder, demo=None).find(stage_named(stage), architecture).folder
            for fold in model.folds:
                model.training_cases(fold)
            decides[name] = StagePredictor(model, torch.device("cpu")).identity.decides
            if models[name].get(IS_DEMO):
                write_json(folder / name / PUBLISHED_NAME, {**model.published(), IS_DEMO: True})
        calibrations, path = {}, folder / CALIBRATION_NAME
        if path.is_file() and len(wanted) == len(models):
            architectures = sorted({name.partition("/")[2] for name in wanted})
            calibrations = {a: found for a in architectures if (found := Calibration.read(path, a)) is not None}
        for architecture, calibration in calibrations.items():
            if any(decides.get(f"{stage}/{architecture}") != of for stage, of in calibration.models.items()):
                raise ModelError(
                    f"{source}: its {CALIBRATION_NAME} was made with other weights than those beside it; ask for the zip again"
                )
        if calibrations:
            write_record(path, read_record(root / CALIBRATION_NAME, ModelError))
        for architecture, calibration in calibrations.items():
            calibration.write(path, architecture)
        with replacing_models({name: folder / name for name in wanted}, root) as taken:
            opened = {name: ModelFolder.open(place) for name, place in taken.items()}
            if calibrations:
                with replacing(root / CALIBRATION_NAME) as part:  # written already: a full disk cannot hinder this last step
                    path.replace(part)
        return opened


@contextmanager
def _unpacked(source: Path, root: Path, sums: Mapping[str, str]) -> Iterator[Path]:
    """A folder in ``root`` with the files of a zip that have these SHA-256, by name. Of a ModelError in the block, paths name the zip."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(part_folder(root / "unpacked"))
        except OSError as error:
            raise OutputError(f"{root} cannot be written ({error.strerror or error}); give another --models folder") from error
        try:
            unpack(source, ".", {*sums}, folder)
            for name in sorted(sums):
                if sha256_of_file(folder / name) != sums[name]:
                    raise ModelError(
                        f"{source}: {name} is not what was exported (its SHA-256 is another); it was changed or damaged, ask for the zip again"
                    )
            yield folder
        except ModelError as error:
            raise ModelError(str(error).replace(str(folder), str(source))) from error


def _found(store: ModelStore, stages: Sequence[Stage], architecture: str) -> dict[str, FoundModel]:
    if stages:
        models = [store.find(stage, architecture) for stage in stages]
    else:
        every = [model for stage in STAGES.values() if (model := store.find_any(stage, architecture)) is not None]
        models = [model for model in every if not model.demo] or every
    if not models:
        raise ModelError(f"{store.root}: no {architecture} model is there; train one (flrplan train), or give another --models")
    return {f"{model.folder.stage}/{architecture}": model for model in models}


def _calibration_of(store: ModelStore, architecture: str, found: Mapping[str, FoundModel]) -> bytes | None:
    """The part of ``calibration.json`` that is of these very models; None where there is none."""
    stages = {model.folder.stage.name: model.folder.stage for model in found.values()}
    for path in store.files(CALIBRATION_NAME):
        calibration = Calibration.read(path, architecture)
        if calibration is None or not {*calibration.models} <= {*stages}:
            continue
        cpu = torch.device("cpu")
        ours = {name: store.predictor(stages[name], architecture, cpu)[1].decides for name in calibration.models}
        if ours == calibration.models:
            content = read_record(path, ModelError)
            return json.dumps({name: content[name] for name in ("schema", architecture) if name in content}, indent=1).encode()
    return None


def _card(found: Mapping[str, FoundModel], name: str, calibrated: bool) -> str:
    lines = [f"# Models of flrplan: {', '.join(found)}", "", "For research use only; not a medical device."]
    if any(model.demo for model in found.values()):
        lines.append(f"**{DEMO_NOTE}.**")
    lines += ["", "| model | what it is | folds | cases that trained it |", "|---|---|---|---|"]
    for place, model in found.items():
        folder = model.folder
        kind = (
            f"imported from {folder.imported_from}, "
            if folder.imported_from
            else f"{FINE_TUNED_NOTE}, "
            if model.from_demo
            else ""
        )
        if model.distilled:
            kind = f"{kind}{describe_distilled(model.distilled)}, "
        cases = {case for fold in folder.folds for case in folder.training_cases(fold)}
        lines.append(f"| {place} | {kind}{folder.describe()} | {len(folder.folds)} | {len(cases) or 'not recorded'} |")
    known = (
        "`calibration.json` says what their plans were off by, so plans have an interval."
        if calibrated
        else ("There is no calibration of them, so plans have no interval (`flrplan calibrate` makes one).")
    )
    lines += [
        "",
        f"Written by flrplan {__version__}. To use them: `flrplan models import {name} --models FOLDER`. {known}",
        "In each model's folder: `LICENSE`, under which it may be used; `README.md`, its card, where somebody wrote one; `run.json` of each fold, "
        "how it was trained and the ids of the cases that trained it.",
    ]
    return "\n".join(lines) + "\n"


def _is_part(name: str, models: Collection[str]) -> bool:
    """Whether a zip of these models may hold a file of this name."""
    model, file = "/".join(name.split("/")[:2]), name.split("/")[2:]
    if model not in models:
        return name in (CARD_NAME, CALIBRATION_NAME)
    of_fold = len(file) == 2 and _FOLD.fullmatch(file[0]) is not None and file[1] in _OF_FOLD
    return of_fold or (len(file) == 1 and file[0] in _OF_MODEL)


def _sha256(part: Path | bytes) -> str:
    return sha256_of_file(part) if isinstance(part, Path) else hashlib.sha256(part).hexdigest()


def _manifest(source: Path) -> dict[str, Any]:
    """The manifest of a zip. Raises ModelError where it is damaged, of another form, or names what no model has."""
    again = "ask for the zip again"
    info = members(source)[MANIFEST_NAME]
    if info.file_size > _LARGEST_MANIFEST_BYTES:
        raise ModelError(f"{source}: its {MANIFEST_NAME} is larger than any; {again}")
    with tempfile.TemporaryDirectory() as folder:
        unpack(source, ".", {MANIFEST_NAME}, Path(folder))
        try:
            content = read_json(Path(folder) / MANIFEST_NAME, "a JSON object", ModelError)
        except ModelError as error:
            raise ModelError(f"{source}: its {MANIFEST_NAME} is damaged; {again}") from error
    if not isinstance(content, dict) or content.get("form") != _FORM:
        form = content.get("form") if isinstance(content, dict) else None
        raise ModelError(
            f"{source}: expected a zip of form {_FORM!r}, its {MANIFEST_NAME} says {form!r}; use the flrplan that wrote it"
        )
    models, sums = content.get("models"), content.get("sha256")
    if not isinstance(models, dict) or not isinstance(sums, dict) or not all(isinstance(m, dict) for m in models.values()):
        raise ModelError(f"{source}: its {MANIFEST_NAME} is damaged; {again}")
    if not models:
        raise ModelError(f"{source}: its {MANIFEST_NAME} names no model; {again}")
    for name in models:
        if not _MODEL.fullmatch(name) or name.partition("/")[0] not in STAGES:
            raise ModelError(f"{source}: its {MANIFEST_NAME} names a model {name!r}, expected <stage>/<architecture>; {again}")
    return content
