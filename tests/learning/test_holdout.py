"""The hold-out: decided by the id alone, at least one, and for ever."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flrplan.errors import LabelError, SettingsError
from flrplan.learning.holdout import HoldOut, Parts, divide, position

MANY = [f"case_{n:03d}" for n in range(1000)]


def test_the_position_is_the_first_eight_bytes_of_sha256() -> None:
    assert position("a") == int(hashlib.sha256(b"a").hexdigest()[:16], 16) / 2**64
    assert position("a") == pytest.approx(0xCA978112 / 2**32, abs=1e-9)  # SHA-256 of "a" begins with ca978112


def test_about_the_share_is_kept() -> None:
    parts = divide(MANY, 0.2)
    assert 160 <= len(parts.holdout) <= 240  # binomial, 200 expected, standard deviation 12.6
    assert sorted(parts.holdout + parts.training) == MANY


def test_more_labels_never_bring_a_kept_case_into_training() -> None:
    before = divide(MANY[:300], 0.2)
    after = divide(MANY, 0.2)
    assert set(before.holdout) <= set(after.holdout)
    assert set(before.training) <= set(after.training)


def high(count: int) -> list[str]:
    """Ids that a share of 0.2 would not keep."""
    return [i for i in MANY if position(i) >= 0.2][:count]


def test_at_least_one_is_kept_and_it_stays_when_a_lower_one_comes(tmp_path: Path) -> None:
    ids = high(6)
    lowest, others = min(ids, key=position), [i for i in ids if i != min(ids, key=position)]
    memory = HoldOut(tmp_path / "kept.json")
    first = memory.divide(others, 0.2)
    assert first.holdout == (min(others, key=position),)
    second = HoldOut(tmp_path / "kept.json").divide(ids, 0.2)
    assert second.holdout == first.holdout
    assert lowest in second.training


def test_a_case_that_the_current_model_learned_from_is_kept_last() -> None:
    ids = sorted(high(5), key=position)
    assert divide(ids, 0.2, trained=ids[:2]).holdout == (ids[2],)
    assert divide(ids, 0.2, trained=ids).holdout == (ids[0],)


def test_one_that_shows_the_target_is_kept_too_and_stays(tmp_path: Path) -> None:
    low, ids = min(MANY, key=position), sorted(high(6), key=position)
    memory = HoldOut(tmp_path / "kept.json")
    first = memory.divide([low, *ids], 0.2, trained=ids[:2], showing=ids[1:4])
    assert first.holdout == tuple(sorted([low, ids[2]]))  # ids[1] has a lower position, but trained the current model
    later = HoldOut(tmp_path / "kept.json").divide([low, *ids], 0.2, showing=ids)
    assert later.holdout == first.holdout
    assert HoldOut(tmp_path / "kept.json").divide([low, *ids], 0.2, showing=[low, *ids]).holdout == first.holdout


def test_where_none_is_kept_the_first_that_shows_the_target_is() -> None:
    ids = sorted(high(5), key=position)
    assert divide(ids, 0.2, showing=ids[2:]).holdout == (ids[2],)


def test_the_last_that_shows_the_target_trains_and_two_always_train() -> None:
    low, ids = sorted(MANY, key=position)[:2], sorted(high(5), key=position)
    assert divide([low[0], *ids], 0.2, showing=ids[:1]).holdout == (low[0],)
    assert divide(ids, 0.2, showing=ids[3:4]).holdout == (ids[0],)
    assert divide([*low, *ids[:2]], 0.2, showing=ids[:2]).holdout == tuple(sorted(low))


def test_too_few_would_train() -> None:
    low = [i for i in MANY if position(i) < 0.2][:3]
    with pytest.raises(
        LabelError, match=r"3 of 4 cases are held out of training .* so 1 would train and at least 2 are needed"
    ):
        divide([*low, high(1)[0]], 0.2)


def test_a_damaged_memory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text('{"kep')
    with pytest.raises(SettingsError, match=r"kept\.json: expected"):
        HoldOut(path).divide(MANY[:9], 0.2)


def test_ids_in_any_order_and_twice() -> None:
    ids = high(4)
    assert divide([*reversed(ids), ids[0]], 0.2) == divide(ids, 0.2)
    assert isinstance(divide(ids, 0.2), Parts)
