"""What is seen of a plan's certainty: by hand, on a liver of two halves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flrplan.anatomy import Structure
from flrplan.image import CT, Geometry
from flrplan.method import CascadeResult, Source
from flrplan.planning.evidence import Evidence, disagreement_of, evidence_of

GEOMETRY = Geometry((40, 32, 24), (3.0, 3.0, 5.0))
LIVER = np.zeros(GEOMETRY.shape_zyx, bool)
LIVER[4:20, 6:26, 5:35] = True  # 16 x 20 x 30 voxels of 0.045 ml
CRLM = np.zeros_like(LIVER)
CRLM[8:10, 10:12, 8:10] = True  # 8 voxels
X = np.arange(40)[None, None, :]


def left_of(x: int, p: int = 255) -> np.ndarray:
    """Sure remnant from column x on, sure resection before it; in the liver and beyond."""
    return np.broadcast_to(np.where(x <= X, p, 0), LIVER.shape).astype(np.uint8)


def result_of(sources: dict[Structure, Source]) -> CascadeResult:
    hu = np.full(LIVER.shape, -100, np.int16)
    hu[LIVER] = 110
    hu[CRLM] = 60
    masks = {Structure.LIVER: LIVER, Structure.CRLM: CRLM, Structure.FLR: LIVER & (left_of(20) > 0)}
    return CascadeResult(CT(hu, GEOMETRY, "case", "test"), masks, sources, {}, {}, ())


GIVEN = {Structure.LIVER: Source.GIVEN, Structure.CRLM: Source.GIVEN, Structure.FLR: Source.PREDICTED}


def test_the_numbers_of_a_plan() -> None:
    raw = result_of(GIVEN)
    evidence = evidence_of(raw, raw.masks[Structure.FLR], left_of(20), [left_of(17), left_of(23)])
    assert evidence is not None
    assert evidence.inputs == "given"
    parenchyma = 16 * 20 * 30 - 8
    assert evidence.flr_fraction == pytest.approx(16 * 20 * 15 / parenchyma)
    assert evidence.raw_flr_fraction == evidence.flr_fraction
    # Folds by themselves: 18 and 12 of 30 columns, made coherent (grid of 2.5 mm): within a column of it.
    assert evidence.fold_fractions == pytest.approx((16 * 20 * 18 / parenchyma, 16 * 20 * 12 / parenchyma), abs=0.034)
    assert evidence.undecided == 0
    assert evidence.parenchyma_ml == pytest.approx(parenchyma * 0.045)
    assert evidence.crlm_ml == pytest.approx(8 * 0.045)
    assert (evidence.slice_mm, evidence.liver_hu) == (5.0, 110.0)
    assert Evidence.from_json(evidence.to_json()).flr_fraction == pytest.approx(evidence.flr_fraction, abs=1e-4)


def test_a_probability_of_one_half_is_undecided() -> None:
    raw = result_of(GIVEN)
    evidence = evidence_of(raw, raw.masks[Structure.FLR], np.full(LIVER.shape, 128, np.uint8), [])
    assert evidence is not None
    assert evidence.undecided == pytest.approx(1, abs=1e-4)
    assert evidence.soft_fraction == pytest.approx(128 / 255)
    assert evidence.fold_fractions == ()


def test_kinds_of_inputs_are_told_apart_and_what_is_said_against_the_liver_is_kept() -> None:
    mixed = result_of({**GIVEN, Structure.CRLM: Source.PREDICTED})
    evidence = evidence_of(mixed, mixed.masks[Structure.FLR], left_of(20), [])
    assert evidence is not None
    assert evidence.inputs == "liver given"
    cut = LIVER.copy()
    cut[:4, 6:26, 5:35] = True
    moved = replace(mixed, masks={**mixed.masks, Structure.LIVER: cut}, sources=dict.fromkeys(Structure, Source.PREDICTED))
    evidence = evidence_of(moved, moved.masks[Structure.FLR], left_of(20), [])
    assert evidence is not None
    assert evidence.inputs == "predicted"
    assert any("cut by the field of view" in sentence for sentence in evidence.unlike)


def test_the_aorta_beside_the_liver_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = result_of(GIVEN)

    def seen(hu: np.ndarray, liver: np.ndarray, spacing_zyx_mm: tuple[float, float, float]) -> float:
        assert hu[liver].max() == 110
        assert spacing_zyx_mm == (5.0, 3.0, 3.0)
        return 150.0

    monkeypatch.setattr("flrplan.qc.case.aorta_hu", seen)
    evidence = evidence_of(raw, raw.masks[Structure.FLR], left_of(20), [])
    assert evidence is not None
    assert Evidence.from_json(evidence.to_json()).aorta_hu == evidence.aorta_hu == 150


def test_without_parenchyma_there_is_no_evidence() -> None:
    raw = result_of(GIVEN)
    for masks in ({Structure.LIVER: np.zeros_like(LIVER)}, {Structure.CRLM: LIVER}):
        empty = replace(raw, masks={**raw.masks, **masks})
        assert evidence_of(empty, raw.masks[Structure.FLR], left_of(20), []) is None


def test_the_disagreement_is_the_spread_of_the_folds_within_the_liver() -> None:
    found = disagreement_of(LIVER, [left_of(17), left_of(23), left_of(23)])
    assert found.dtype == np.uint8
    between = LIVER & (left_of(17) > 0) & (left_of(23) == 0)
    assert set(np.unique(found[between])) == {47}  # of 0, 0 and 1: sqrt(2/9) = 0.471
    assert not found[~between].any()
    assert not disagreement_of(LIVER, [left_of(17)]).any()
