"""Which cases train, validate and test. Held-out ids never train, whoever asks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flrplan.errors import SettingsError
from flrplan.files import read_json

NNUNET_SEED = 12345
"""Seed of nnU-Net's own cross-validation draw over the sorted ids (nnunetv2.utilities.crossval_split)."""
SPLITS_NAME = "splits_final.json"
"""nnU-Net's name of the file with its folds, in the preprocessed folder."""

_SPLIT_FORM = '{"test": [ids], "folds": [[validation ids], ...]}'

HELD_OUT_PART = "held-out"
"""Name of the part that is predicted by the ensemble of all folds."""


def fold_part(fold: int) -> str:
    """Name of the part that the model of one fold predicts."""
    return f"fold-{fold}"


@dataclass(frozen=True)
class Split:
    """``folds[k]`` are the validation ids of fold k; the other folds' ids train it. ``test`` ids are held out."""

    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = [i for i, n in Counter([*self.test, *(i for fold in self.folds for i in fold)]).items() if n > 1]
        if twice:
            raise SettingsError(
                f"each case belongs to one fold or to the test part, but these occur twice: {', '.join(sorted(twice))}"
            )

    def require_training(self, split: object = "this split") -> None:
        """Raises SettingsError for fewer than 2 folds, of which none trains the other. split: where it was read, for the message."""
        if len(self.folds) < 2:
            held = "one fold" if self.folds else "no folds"
            raise SettingsError(f"{split} has {held}, so it can evaluate but not train; give one with at least 2 folds")

    def train_ids(self, fold: int) -> tuple[str, ...]:
        """Ids that train fold ``fold``, sorted. Raises SettingsError for a fold that does not exist."""
        self.validation_ids(fold)
        return tuple(sorted(i for k, ids in enumerate(self.folds) if k != fold for i in ids))

    def validation_ids(self, fold: int) -> tuple[str, ...]:
        """Ids that validate fold ``fold``, sorted. Raises SettingsError for a fold that does not exist."""
        if not 0 <= fold < len(self.folds):
            raise SettingsError(f"fold {fold} does not exist; this split has folds 0 to {len(self.folds) - 1}")
        return tuple(sorted(self.folds[fold]))

    def nnunet_folds(self) -> list[dict[str, list[str]]]:
        """All folds in nnU-Net's form, as :data:`SPLITS_NAME` holds them."""
        return [{"train": list(self.train_ids(k)), "val": list(self.validation_ids(k))} for k in range(len(self.folds))]

    def require_cover(self, case_ids: Sequence[str], split: object = "the split", cases: object = "the folder") -> None:
        """Raises SettingsError unless the split names exactly these cases. split, cases: where both were read, for the message."""
        named = {*self.test, *(i for fold in self.folds for i in fold)}
        missing, extra = sorted(set(case_ids) - named), sorted(named - set(case_ids))
        if missing or extra:
            lines = [f"  {len(missing)} cases are not in the split: {', '.join(missing)}"] * bool(missing)
            lines += [f"  {len(extra)} ids of the split are not among the cases: {', '.join(extra)}"] * bool(extra)
            remedy = "Give the split of these cases, draw one (benchmark/draw_split.py), or complete the cases"
            raise SettingsError("\n".join([f"{split} does not fit the cases of {cases}:", *lines, remedy]))


def nnunet_split(case_ids: Sequence[str], folds: int = 5, test: Sequence[str] = ()) -> Split:
    """nnU-Net's own draw: shuffled k-fold over the sorted ids, seed 12345 (157 ids give 32/32/31/31/31).

    Raises: SettingsError for fewer than 2 folds, or fewer cases than folds.
    """
    if folds < 2:
        raise SettingsError(f"cross-validation needs at least 2 folds, got {folds}; to train on few cases use 2")
    ids = sorted(set(case_ids) - set(test))
    if len(ids) < folds:
        raise SettingsError(
            f"{folds} folds need at least {folds} cases to train on, found {len(ids)}; label more or use fewer folds"
        )
    from sklearn.model_selection import KFold

    draw = KFold(n_splits=folds, shuffle=True, random_state=NNUNET_SEED).split(ids)
    return Split(tuple(tuple(ids[i] for i in validation) for _, validation in draw), tuple(sorted(test)))


def read_split(path: str | os.PathLike[str]) -> Split:
    """A split file ``{"test": [ids], "folds": [[validation ids], ...]}``, or nnU-Net's ``splits_final.json``, which holds out no case.

    Raises: SettingsError naming the file, also for a fold without cases; for nnU-Net's where its folds are no cross-validation.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        raise SettingsError(f"{path}: a pickle could run code and is not opened; save its folds as {_SPLIT_FORM}")
    content = read_json(path, _SPLIT_FORM)
    try:
        if isinstance(content, list):
            return _from_nnunet(content)
        unknown = sorted(set(content) - {"test", "folds"})
        if unknown:
            raise SettingsError(f"unknown keys {', '.join(unknown)}")
        return Split(_folds(content["folds"]), _ids(content.get("test", [])))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{error} is missing" if isinstance(error, KeyError) else error
        raise SettingsError(f"{path}: expected {_SPLIT_FORM}: {found}") from error


def _from_nnunet(content: list[Any]) -> Split:
    """nnU-Net's list of ``{"train": [ids], "val": [ids]}``, where each fold trains on all cases that it does not validate."""
    if not content or not all(isinstance(fold, Mapping) and set(fold) == {"train", "val"} for fold in content):
        raise TypeError('found a list, but not of nnU-Net\'s {"train": [ids], "val": [ids]}')
    split = Split(_folds([fold["val"] for fold in content]))
    for k, fold in enumerate(content):
        differ = set(_ids(fold["train"])) ^ set(split.train_ids(k))
        if differ:
            raise SettingsError(
                f"found nnU-Net's form, but fold {k} does not train on exactly the cases that the other folds validate "
                f"({', '.join(sorted(differ)[:5])}), so it is no cross-validation"
            )
    return split


def require_fold(
    folds: Sequence[Mapping[str, Sequence[str]]], fold: int, held_out: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Training and validation ids of one fold in nnU-Net's form; what a training asks just before it starts.

    Raises: SettingsError for a fold that does not exist, has no training case, trains on its own validation cases, or
    names an id that is held out.
    """
    if not 0 <= fold < len(folds):
        raise SettingsError(f"fold {fold} does not exist; this split has folds 0 to {len(folds) - 1}")
    train, validation = list(folds[fold]["train"]), list(folds[fold]["val"])
    if not train or not validation:
        raise SettingsError(f"fold {fold} has {len(train)} cases to train on and {len(validation)} to validate; both need one")
    both = sorted(set(train) & set(validation))
    if both:
        raise SettingsError(f"fold {fold} trains on its own validation cases {', '.join(both)}")
    forbidden = sorted({*train, *validation} & set(held_out))
    if forbidden:
        raise SettingsError(
            f"fold {fold} holds cases that the split calls test: {', '.join(forbidden)}; held-out cases never train. Prepare the "
            "stage with that split in another --work folder"
        )
    return train, validation


def _folds(values: Sequence[object]) -> tuple[tuple[str, ...], ...]:
    folds = tuple(map(_ids, values))
    if () in folds:
        raise SettingsError(f"fold {folds.index(())} (counted from 0) names no case; name its cases, or leave it out")
    return folds


def _ids(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list of case ids, found {value!r}")
    return tuple(map(str, value))
