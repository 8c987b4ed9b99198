"""Draws which cases are held out. The draw needs nothing but the ids and the seed, so anybody can repeat it in any language."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from flrplan.errors import SettingsError
from flrplan.files import read_table, write_json
from flrplan.workfolder import Split, nnunet_split, read_split

DATASET_IDS: tuple[str, ...] = tuple(f"CRLM-CT-{n}" for n in range(1001, 1198))
"""The 197 cases of TCIA's Colorectal-Liver-Metastases."""

HELD_OUT = 40
"""Cases of the held-out test (arXiv:2604.07999)."""

DEFAULT_SEED = 2604
"""Any number would do; this one is from the paper's arXiv id."""

NO_STRATA = "all"


def draw_split(
    case_ids: Sequence[str],
    held_out: int = HELD_OUT,
    seed: int = DEFAULT_SEED,
    strata: Mapping[str, str] | None = None,
    folds: int = 5,
) -> Split:
    """Held-out ids by rank of SHA-256(``<seed>:<id>``), the five folds of the rest by nnU-Net's own draw.

    Each stratum gives its share of the held-out cases: rounded down, then one more each by largest remainder, equal remainders
    in the order of the strata's names. Without ``strata`` there is one.

    Raises: SettingsError for ids that occur twice, too few cases, or ids without a stratum.
    """
    ids = sorted(set(case_ids))
    if len(ids) != len(case_ids):
        raise SettingsError(f"expected each id once, got {len(case_ids)} ids of which {len(ids)} differ")
    if not 0 <= held_out <= len(ids) - folds:
        raise SettingsError(
            f"{held_out} held-out cases and {folds} folds need at least {held_out + folds} cases, got {len(ids)}"
        )
    lacking = [i for i in ids if strata is not None and i not in strata]
    if lacking:
        raise SettingsError(f"no stratum for {lacking[:10]}; prepare these cases, or draw without --dataset")
    members: dict[str, list[str]] = defaultdict(list)
    for case in ids:
        members[NO_STRATA if strata is None else strata[case]].append(case)
    quota = _quota({name: len(cases) for name, cases in members.items()}, held_out)
    test = [case for name, cases in members.items() for case in sorted(cases, key=lambda c: _rank(seed, c))[: quota[name]]]
    return nnunet_split(ids, folds, test)


def write_split(path: Path, split: Split) -> None:
    """Writes a split file; the same split may be there already. Raises: SettingsError where another one is, OutputError."""
    if path.exists() and read_split(path) != split:
        raise SettingsError(
            f"{path} exists and is another split; it stays as it is once something was trained with it. Give another name"
        )
    write_json(path, {"test": split.test, "folds": split.folds})


def _rank(seed: int, case: str) -> str:
    return hashlib.sha256(f"{seed}:{case}".encode()).hexdigest()


def _quota(sizes: Mapping[str, int], wanted: int) -> dict[str, int]:
    total = sum(sizes.values())
    exact = {name: Fraction(size * wanted, total) for name, size in sizes.items()}
    quota = {name: int(share) for name, share in exact.items()}
    order = sorted(sizes, key=lambda name: (quota[name] - exact[name], name))
    for name in order[: wanted - sum(quota.values())]:
        quota[name] += 1
    return quota


def stratum(tumours: int, slice_spacing_mm: float) -> str:
    """The stratum of a case: 1, 2-5 or more than 5 tumours; slices up to 2.5 mm, up to 5 mm, or thicker.

    The same limits as in the evaluation's breakdowns; no tumour counts with one.
    """
    number = "1" if tumours <= 1 else "2-5" if tumours <= 5 else ">5"
    spacing = "<=2.5" if slice_spacing_mm <= 2.5 else "2.5-5" if slice_spacing_mm <= 5.0 else ">5"
    return f"{number} tumours, {spacing} mm"


def read_strata(dataset: Path) -> dict[str, str]:
    """Case to stratum from a ``dataset.csv``. Raises SettingsError naming the file and the line."""
    strata: dict[str, str] = {}
    for line, row in enumerate(read_table(dataset), 2):
        try:
            strata[row["case"]] = stratum(int(row["tumours"]), float(row["slice_spacing_mm"]))
        except (KeyError, ValueError) as error:
            raise SettingsError(
                f"{dataset}, line {line}: expected case, tumours and slice_spacing_mm, found {row} ({error}); prepare again"
            ) from error
    if not strata:
        raise SettingsError(f"{dataset}: no cases; prepare some first")
    return strata
