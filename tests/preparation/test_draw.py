"""The committed split, and how splits are drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.preparation.draw import DATASET_IDS, DEFAULT_SEED, draw_split, read_strata, stratum
from flrplan.workfolder import nnunet_split, read_split

COMMITTED = Path(__file__).resolve().parents[2] / "benchmark/splits/ours_157_40.json"


def test_the_committed_split_is_the_drawn_one() -> None:
    split = read_split(COMMITTED)
    assert split == draw_split(DATASET_IDS)
    split.require_cover([f"CRLM-CT-{n}" for n in range(1001, 1198)])
    assert len(split.test) == 40
    assert [len(f) for f in split.folds] == [32, 32, 31, 31, 31]
    assert split.folds == nnunet_split(DATASET_IDS, 5, split.test).folds


def test_the_held_out_cases_have_the_smallest_hashes() -> None:
    split = read_split(COMMITTED)

    def rank(case: str) -> str:
        return hashlib.sha256(f"{DEFAULT_SEED}:{case}".encode()).hexdigest()

    assert max(map(rank, split.test)) < min(rank(i) for fold in split.folds for i in fold)


def test_the_order_of_the_ids_does_not_matter_and_the_seed_does() -> None:
    assert draw_split(DATASET_IDS[::-1]) == draw_split(DATASET_IDS)
    assert draw_split(DATASET_IDS, seed=1) != draw_split(DATASET_IDS)


def test_strata_give_their_share() -> None:
    strata = {f"a{i}": "A" for i in range(10)} | {f"b{i}": "B" for i in range(5)} | {f"c{i}": "C" for i in range(6)}
    split = draw_split(list(strata), 6, strata=strata)  # exact shares 60/21, 30/21, 36/21: 2+1+1, then C (15) and A (18)
    assert [sum(i.startswith(s) for i in split.test) for s in "abc"] == [3, 1, 2]


def test_stratum_limits() -> None:
    assert stratum(1, 2.5) == "1 tumours, <=2.5 mm"
    assert stratum(5, 5.0) == "2-5 tumours, 2.5-5 mm"
    assert stratum(6, 5.01) == ">5 tumours, >5 mm"


def test_too_few_cases_and_lacking_strata_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="need at least 9 cases, got 8"):
        draw_split([f"a{i}" for i in range(8)], 4)
    with pytest.raises(SettingsError, match=r"no stratum for \['a1'"):
        draw_split([f"a{i}" for i in range(8)], 2, strata={"a0": "x"})
    table = tmp_path / "dataset.csv"
    table.write_text("case,tumours,slice_spacing_mm\na,2,1.5\nb,x,1\n")
    with pytest.raises(SettingsError, match=r"dataset\.csv, line 3"):
        read_strata(table)
    table.write_text("case,tumours,slice_spacing_mm\na,2,1.5\n")
    assert read_strata(table) == {"a": "2-5 tumours, <=2.5 mm"}
