"""Predicts every column of Tables 1 and 2 for the cases of a work folder with trained models.

    python benchmark/predict.py --work W --models M [--architecture nnunet]

W holds ``images/``, ``labels/`` (or ``masks/``) and ``splits.json``. Held-out cases get the ensemble of all folds, cases of fold k
the model of fold k alone (out-of-fold). Pipelined columns take the true masks, cascaded ones the predicted masks of the stage
before; a liver that is not found gives an empty CRLM and FLR, scored as such. Masks are raw: no piece is dropped.
Refuses a model that was trained on a case that it is to predict (``run.json`` beside each checkpoint).
Writes ``W/predictions/<architecture>/<column>/<case>.nii.gz``, uint8; what is there already is kept, so a stopped run continues,
if the same models made it (``W/predicted-<architecture>.json``).
Cost: six runs of a network a held-out case, each up to 8 times with mirroring (``--no-mirroring`` leaves it out).
Exit status: 0 done, 1 something could not be predicted (stderr says what).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flrplan.cascade import Cascade, CascadeSettings
from flrplan.errors import EmptyLiverError, FlrError, ModelError
from flrplan.evaluation.columns import COLUMNS, Inputs
from flrplan.io import CT, write_json, write_label_map
from flrplan.labels import Mask, Structure
from flrplan.models import MODEL_ROOT, ModelStore
from flrplan.splits import Split, read_split
from flrplan.stages import ARCHITECTURES, CASCADE, STAGES
from flrplan.training_cases import LabelledCase, find_labelled_cases

logger = logging.getLogger("predict")


def predict_columns(ct: CT, truth: Mapping[Structure, Mask], cascade: Cascade, columns: Sequence[str]) -> dict[str, Mask]:
    """The asked columns of one case, ``(Z, Y, X) bool`` on the CT's grid.

    Raises: EmptyLiverError where the TRUE liver is empty and a pipelined column needs it.
    """
    from_ct = {name for name in columns if _is_cascaded(name)}
    stages = tuple(s for s in CASCADE if any(COLUMNS[name].stage is s for name in from_ct))
    cascaded: Mapping[Structure, Mask]
    try:
        cascaded = cascade.run(ct, stages=stages).masks
    except EmptyLiverError:
        logger.warning("case %s: no liver found; its liver, CRLM and FLR are empty", ct.name)
        cascaded = dict.fromkeys(Structure, np.zeros(ct.geometry.shape_zyx, bool))
    masks = {}
    for name in columns:
        column = COLUMNS[name]
        if name in from_ct:
            masks[name] = cascaded[column.target]
        else:
            given = {s: truth[s] for s in column.stage.needs}
            masks[name] = cascade.run(ct, given, (column.stage,)).masks[column.target]
    return masks


def _is_cascaded(name: str) -> bool:
    """True for the columns of the cascade that starts at the CT; its first stage is the pipelined one, too."""
    column = COLUMNS[name]
    return column.inputs is Inputs.CASCADED or (column.inputs is Inputs.PIPELINED and not column.stage.needs)


def require_same_models(path: Path, title: str, cascade: Cascade) -> None:
    """Records which models predict a part. Raises ModelError where kept predictions of it came from others."""
    now = {"mirroring": cascade.settings.mirroring}
    now |= {stage.name: cascade.identity(stage)["weights_sha256"] for stage in STAGES.values()}
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if record.setdefault(title, now) != now:
        raise ModelError(
            f"{path}: the predictions of {title} that are there came from other models or settings; "
            f"use another --work folder, or delete them and {path.name}"
        )
    write_json(path, record)


def check_not_trained_on(cascade: Cascade, folds: Sequence[int] | None, case_ids: Sequence[str]) -> None:
    """Raises ModelError where a fold that will predict these cases was trained on one of them."""
    for stage in STAGES.values():
        folder = cascade.store.find(stage, cascade.settings.architecture).folder
        for fold in folds if folds is not None else folder.folds:
            if not folder.training_cases(fold):
                logger.warning("%s: fold %d does not record what it was trained on; it cannot be checked", folder.path, fold)
            seen = sorted(folder.training_cases(fold) & set(case_ids))
            if seen:
                raise ModelError(
                    f"{folder.path}: fold {fold} was trained on {seen[:5]}, which it is to predict; use the split it was trained with"
                )


def predict_part(
    cases: Mapping[str, LabelledCase], ids: Sequence[str], cascade: Cascade, columns: Sequence[str], out: Path, title: str
) -> list[str]:
    """Predicts and writes the cases of one part; returns the ids that failed, after telling why."""
    failed = []
    for case_id in tqdm(ids, desc=title, unit="case", disable=None):
        paths = {name: out / name / f"{case_id}.nii.gz" for name in columns}
        todo = [name for name, path in paths.items() if not path.is_file()]
        if not todo:
            continue
        try:
            ct, truth = cases[case_id].load((Structure.LIVER, Structure.CRLM))
            for name, mask in predict_columns(ct, truth, cascade, todo).items():
                write_label_map(paths[name], mask, ct.geometry)
        except FlrError as error:
            logger.error("case %s: %s", case_id, error)
            failed.append(case_id)
    return failed


def run(arguments: argparse.Namespace) -> int:
    """Predicts all parts of the split. Returns the exit status."""
    cases = {c.case_id: c for c in find_labelled_cases(arguments.work)}
    split: Split = read_split(arguments.splits or arguments.work / "splits.json")
    split.require_cover(list(cases))
    settings = CascadeSettings(arguments.architecture, arguments.device, not arguments.no_mirroring, largest_liver=False)
    out = arguments.work / "predictions" / arguments.architecture
    parts: list[tuple[str, tuple[int, ...] | None, Sequence[str]]] = [("held-out", None, sorted(split.test))]
    parts += [(f"fold {k}", (k,), split.validation_ids(k)) for k in range(len(split.folds))]
    failed = []
    for title, folds, ids in parts:
        if not ids:
            continue
        cascade = Cascade(ModelStore(arguments.models, folds=folds), settings)
        check_not_trained_on(cascade, folds, ids)
        require_same_models(arguments.work / f"predicted-{arguments.architecture}.json", title, cascade)
        columns = [n for n, c in COLUMNS.items() if folds is None or arguments.cascaded_cv or c.inputs is not Inputs.CASCADED]
        failed += predict_part(cases, ids, cascade, columns, out, title)
    if failed:
        sys.stderr.write(f"{len(failed)} cases could not be predicted: {', '.join(failed)}\n")
    sys.stdout.write(f"{out}\n")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="predict.py", description=head, epilog=tail, formatter_class=raw)
    parser.add_argument("--work", type=Path, default=Path("work"), help="work folder of the benchmark (default: ./work)")
    parser.add_argument("--splits", type=Path, help="split file (default: W/splits.json)")
    parser.add_argument("--models", type=Path, default=MODEL_ROOT, help="folder with <stage>/<architecture>/ models")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")
    parser.add_argument("--no-mirroring", action="store_true", help="no test-time mirroring (nnU-Net's standard has it)")
    parser.add_argument("--cascaded-cv", action="store_true", help="also the cascaded columns of the cross-validation")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        return run(parser.parse_args(arguments))
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
