"""The lobes that vary most: long and short left livers, small and large caudate lobes, and what gives way to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from flrplan.cohort import Organ
from flrplan.cohort.abdomen import abdominal_organs
from flrplan.cohort.fields import COARSE_MM, Frame, make_frame
from flrplan.cohort.liver import LiverFields, LiverShape, Sector, draw_liver_shape, make_liver, sector_mask
from flrplan.cohort.lobes import PAPILLARY_SHARE, RIEDEL_SHARE, draw_lobes
from flrplan.cohort.organs import Stream, stream
from flrplan.cohort.patient import Patient, draw_patient
from flrplan.cohort.shapes import tube
from flrplan.cohort.trunk import OESOPHAGUS_POINTS, OESOPHAGUS_RADII, Cavity, make_cavity

SEED = 3
VOXEL_ML = COARSE_MM**3 / 1000


@dataclass(frozen=True)
class WholeLiver:
    """A liver on a frame that holds all of it, whatever the scan of this patient holds."""

    patient: Patient
    frame: Frame
    cavity: Cavity
    shape: LiverShape
    fields: LiverFields

    @property
    def reach_mm(self) -> float:
        """How far the liver goes to the left of the midline."""
        columns = np.nonzero((self.fields.liver.values > 0).any((0, 1)))[0]
        return float(self.fields.liver.axes_mm[2][columns[-1]])

    @property
    def ml(self) -> float:
        return float(np.count_nonzero(self.fields.liver.values > 0) * VOXEL_ML)

    @property
    def caudate_share(self) -> float:
        inside = self.fields.liver.values > 0
        return float(np.count_nonzero(inside & (self.fields.caudate.values > 0)) / np.count_nonzero(inside))


def whole_liver(index: int) -> WholeLiver:
    patient = draw_patient(SEED, index)
    low, high = (-170.0, -150.0, -200.0), (170.0, 140.0, 150.0)
    frame = make_frame(np.random.default_rng(index), low, high, patient.scale_xyz, patient.bend_mm)
    cavity = make_cavity(frame, patient)
    shape = draw_liver_shape(stream(SEED, index, Stream.LIVER))
    return WholeLiver(patient, frame, cavity, shape, make_liver(frame, cavity, patient, shape))


@pytest.fixture(scope="module")
def livers() -> list[WholeLiver]:
    return [whole_liver(index) for index in range(10)]


def test_left_livers_are_short_and_long(livers: list[WholeLiver]) -> None:
    reaches = sorted(liver.reach_mm for liver in livers)
    assert reaches[0] < 65
    assert reaches[-1] > 90
    assert 60 < np.median(reaches) < 105


def test_long_left_livers_are_thin(livers: list[WholeLiver]) -> None:
    long = [liver for liver in livers if liver.reach_mm > 80]
    thickness = []
    for liver in long:
        column = int(np.searchsorted(liver.fields.liver.axes_mm[2], liver.reach_mm - 25))
        rows = (liver.fields.liver.values[:, :, column] > 0).sum(1) * COARSE_MM
        thickness.append(float(np.median(rows[rows > 0])))
    assert 12 < np.median(thickness) < 50


def test_drawn_lobes_keep_their_shares() -> None:
    lobes = [draw_lobes(np.random.default_rng(index)) for index in range(1500)]
    reach = np.array([one.lateral.reach for one in lobes])
    assert 40 <= reach.min() < 45
    assert 130 < reach.max() <= 135
    assert np.mean(reach < 66) == pytest.approx(0.25, abs=0.04)
    assert np.mean(reach > 98) == pytest.approx(0.38, abs=0.04)
    assert np.mean([one.papillary > 0 for one in lobes]) == pytest.approx(PAPILLARY_SHARE, abs=0.04)
    assert np.mean([one.tongue_z is not None for one in lobes]) == pytest.approx(RIEDEL_SHARE, abs=0.025)


def test_volumes_are_those_of_livers(livers: list[WholeLiver]) -> None:
    volumes = [liver.ml for liver in livers]
    assert min(volumes) > 900
    assert max(volumes) < 2500
    assert 1350 < np.mean(volumes) < 1800


def test_every_liver_has_a_caudate_lobe_small_or_large(livers: list[WholeLiver]) -> None:
    shares = [liver.caudate_share for liver in livers]
    assert min(shares) > 0.001
    assert min(shares) < 0.025
    assert 0.035 < max(shares) < 0.11


def test_the_caudate_lobe_belongs_to_the_left_medial_part(livers: list[WholeLiver]) -> None:
    for liver in livers:
        f = liver.fields
        lobe = (f.liver.values > 0) & (f.caudate.values > 0)
        parts = [sector_mask(f.right.values, f.posterior.values, f.lateral.values, s) for s in Sector]
        assert np.array_equal(np.sum(parts, axis=0), np.ones(lobe.shape))
        assert parts[list(Sector).index(Sector.LEFT_MEDIAL)][lobe].all()


def test_stomach_and_spleen_give_way_to_the_liver(livers: list[WholeLiver]) -> None:
    for one in max(livers, key=lambda liver: liver.reach_mm), livers[0]:
        rng = stream(SEED, 0, Stream.ABDOMEN)
        seen = set()
        layers = abdominal_organs(one.frame, one.cavity, one.patient, one.shape, one.fields, rng)
        for organ, field in layers:
            if organ in (Organ.STOMACH_WALL, Organ.STOMACH_CONTENT, Organ.SPLEEN):
                starts = [int(np.searchsorted(a, b[0])) for a, b in zip(one.frame.axes_mm, field.axes_mm, strict=True)]
                box = tuple(slice(i, i + n) for i, n in zip(starts, field.values.shape, strict=True))
                there = one.fields.on(one.frame)[box]
                assert not ((field.values > 0) & (there > 0)).any(), organ
                assert np.count_nonzero(field.values > 0) * VOXEL_ML > 20
                seen.add(organ)
        assert seen == {Organ.STOMACH_WALL, Organ.STOMACH_CONTENT, Organ.SPLEEN}


def test_the_oesophagus_passes_behind_the_liver(livers: list[WholeLiver]) -> None:
    for liver in livers:
        f = liver.fields.frame
        assert not ((liver.fields.liver.values > 0) & (tube(f, OESOPHAGUS_POINTS, OESOPHAGUS_RADII) > 0)).any()


def test_the_depth_of_the_liver_is_known_on_any_part_of_the_frame(livers: list[WholeLiver]) -> None:
    one = livers[0]
    whole = one.fields.on(one.frame)
    assert np.count_nonzero(whole > 0) == np.count_nonzero(one.fields.liver.values > 0)
    assert whole[0, 0, 0] < -20
    part = one.frame.crop((0, -60, 0), (60, 20, 60))
    start = [int(np.searchsorted(a, b[0])) for a, b in zip(one.frame.axes_mm, part.axes_mm, strict=True)]
    box = tuple(slice(i, i + n) for i, n in zip(start, part.x.shape, strict=True))
    assert np.array_equal(one.fields.on(part), whole[box])
    far = one.frame.crop((-20, -20, -190), (20, 20, -180), margin=0)
    assert (one.fields.on(far) < -20).all()
