"""What comes before a training: inputs, plan and preprocessed arrays of one stage, made once and shared where they agree."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from flrplan.errors import FlrError, LabelError, OutputError, SettingsError, TrainingError
from flrplan.files import make_writable, require_room, write_json
from flrplan.input_masks import MaskErrors, errors_of_predictions
from flrplan.method import InputMasks, Recipe, Stage
from flrplan.nnunet.environment import nnunet_folders
from flrplan.nnunet.model.intensities import clip_floor_fault
from flrplan.nnunet.prepare.architecture_plan import TAKEN_OVER
from flrplan.nnunet.prepare.dataset import CHANNELS_NAME, convert_dataset, dataset_name
from flrplan.nnunet.prepare.planning import CONFIGURATION, PLANS, plan_and_preprocess
from flrplan.nnunet.prepare.preprocessed import expected_bytes
from flrplan.workfolder import SPLITS_NAME, Case, Split, require_same, write_record
from flrplan.workfolder.cases import files_of

logger = logging.getLogger(__name__)

_ADDED = {"input": {"region_channel": False}}
"""Settings that older preparations do not name, with the value that they had."""
_VOXELS = ("target_voxels", "target_voxels_outside")
_ALMOST_NOTHING = 16_000_000
"""Free bytes below which a failed preparation is put down to the full disk: libraries do not always say so."""


@dataclass(frozen=True)
class StageWork:
    """Where one stage is prepared and trained: ``<work>/<stage>``; nnU-Net's folders lie in it."""

    root: Path
    stage: Stage

    @property
    def folder(self) -> Path:
        """Root of nnU-Net's three folders for this stage."""
        return self.root / self.stage.name

    @property
    def marker(self) -> Path:
        """Written last by the preparation; says what was prepared."""
        return self.folder / "prepared.json"

    @property
    def lock(self) -> Path:
        """Held by whoever prepares."""
        return self.folder / "prepare.lock"

    def make(self) -> None:
        """Makes the folder. Raises: OutputError where it cannot be made or written to."""
        make_writable(self.folder, "give another --work folder")

    @property
    def preprocessed(self) -> Path:
        """nnU-Net's preprocessed folder of this stage."""
        return self.folder / "preprocessed" / dataset_name(self.stage)


def prepare_stage(
    cases: Sequence[Case],
    work: StageWork,
    recipe: Recipe,
    split: Split,
    workers: int = 1,
    plans: dict[str, Any] | None = None,
) -> None:
    """Inputs, plan and preprocessed arrays of one stage; done once, and left alone if it is there with the same settings.

    plans: this plan instead of one made from the data (:mod:`flrplan.nnunet.prepare.fine_tuning`).
    Only cases of the split's folds are prepared: held-out ids never come near a training.
    Raises: SettingsError for fewer than 2 folds, and where the folder was prepared with other settings or cases (by content: files may
    move); LabelError for intensity statistics that are not those of the target; LabelError, GridError, ImageError from the cases; OutputError where the work folder cannot be written or the disk is full;
    TrainingError where preprocessing fails.
    """
    split.require_training()
    allowed = {i for fold in split.folds for i in fold}
    used = sorted((c for c in cases if c.case_id in allowed), key=lambda c: c.case_id)
    missing = sorted(allowed - {c.case_id for c in used})
    if missing:
        raise SettingsError(f"the split names cases that are not there: {missing[:10]}")
    settings = recipe.to_json()
    content = {
        "input": settings["input"],
        "plan": plans or recipe.plan.shared(),
        "folds": split.nnunet_folds(),
        "test": sorted(split.test),
        "files": {case.case_id: case.file_stamps() for case in used},
    }
    work.make()
    with FileLock(work.lock):  # two folds may be started at once
        if work.marker.is_file():
            _require_same(work, content, used)
            _require_plausible(work, recipe, json.loads((work.preprocessed / f"{PLANS}.json").read_text(encoding="utf-8")))
        else:
            _prepare(work, used, recipe, content, workers, plans)


def read_prepared(work: StageWork) -> dict[str, Any]:
    """What :func:`prepare_stage` recorded: settings, folds, ids, ``data_sha256``, ``cases_sha256``, and by target ``target_voxels``
    (of each case, where the network is shown the CT) and ``target_voxels_outside`` (the others; cases without any are left out).

    flrplan 0.1.0 knew one target a stage and left its name out.

    Raises: SettingsError where the stage is not prepared.
    """
    try:
        content: dict[str, Any] = json.loads(work.marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SettingsError(f"{work.folder} is not prepared for training; prepare it again (flrplan train does)") from None
    for key in _VOXELS:
        counts = content.get(key, {})
        if not all(isinstance(of_target, dict) for of_target in counts.values()):
            content[key] = {work.stage.target.value: counts}
    return content


def _require_same(work: StageWork, content: dict[str, Any], used: Sequence[Case]) -> None:
    """Takes the new stamps of files with other paths, sizes or times than before, but the same content; only these are read.

    Raises: SettingsError naming the settings, folds or cases that the stage was prepared from, and are others now.
    """
    before, now = read_prepared(work), json.loads(json.dumps(content))
    stale = [case for case in used if before["files"].get(case.case_id) != now["files"][case.case_id]]
    was, is_ = (
        {"input": {**_ADDED["input"], **p["input"]}, "cases": list(p["files"]), **{k: p[k] for k in ("plan", "folds", "test")}}
        for p in (before, now)
    )
    what, remedy = f"{work.folder}: what is prepared there", "use another --work folder or delete it"
    require_same(was, is_, what, remedy)
    known = before["cases_sha256"]
    digests = {case.case_id: case.sha256() for case in stale}
    require_same({"files": {i: known.get(i) for i in digests}}, {"files": digests}, what, remedy)
    if stale:
        logger.info("stage %s: %d cases have other paths or times, and the same content", work.stage, len(stale))
        write_record(work.marker, {**before, "files": content["files"]})


def _prepare(
    work: StageWork,
    used: Sequence[Case],
    recipe: Recipe,
    content: dict[str, Any],
    workers: int,
    plans: dict[str, Any] | None,
) -> None:
    _clear_other_preparation(work, content)
    require_room(work.folder, sum(f.stat().st_size for c in used for f in files_of(c.image)), f"copying {len(used)} cases")
    hashes = {case.case_id: case.sha256() for case in used}
    errors = _mask_errors(used, work.stage, recipe)
    voxels = convert_dataset(used, work.stage, recipe.input, work.folder / "raw", workers, work.root / CHANNELS_NAME, errors)
    try:
        with nnunet_folders(work.folder):
            check = partial(_check_plan, work, recipe)
            plan_and_preprocess(dataset_name(work.stage), recipe.plan, workers, check, plans)
    except FlrError:
        raise
    except Exception as error:  # nnU-Net, blosc2 and their pools raise many kinds
        raise _named(error, work.folder) from error
    write_json(work.preprocessed / SPLITS_NAME, content["folds"])
    digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    recorded = {
        "target_voxels": {target: {i: count.shown for i, count in counts.items()} for target, counts in voxels.items()},
        "target_voxels_outside": {
            target: {i: count.outside for i, count in counts.items() if count.outside} for target, counts in voxels.items()
        },
    }
    record = {**content, "data_sha256": digest, "cases_sha256": hashes, **recorded}
    write_record(work.marker, record if errors is None else {**record, "mask_errors": errors.to_json()})


def _mask_errors(used: Sequence[Case], stage: Stage, recipe: Recipe) -> MaskErrors | None:
    """What perturbed masks are drawn from: the errors of the predictions beside the cases, else the default ones."""
    if recipe.input.input_masks is not InputMasks.PERTURBED or not stage.needs:
        return None
    return errors_of_predictions(used)


def _check_plan(work: StageWork, recipe: Recipe, plans: Mapping[str, Any]) -> None:
    _require_plausible(work, recipe, plans)
    require_room(work.folder, expected_bytes(work.preprocessed, plans, CONFIGURATION), f"preprocessing stage {work.stage}")


def _require_plausible(work: StageWork, recipe: Recipe, plans: Mapping[str, Any]) -> None:
    """Raises: LabelError where the plan would normalise tissue by the value outside the region, or by air."""
    fault = clip_floor_fault(plans, work.stage, recipe.input, whole_ct=TAKEN_OVER not in plans)
    if not fault:
        return
    if TAKEN_OVER in plans:
        raise LabelError(f"stage {work.stage}: the model to start from cannot be trained further: {fault}; start anew")
    raise LabelError(
        f"{work.folder}: {fault}. Either it was prepared by flrplan 0.1.0, which took in what lies outside the region: then delete the "
        f"folder and prepare again; or the labels of {work.stage.target_names} hold air: correct them"
    )


def _named(error: Exception, folder: Path) -> FlrError:
    """The error of a preparation that failed outside our own code."""
    free = shutil.disk_usage(folder).free
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or free < _ALMOST_NOTHING:
        return OutputError(
            f"{folder}: the disk is full ({free / 1e6:.0f} MB free); make room or use a --work folder on another disk, then start "
            f"again: what is whole is kept ({error})"
        )
    reason = f"{type(error).__name__}: {error}"
    if notes := getattr(error, "__notes__", []):
        return TrainingError(
            f"{folder}: preprocessing {notes[0]} failed: {reason}. Correct that image or label, or take the case out of the split, "
            "and start again"
        )
    return TrainingError(
        f"{folder}: planning or preprocessing failed, which case is not known: {reason}. Start again with one worker (--workers 1): "
        "what is whole is kept"
    )


def _clear_other_preparation(work: StageWork, content: dict[str, Any]) -> None:
    """Removes what a preparation with other settings left, its training states too; the same settings continue."""
    started = work.folder / "preparing.json"
    if not started.is_file() or json.loads(started.read_text(encoding="utf-8")) != json.loads(json.dumps(content)):
        for name in ("raw", "preprocessed", "results"):
            shutil.rmtree(work.folder / name, ignore_errors=True)
    write_json(started, content)
