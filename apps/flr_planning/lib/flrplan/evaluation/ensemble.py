"""Makes one row of several: the predictions of architectures or variants, combined column by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from flrplan.errors import LabelError, ModelError, SettingsError
from flrplan.evaluation.columns import COLUMNS
from flrplan.evaluation.variants import ENSEMBLE
from flrplan.image import Geometry, read_label_map, require_same_grid, write_label_map, write_volume
from flrplan.method import MASK_FROM, require_name
from flrplan.workfolder import HELD_OUT_PART, IMAGE_SUFFIX, PartRecord, WorkFolder, fold_part, read_split, require_same

MEAN, VOTE = "mean probability", "majority vote"


def mean_probability(members: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The mean of probabilities ``round(255 p)``; halves go down, so that 128 and more is above one half, as in each member."""
    total = np.sum(np.stack(members), axis=0, dtype=np.float32)
    return np.asarray(np.ceil(total / len(members) - 0.5), np.uint8)


def majority(members: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Where more than half of the masks are; of two, where both are."""
    return np.asarray(2 * np.sum(np.stack(members), axis=0, dtype=np.uint8) > len(members))


def _read_members(kind: Path, members: Sequence[str], column: str, case: str) -> tuple[list[NDArray[Any]], Geometry]:
    """The file of each member. Raises: GridError where they do not lie on one grid."""
    arrays, first = [], None
    for member in members:
        path = kind / member / column / f"{case}{IMAGE_SUFFIX}"
        array, geometry = read_label_map(path)
        first = first or (geometry, path)
        require_same_grid(first[0], geometry, str(first[1]), str(path))
        arrays.append(array)
    return arrays, geometry


def _cases_of(folder: Path) -> set[str]:
    """Ids of the files in a column's folder."""
    return {path.name.removesuffix(IMAGE_SUFFIX) for path in folder.glob(f"*{IMAGE_SUFFIX}") if not path.name.startswith(".")}


def _common_cases(work: WorkFolder, members: Sequence[str]) -> dict[str, set[str]]:
    """The cases of each column that any member has. Raises LabelError naming those that not all members have."""
    common, lacking = {}, []
    for column in COLUMNS:
        own = {member: _cases_of(work.predictions / member / column) for member in members}
        everything = set().union(*own.values())
        lacking += [f"{m}/{column}: {', '.join(sorted(everything - ids))}" for m, ids in own.items() if everything - ids]
        if everything:
            common[column] = everything
    if lacking or not common:
        raise LabelError(
            f"{work.predictions}: an ensemble takes what every member predicted; missing are {'; '.join(lacking) or 'all'}. Predict them "
            "(predict.py --architecture NAME)"
        )
    return common


def _record(work: WorkFolder, name: str, part: str, by: str, members: Sequence[str], ids: Sequence[str]) -> None:
    """Records of what a part of the ensemble is made, for the next run and for the evaluation.

    Raises: ModelError where kept predictions were made of others, or in the other way.
    """
    own = {member: PartRecord.read(work.predicted / member / f"{part}.json") for member in members}
    now = {ENSEMBLE: {"by": by, "of": list(members)}, "members": {m: r.made_of for m, r in own.items()}}
    path = work.predicted / name / f"{part}.json"
    if path.is_file():
        remedy = "delete them and that file, or choose another --name"
        require_same(PartRecord.read(path).made_of, now, f"{path}: what is there of {name}", remedy, ModelError)
    cases = tuple(set(ids).intersection(*(r.cases for r in own.values())))
    PartRecord(now, cases, tuple(f"{m} {model}" for m, r in own.items() for model in r.unrecorded)).write(path)


def _todo(work: WorkFolder, name: str, by: str, common: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Column and case of every prediction that is not there."""
    kinds = (work.predictions, work.probabilities) if by == MEAN else (work.predictions,)
    for column, ids in common.items():
        for case in sorted(ids):
            if not all((kind / name / column / f"{case}{IMAGE_SUFFIX}").is_file() for kind in kinds):
                yield column, case


def combine(work: WorkFolder, members: Sequence[str], name: str = "ensemble", splits: Path | None = None) -> Path:
    """Combines what every member has predicted into the row ``name``; returns its folder.

    Where every member has its probabilities, their mean is taken, and the mask is where it is above 0.5; else the masks vote. What is
    there already is kept if it was made of the same.
    Raises: SettingsError for members or a name that cannot be; LabelError where not all members have a case; ModelError where what is
        there was made of others; GridError.
    """
    require_name(name, "--name")
    if len(set(members)) != len(members) or len(members) < 2 or name in members:
        raise SettingsError(f"--of: expected at least two different rows, none of them {name}, got {', '.join(members)}")
    if any(work.models.glob(f"*/{name}/*")):
        raise SettingsError(f"--name: {work.models} has trained models called {name}; choose another name")
    split = read_split(splits or work.splits)
    common = _common_cases(work, members)
    has_all = all(ids <= _cases_of(work.probabilities / m / column) for column, ids in common.items() for m in members)
    by = MEAN if has_all else VOTE
    everything = set().union(*common.values())
    for part, ids in {HELD_OUT_PART: split.test, **{fold_part(k): fold for k, fold in enumerate(split.folds)}}.items():
        if own := sorted(everything & set(ids)):
            _record(work, name, part, by, members, own)
    for column, case in tqdm(list(_todo(work, name, by, common)), desc=f"{name} by {by}", unit="mask", disable=None):
        if by == MEAN:
            arrays, geometry = _read_members(work.probabilities, members, column, case)
            mean = mean_probability(arrays)
            write_volume(work.probability(name, column, case), mean, geometry)
            mask = mean >= MASK_FROM
        else:
            arrays, geometry = _read_members(work.predictions, members, column, case)
            mask = majority([array != 0 for array in arrays])
        write_label_map(work.prediction(name, column, case), mask, geometry)
    return work.predictions / name
