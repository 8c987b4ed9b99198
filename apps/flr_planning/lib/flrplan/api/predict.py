"""Every column of Tables 1 and 2 for the cases of a work folder, by trained models; ``benchmark/predict.py`` says what goes where."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator
from tqdm import tqdm

from flrplan.anatomy import Mask, Structure
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.errors import EmptyLiverError, FlrError, ModelError, SettingsError
from flrplan.evaluation import COLUMNS, Part, columns_of
from flrplan.evaluation.provenance import start_of
from flrplan.files.checked import checked
from flrplan.image import CT, write_label_map, write_volume
from flrplan.method import CASCADE, PAPER_STAGES, STAGES, Inputs, Probability, Stage, known_stage
from flrplan.networks import ARCHITECTURES
from flrplan.workfolder import (
    HELD_OUT_PART,
    Case,
    PartRecord,
    RunRecord,
    Split,
    WorkFolder,
    find_labelled_cases,
    fold_part,
    read_split,
    require_same,
)

logger = logging.getLogger(__name__)


@checked
class PredictionRequest:
    """What :func:`predict` is asked for; the defaults are the benchmark's.

    work: work folder with ``images/``, ``labels/`` or ``masks/``, and ``splits.json``; predictions go into it. splits: another split file.
    models: folder with ``<stage>/<architecture>/`` and no other models; None: the app's, or its demo's.
    architecture: of the models, or a variant. stages: None: the paper's. folds: only these, in the ensemble, too; None: all.
    parts: ``held-out``, ``fold-0`` ...; None: all. cascaded_cv: also the cascaded columns of the cross-validation.
    probabilities: also save what the masks are thresholded from. mirroring: at test time, up to 8 times the work.
    """

    work: Path
    splits: Path | None = None
    models: Path | None = None
    architecture: str = ARCHITECTURES[0]
    device: str = "auto"
    mirroring: bool = True
    probabilities: bool = False
    parts: Sequence[str] | None = None
    folds: Sequence[int] | None = None
    stages: Sequence[Annotated[Stage, BeforeValidator(known_stage)]] | None = None
    cascaded_cv: bool = False

    @property
    def folder(self) -> Path:
        """Where the predictions go, ``<column>/<case>.nii.gz``."""
        return WorkFolder(self.work).predictions / self.architecture


def predict(request: PredictionRequest) -> list[str]:
    """Predicts the asked parts of the split and writes them; what is there already is kept, if the same models made it.

    Example::

        failed = flrplan.predict(flrplan.PredictionRequest(Path("W"), models=Path("models")))

    Held-out cases get the ensemble of all folds, cases of fold k the model of fold k alone. Masks are raw, ``uint8`` on the CT's grid; a
    liver that is not found gives an empty CRLM and FLR.
    Returns the ids of the cases that failed, each told in the log.
    Raises: SettingsError for a part that is not there or a split that does not fit; ModelError where a model is missing, was trained on a
        case that it is to predict, or others made the predictions that are there; LabelError where a case has no label.
    """
    cases = {c.case_id: c for c in find_labelled_cases(request.work)}
    split_file = request.splits or WorkFolder(request.work).splits
    split = read_split(split_file)
    split.require_cover(list(cases), split_file, request.work)
    settings = CascadeSettings(request.architecture, request.device, request.mirroring, largest_liver=False)
    stages = PAPER_STAGES if request.stages is None else tuple(s for s in STAGES.values() if s in request.stages)
    failed = []
    for title, (fold, ids) in parts_of(split, request.parts, request.folds).items():
        part = Part.TEST if fold is None else Part.CV
        columns = columns_of(part, stages, request.cascaded_cv)
        used = tuple(s for s in stages if any(s in COLUMNS[name].stages for name in columns))
        ensemble = (tuple(request.folds) if request.folds else None) if fold is None else (fold,)
        cascade = Cascade(model_store(request.models, ensemble), settings)
        if ensemble is None:
            check_ensemble(cascade, split, used)
        unrecorded = check_not_trained_on(cascade, ensemble, ids, used)
        record = WorkFolder(request.work).predicted / request.architecture / f"{title}.json"
        require_same_models(record, cascade, used, ids, unrecorded, starts(cascade, used))
        failed += predict_part(cases, ids, cascade, columns, WorkFolder(request.work), title, request.probabilities)
    return failed


def predict_columns(
    ct: CT, truth: Mapping[Structure, Mask], cascade: Cascade, columns: Sequence[str], with_probability: bool = False
) -> Iterator[tuple[str, Mask, Probability | None]]:
    """The asked columns of one case, masks ``(Z, Y, X) bool`` on the CT's grid, and their probabilities where they are asked for.

    Raises: EmptyLiverError where the TRUE liver is empty and a pipelined column needs it.
    """
    for stages, from_truth, names in _runs(columns):
        kept: dict[Structure, Probability] = {}
        keep = kept.__setitem__ if with_probability else None
        given = {structure: truth[structure] for structure in stages[0].needs} if from_truth else {}
        masks: Mapping[Structure, Mask]
        try:
            masks = cascade.run(ct, given, stages, on_probability=keep).masks
        except EmptyLiverError:
            if from_truth:
                raise
            logger.warning("case %s: no liver found; its liver, CRLM and FLR are empty", ct.name)
            masks = dict.fromkeys(Structure, np.zeros(ct.geometry.shape_zyx, bool))
            for structure in Structure if with_probability else ():  # the liver has its own; the others are not looked for
                kept.setdefault(structure, np.zeros(ct.geometry.shape_zyx, np.uint8))
        for name in names:
            target = COLUMNS[name].target
            yield name, masks[target], kept.get(target)


def _runs(columns: Sequence[str]) -> Iterator[tuple[tuple[Stage, ...], bool, list[str]]]:
    """What is run at once: stages, whether they are given masks of the truth, and the columns that come of it.

    The cascade from the CT is one run, whichever of its stages are asked for; every other stage is a run of its own.
    """
    runs: dict[tuple[Stage | None, bool], list[str]] = {}
    for name in columns:
        stage = COLUMNS[name].stage
        from_truth = COLUMNS[name].inputs is Inputs.PIPELINED and bool(stage.needs)
        runs.setdefault((None if stage in CASCADE and not from_truth else stage, from_truth), []).append(name)
    for (stage_alone, from_truth), names in runs.items():
        asked = [COLUMNS[name].stage for name in names]
        yield (stage_alone,) if stage_alone else tuple(s for s in CASCADE if s in asked), from_truth, names


def require_same_models(
    path: Path,
    cascade: Cascade,
    stages: Sequence[Stage],
    case_ids: Sequence[str],
    unrecorded: Sequence[str],
    started: Mapping[str, str] | None = None,
) -> None:
    """Records which models predict which cases of a part, for the next run and for the evaluation.

    started: what each model started from (:func:`starts`).
    Raises: ModelError where kept predictions of it came from other models, or a case was predicted as another part.
    """
    for other in sorted(path.parent.glob("*.json")):
        twice = sorted(set(case_ids) & set(PartRecord.read(other).cases)) if other != path else []
        if twice:
            raise ModelError(
                f"{other}: predicted as {other.stem} before, and now asked for as {path.stem}: {', '.join(twice)}; "
                "use the split of before, or another --work folder"
            )
    now = {"mirroring": cascade.settings.mirroring, **{stage.name: cascade.identity(stage).decides for stage in stages}}
    before = PartRecord.read(path)
    known = {name: value for name, value in before.made_of.items() if name in now}
    require_same(
        known,
        {name: now[name] for name in known},
        f"{path}: what is predicted of this part",
        "use another --work folder, or delete them and that file",
        ModelError,
    )
    PartRecord(
        {**before.made_of, **now},
        tuple({*before.cases, *case_ids}),
        tuple({*before.unrecorded, *unrecorded}),
        {**before.started_from, **(started or {})},
    ).write(path)


def starts(cascade: Cascade, stages: Sequence[Stage]) -> dict[str, str]:
    """What each model started from, ``<stage>/fold_<k>``, for an evaluation where the models are not at hand."""
    found = {}
    for stage in stages:
        folder = cascade.store.find(stage, cascade.settings.architecture).folder
        for fold in folder.folds:
            found[f"{stage.name}/fold_{fold}"] = start_of(RunRecord.read(folder.checkpoint(fold).parent, ModelError))
    return found


def check_ensemble(cascade: Cascade, split: Split, stages: Sequence[Stage]) -> None:
    """Raises ModelError where models for the held-out cases lack a fold of the split: an ensemble is all of them."""
    for stage in stages:
        folder = cascade.store.find(stage, cascade.settings.architecture).folder
        missing = sorted(set(range(len(split.folds))) - set(folder.folds))
        if missing:
            raise ModelError(
                f"{folder.path}: fold {missing[0]} of the split is not trained, and the held-out cases take all folds; train it, or "
                "say with --fold which folds make the ensemble"
            )


def check_not_trained_on(
    cascade: Cascade, folds: Sequence[int] | None, case_ids: Sequence[str], stages: Sequence[Stage]
) -> list[str]:
    """Raises ModelError where a fold that will predict these cases was trained on one of them.

    Returns the models that do not record it and cannot be checked, ``<stage>/fold_<k>``.
    """
    unrecorded = []
    for stage in stages:
        folder = cascade.store.find(stage, cascade.settings.architecture).folder
        for fold in folds if folds is not None else folder.folds:
            if not folder.training_cases(fold):
                logger.warning("%s: fold %d does not record what it was trained on; it cannot be checked", folder.path, fold)
                unrecorded.append(f"{stage.name}/fold_{fold}")
            seen = sorted(folder.training_cases(fold) & set(case_ids))
            if seen:
                raise ModelError(
                    f"{folder.path}: fold {fold} was trained on {', '.join(seen)}, which it is to predict; use the split it was trained with"
                )
    return unrecorded


def predict_part(
    cases: Mapping[str, Case],
    ids: Sequence[str],
    cascade: Cascade,
    columns: Sequence[str],
    work: WorkFolder,
    title: str,
    with_probability: bool = False,
) -> list[str]:
    """Predicts and writes the cases of one part; returns the ids that failed, after telling why.

    A probability that is there belongs to the mask beside it, whenever the process is killed: the old one goes before the mask is
    written, the new one comes after it.
    """
    failed = []
    architecture = cascade.settings.architecture
    for case_id in tqdm(ids, desc=title, unit="case", disable=None):
        masks = {name: work.prediction(architecture, name, case_id) for name in columns}
        probabilities = {name: work.probability(architecture, name, case_id) for name in columns}
        todo = [n for n in columns if not (masks[n].is_file() and (not with_probability or probabilities[n].is_file()))]
        if not todo:
            continue
        try:
            ct, truth = cases[case_id].load((Structure.LIVER, Structure.CRLM))
            for name, mask, probability in predict_columns(ct, truth, cascade, todo, with_probability):
                probabilities[name].unlink(missing_ok=True)
                write_label_map(masks[name], mask, ct.geometry)
                if probability is not None:
                    write_volume(probabilities[name], probability, ct.geometry)
        except (FlrError, OSError) as error:
            logger.error("case %s: %s", case_id, error)
            failed.append(case_id)
    return failed


def parts_of(split: Split, asked: Sequence[str] | None, folds: Sequence[int] | None) -> dict[str, tuple[int | None, list[str]]]:
    """The parts to predict: name to (fold, None for held-out; ids). Raises SettingsError for a part that is not there."""
    parts: dict[str, tuple[int | None, list[str]]] = {HELD_OUT_PART: (None, sorted(split.test))}
    for fold in range(len(split.folds)) if folds is None else folds:
        parts[fold_part(fold)] = (fold, list(split.validation_ids(fold)))
    unknown = sorted(set(asked or ()) - set(parts))
    if unknown:
        raise SettingsError(f"--part: this split has no part {', '.join(unknown)}; it has {', '.join(parts)}")
    return {name: part for name, part in parts.items() if (asked is None or name in asked) and part[1]}


def model_store(models: Path | None, folds: tuple[int, ...] | None) -> ModelStore:
    """The models of ``--models`` and no others; without it the app's, where demo models stand in for what is not trained."""
    return ModelStore(folds=folds, cache_mb=0) if models is None else ModelStore(models, demo=None, folds=folds, cache_mb=0)
