"""What the models of a work folder were trained on, against the split: no held-out case trained one, no fold predicts its own."""

from __future__ import annotations

from collections.abc import Iterator
from glob import escape
from pathlib import Path

from flrplan.errors import SettingsError
from flrplan.evaluation.columns import COLUMNS
from flrplan.evaluation.inputs import Predictions
from flrplan.files import current_version, is_junk
from flrplan.image import natural_key
from flrplan.workfolder import HELD_OUT_PART, PartRecord, RunRecord, Split, WorkFolder, fold_part


def require_unseen(work: Path, predictions: Predictions, split: Split, split_file: Path) -> tuple[str, ...]:
    """The models that do not record what they were trained on, ``<architecture>/<stage>[/fold_<k>]``: they cannot be checked.

    Raises: SettingsError naming every model that was trained on a held-out case or on its own fold's, and the cases; also the
        cases that were predicted as another part than the split says (by one fold, say, where the split has them held out).
    """
    problems: list[str] = []
    unrecorded: list[str] = []
    for architecture in sorted({name for name, _ in predictions}):
        problems += [*_seen(work, architecture, split), *_of_another_part(work, architecture, predictions, split)]
        unrecorded += [f"{architecture}/{model}" for model in _unrecorded(work, architecture, predictions)]
    if problems:
        listed = "".join(f"  {line}\n" for line in problems)
        raise SettingsError(
            f"{split_file} does not go with the models and predictions of {work}:\n{listed}"
            "Evaluate with the split that they were trained with, or train and predict anew in another --work folder"
        )
    return tuple(unrecorded)


def _seen(work: Path, architecture: str, split: Split) -> Iterator[str]:
    for stage, folder in model_folders(work, "*", architecture):
        train = RunRecord.read(folder).learned_from
        model = f"{folder}: this model of stage {stage}"
        held_out = sorted(train & set(split.test), key=natural_key)
        if held_out:
            yield f"{model} was trained on held-out cases: {', '.join(held_out)}"
        number = folder.name.removeprefix("fold_")
        if number.isdecimal() and int(number) < len(split.folds):
            own = sorted(train & set(split.folds[int(number)]), key=natural_key)
            if own:
                yield f"{model} was trained on cases of its own fold: {', '.join(own)}"


def _of_another_part(work: Path, architecture: str, predictions: Predictions, split: Split) -> Iterator[str]:
    part_of = dict.fromkeys(split.test, HELD_OUT_PART)
    part_of |= {case: fold_part(k) for k, fold in enumerate(split.folds) for case in fold}
    there = _cases(architecture, predictions)
    for path, record in records(work, architecture):
        wrong: dict[str, list[str]] = {}
        for case in sorted(there & set(record.cases), key=natural_key):
            if part_of.get(case, path.stem) != path.stem:
                wrong.setdefault(part_of[case], []).append(case)
        for part, cases in wrong.items():
            yield f"{path}: predicted as {path.stem}, but the split has them as {part}: {', '.join(cases)}"


def _unrecorded(work: Path, architecture: str, predictions: Predictions) -> list[str]:
    """``<stage>/fold_<k>``, or ``<stage>`` where neither the models nor a record of what ``predict.py`` checked is there."""
    parts = [record for _, record in records(work, architecture)]
    checked = {case for record in parts for case in record.cases}
    found = {model for record in parts for model in record.unrecorded}
    columns = [column for (name, column), files in predictions.items() if name == architecture and files]
    for stage in {stage.name for column in columns for stage in COLUMNS[column].stages}:
        folders = [folder for _, folder in model_folders(work, stage, architecture)]
        found |= {f"{stage}/{folder.name}" for folder in folders if not RunRecord.read(folder).learned_from}
        if not folders and not _cases(architecture, predictions) <= checked:
            found.add(stage)
    return sorted(found)


def _cases(architecture: str, predictions: Predictions) -> set[str]:
    return {case for (name, _), files in predictions.items() if name == architecture for case in files}


def model_folders(work: Path, stage: str, architecture: str) -> list[tuple[str, Path]]:
    """The folds ``fold_<k>`` of a work folder's models, each with the name of its stage; ``stage`` may be ``*``."""
    models = sorted(WorkFolder(work).models.glob(f"{stage}/{escape(architecture)}"))
    return [(m.parent.name, fold) for m in models for fold in sorted(current_version(m).glob("fold_*")) if fold.is_dir()]


def records(work: Path, architecture: str) -> Iterator[tuple[Path, PartRecord]]:
    """What ``predict.py`` recorded of each predicted part of an architecture, and where. Raises SettingsError for a damaged record."""
    for path in sorted(p for p in (WorkFolder(work).predicted / architecture).glob("*.json") if not is_junk(p)):
        yield path, PartRecord.read(path)
