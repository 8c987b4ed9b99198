"""Makes one row of several: the predictions of architectures or variants, combined column by column.

    python benchmark/ensemble.py --work W --of nnunet --of stunet [--name ensemble]

Where every member has its probabilities (``predict.py --probabilities``), their mean is taken, and the mask is where it is above
0.5; else the masks vote, and a voxel needs more than half of them (of two, both). A cascaded column combines whole cascades: no stage
is given the ensemble's mask of the stage before.
Writes ``W/predictions/<name>/<column>/<case>.nii.gz``, and the mean as ``W/probabilities/<name>/...`` where it was taken; what is
there already is kept if it was made of the same (``W/predicted/<name>/<part>.json``).
Cost: reading each member's files; no network runs.
Exit status: 0 done, 1 something is missing or does not fit (stderr says what), 2 wrong options.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from flrplan.errors import FlrError, LabelError, ModelError, SettingsError
from flrplan.evaluation.columns import COLUMNS
from flrplan.evaluation.provenance import STARTED
from flrplan.evaluation.trained import CASES, PREDICTED, UNRECORDED, json_object
from flrplan.evaluation.variants import ENSEMBLE
from flrplan.files import write_json
from flrplan.image import read_label_map, write_label_map, write_volume
from flrplan.image.geometry import Geometry, require_same_grid
from flrplan.method.probabilities import MASK_FROM, PROBABILITIES, probability_path
from flrplan.method.variants import require_name
from flrplan.workfolder.split import HELD_OUT_PART, fold_part, read_split

PREDICTIONS = "predictions"
MEAN, VOTE = "mean probability", "majority vote"


def mean_probability(members: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The mean of probabilities ``round(255 p)``; halves go down, so that 128 and more is above one half, as in each member."""
    total = np.sum(np.stack(members), axis=0, dtype=np.float32)
    return np.asarray(np.ceil(total / len(members) - 0.5), np.uint8)


def majority(members: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Where more than half of the masks are; of two, where both are."""
    return np.asarray(2 * np.sum(np.stack(members), axis=0, dtype=np.uint8) > len(members))


def read_members(work: Path, kind: str, members: Sequence[str], column: str, case: str) -> tuple[list[NDArray[Any]], Geometry]:
    """The file of each member. Raises: GridError where they do not lie on one grid."""
    arrays, first = [], None
    for member in members:
        path = work / kind / member / column / f"{case}.nii.gz"
        array, geometry = read_label_map(path)
        first = first or (geometry, path)
        require_same_grid(first[0], geometry, str(first[1]), str(path))
        arrays.append(array)
    return arrays, geometry


def cases_of(folder: Path) -> set[str]:
    """Ids of the files in a column's folder."""
    return {path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz") if not path.name.startswith(".")}


def common_cases(work: Path, members: Sequence[str]) -> dict[str, set[str]]:
    """The cases of each column that any member has. Raises LabelError naming those that not all members have."""
    common, lacking = {}, []
    for column in COLUMNS:
        own = {member: cases_of(work / PREDICTIONS / member / column) for member in members}
        everything = set().union(*own.values())
        lacking += [f"{m}/{column}: {', '.join(sorted(everything - ids))}" for m, ids in own.items() if everything - ids]
        if everything:
            common[column] = everything
    if lacking or not common:
        raise LabelError(
            f"{work / PREDICTIONS}: an ensemble takes what every member predicted; missing are {'; '.join(lacking) or 'all'}. Predict them "
            "(predict.py --architecture NAME)"
        )
    return common


def records(work: Path, members: Sequence[str], part: str) -> dict[str, dict[str, Any]]:
    """What is recorded of a part of each member's predictions; empty where nothing is."""
    paths = {member: work / PREDICTED / member / f"{part}.json" for member in members}
    return {member: json_object(path) if path.is_file() else {} for member, path in paths.items()}


def record(work: Path, name: str, part: str, by: str, members: Sequence[str], ids: Sequence[str]) -> None:
    """Records of what a part of the ensemble is made, for the next run and for the evaluation.

    Raises: ModelError where kept predictions were made of others, or in the other way.
    """
    own = records(work, members, part)
    models = {m: {k: v for k, v in r.items() if k not in (CASES, UNRECORDED, STARTED)} for m, r in own.items()}
    path = work / PREDICTED / name / f"{part}.json"
    before = json_object(path) if path.is_file() else {}
    now: dict[str, Any] = {ENSEMBLE: {"by": by, "of": list(members)}, "members": models}
    if any(before.get(key, value) != value for key, value in now.items()):
        raise ModelError(
            f"{path}: the predictions of {name} that are there were made of other predictions or in another way; delete them and that "
            "file, or choose another --name"
        )
    now[CASES] = sorted(set(ids).intersection(*(r.get(CASES, ()) for r in own.values())))
    now[UNRECORDED] = sorted(f"{m} {model}" for m, r in own.items() for model in r.get(UNRECORDED, ()))
    write_json(path, now)


def todo(work: Path, name: str, by: str, common: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Column and case of every prediction that is not there."""
    kinds = (PREDICTIONS, PROBABILITIES) if by == MEAN else (PREDICTIONS,)
    for column, ids in common.items():
        for case in sorted(ids):
            if not all((work / kind / name / column / f"{case}.nii.gz").is_file() for kind in kinds):
                yield column, case


def run(arguments: argparse.Namespace) -> int:
    """Combines what every member has. Returns the exit status."""
    work, name, members = arguments.work, arguments.name, arguments.of
    require_name(name, "--name")
    if len(set(members)) != len(members) or len(members) < 2 or name in members:
        raise SettingsError(f"--of: expected at least two different rows, none of them {name}, got {', '.join(members)}")
    if any((work / "models").glob(f"*/{name}/fold_*")):
        raise SettingsError(f"--name: {work / 'models'} has trained models called {name}; choose another name")
    split = read_split(arguments.splits or work / "splits.json")
    common = common_cases(work, members)
    has_all = all(ids <= cases_of(work / PROBABILITIES / m / column) for column, ids in common.items() for m in members)
    by = MEAN if has_all else VOTE
    everything = set().union(*common.values())
    for part, ids in {HELD_OUT_PART: split.test, **{fold_part(k): fold for k, fold in enumerate(split.folds)}}.items():
        if own := sorted(everything & set(ids)):
            record(work, name, part, by, members, own)
    for column, case in tqdm(list(todo(work, name, by, common)), desc=f"{name} by {by}", unit="mask", disable=None):
        path = work / PREDICTIONS / name / column / f"{case}.nii.gz"
        if by == MEAN:
            arrays, geometry = read_members(work, PROBABILITIES, members, column, case)
            mean = mean_probability(arrays)
            write_volume(probability_path(work, name, column, case), mean, geometry)
            mask = mean >= MASK_FROM
        else:
            arrays, geometry = read_members(work, PREDICTIONS, members, column, case)
            mask = majority([array != 0 for array in arrays])
        write_label_map(path, mask, geometry)
    sys.stdout.write(f"{work / PREDICTIONS / name}\n")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="ensemble.py", description=head, epilog=tail, formatter_class=raw)
    parser.add_argument("--work", type=Path, default=Path("work"), help="work folder of the benchmark (default: ./work)")
    parser.add_argument("--splits", type=Path, help="split file (default: W/splits.json)")
    parser.add_argument("--of", action="append", required=True, metavar="ROW", help="architecture or variant; repeatable")
    parser.add_argument("--name", default="ensemble", help="of the row that is made (default: ensemble)")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        return run(parser.parse_args(arguments))
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
