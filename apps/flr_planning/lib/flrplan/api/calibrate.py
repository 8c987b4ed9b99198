"""From cases with a known remnant to the calibration of models: what their plans' errors are, given the masks and from the CT alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from flrplan.anatomy import Structure, to_compartments
from flrplan.api.run_plan import coherent_plan
from flrplan.engine import Cascade
from flrplan.engine.worker import open_cascade, opened_cascade
from flrplan.errors import EmptyLiverError, LabelError, SettingsError
from flrplan.method import CASCADE, FLR, Source
from flrplan.nnunet.train.publishing import changing
from flrplan.planning.calibration import Calibration, KnownCase, settings_of_run
from flrplan.planning.volumetry import measure_volumes
from flrplan.workfolder import TRUTH, ModelIdentity, WorkFolder, map_cases, require_same
from flrplan.workfolder.cases import Case, find_labelled_cases
from flrplan.workfolder.records import RunRecord

logger = logging.getLogger(__name__)


def calibrate(cases: Path, out: Path, cascade: Cascade | None = None, workers: int = 1) -> Calibration:
    """Plans every case of a folder twice, from its true liver and metastases and from the CT alone, and keeps the errors in ``out``.

    The file is written after each case; what is in it, by the ids, is not planned again, so a run that was stopped goes on, and cases of
    another folder are added, also by several processes at once. A predicted liver that is empty leaves out that kind of inputs.

    Args:
        cases: as :func:`flrplan.workfolder.cases.find_labelled_cases` reads it; none that the models have learned from.
        out: ``calibration.json`` in the folder of the models.
        workers: cases planned at once, each in a process with models of its own.

    Raises: SettingsError for cases that trained the models, or a file of other models; LabelError, ImageError, ModelError, OutputError.
    """
    cascade = Cascade() if cascade is None else cascade
    found = find_labelled_cases(cases)
    _require_unseen([case.case_id for case in found], cascade)
    settings = cascade.settings
    own = Calibration(
        {place: identity.decides for place, identity in _identities(cascade).items()},
        settings_of_run(settings.mirroring, settings.largest_liver),
        "synthetic cases" if WorkFolder(cases).cohort.is_file() else "cases",
        {},
    )
    own = _with_those_in(out, own, settings.architectures)
    missing = [case for case in found if case.case_id not in own.cases]
    if kept := len(found) - len(missing):
        logger.info("%d of the %d cases are in %s by their ids, so they are not planned again", kept, len(found), out)
    for case, kinds in zip(missing, _planned(cascade, missing, workers), strict=True):
        with changing(out):
            own = _with_those_in(out, replace(own, cases={**own.cases, case.case_id: kinds}), settings.architectures)
            own.write(out, *settings.architectures)
    return own


def _with_those_in(out: Path, own: Calibration, architectures: Sequence[str]) -> Calibration:
    """The calibration with the cases that are in the file, too. Raises SettingsError where they are of other models, or ran otherwise."""
    there = Calibration.read(out, *architectures)
    if there is None:
        return own
    now, then = ({"models": c.models, "settings": c.settings, "calibrated_on": c.calibrated_on} for c in (own, there))
    require_same(then, now, f"{out}: the calibration there", "delete it, or give another --out")
    return replace(own, cases={**there.cases, **own.cases})


def _planned(cascade: Cascade, cases: list[Case], workers: int) -> Iterator[dict[str, KnownCase]]:
    if workers == 1 or len(cases) < 2:
        return map_cases(partial(_known, cascade), cases, workers, "cases")
    store = cascade.store
    given = (store.root, store.demo, store.folds, cascade.settings, workers)
    return map_cases(
        _known_by_worker, cases, workers, "cases", name=lambda case: case.case_id, start=open_cascade, start_with=given
    )


def _known_by_worker(case: Case) -> dict[str, KnownCase]:
    return _known(opened_cascade(), case)


def _known(cascade: Cascade, case: Case) -> dict[str, KnownCase]:
    """What a case adds, by kind of inputs; nothing where its liver holds no parenchyma."""
    ct, truth = case.load(TRUTH)
    label, misfit = to_compartments(*(truth[s] for s in TRUTH))
    volumes = measure_volumes(label, ct.geometry.voxel_volume_ml)
    if not (truth[Structure.FLR] & truth[Structure.LIVER]).any():
        raise LabelError(
            f"case {case.case_id}: no FLR lies in its liver, so its remnant is not known; draw it, or take the case out"
        )
    for finding in misfit.findings():
        logger.warning("case %s: %s", case.case_id, finding)
    known = {}
    for source in Source:
        given = {s: truth[s] for s in (Structure.LIVER, Structure.CRLM)} if source is Source.GIVEN else {}
        try:
            _, evidence = coherent_plan(cascade, ct, given)
        except EmptyLiverError as error:
            logger.warning("%s; left out", error)
            continue
        if evidence is not None and volumes.functional_liver_ml > 0:
            known[source.value] = KnownCase(evidence, volumes.flr_functional_ml, volumes.flr_fraction)
    return known


def _identities(cascade: Cascade) -> dict[str, ModelIdentity]:
    """Which models take part, by stage, those of second opinions by ``flr/<architecture>``."""
    own = {stage.name: cascade.identity(stage) for stage in CASCADE}
    return own | {f"{FLR}/{name}": cascade.second_opinion(name).identity(FLR) for name in cascade.settings.also}


def _require_unseen(case_ids: list[str], cascade: Cascade) -> None:
    """Raises SettingsError naming the cases that a model has learned from: of those its errors are too small."""
    first, *opinions = cascade.settings.architectures
    for stage, architecture in (*((stage, first) for stage in CASCADE), *((FLR, name) for name in opinions)):
        folder = cascade.store.find(stage, architecture).folder
        for fold in folder.folds:
            seen = RunRecord.read(folder.checkpoint(fold).parent).learned_from
            if trained := sorted(seen.intersection(case_ids)):
                raise SettingsError(
                    f"{stage}/{architecture}, fold {fold} has learned from {len(trained)} of these cases ({', '.join(trained[:5])}); its errors there "
                    "are smaller than on new ones. Take them out"
                )
