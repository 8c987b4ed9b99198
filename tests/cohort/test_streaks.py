"""Streaks: projections keep mass, back projection gives the picture back, and errors look as on a scanner."""

from __future__ import annotations

import numpy as np

from flrplan.cohort.fields import FineGrid
from flrplan.cohort.streaks import SliceStreaks, StreakSettings, back_projected, projector, streaks_hu

PIXELS, ANGLES, PIXEL_MM = 64, 60, 6.0
Y, X = (np.mgrid[:PIXELS, :PIXELS] - (PIXELS - 1) / 2) * PIXEL_MM


def body(half_width_mm: float = 170.0) -> np.ndarray:
    inside = (X / half_width_mm) ** 2 + (Y / 110) ** 2 < 1
    return np.where(inside, 40.0, -1000.0).astype(np.float32)[None]


def streaks(hu: np.ndarray, hardening_hu: float, starvation_hu: float) -> np.ndarray:
    settings = StreakSettings(hardening_hu, starvation_hu, PIXELS, ANGLES)
    return streaks_hu(np.random.default_rng(0), hu, PIXEL_MM, settings)[0]


def test_every_projection_keeps_the_mass() -> None:
    forward, _ = projector(PIXELS, ANGLES)
    image = np.random.default_rng(0).random(PIXELS**2).astype(np.float32)
    sums = (forward @ image).reshape(ANGLES, -1).sum(1)
    assert np.allclose(sums, image.sum(), rtol=1e-4)


def test_back_projection_gives_a_disc_back() -> None:
    forward, backward = projector(PIXELS, ANGLES)
    disc = ((X**2 + Y**2) < 100**2).astype(np.float32)
    picture = back_projected(forward @ disc.reshape(-1, 1), backward, ANGLES).reshape(PIXELS, PIXELS)
    assert abs(float(picture[(X**2 + Y**2) < 80**2].mean()) - 1) < 0.05
    assert abs(float(picture[(X**2 + Y**2) > 130**2].mean())) < 0.05


def test_a_thin_body_without_bone_has_no_streaks() -> None:
    assert np.abs(streaks(body(150.0), 200.0, 20.0)).max() < 1e-3


def test_it_is_dark_between_two_dense_things_and_not_elsewhere() -> None:
    hu = body()
    hu[0][(np.abs(np.abs(X) - 100) < 15) & (np.abs(Y) < 15)] = 1200.0
    result = streaks(hu, 200.0, 0.0)
    between = result[(np.abs(X) < 40) & (np.abs(Y) < 6)].mean()
    above = result[(np.abs(X) < 40) & (np.abs(Y + 70) < 10)].mean()
    assert between < -5
    assert between < above - 5


def test_a_wide_body_is_noisier_along_its_width() -> None:
    result = streaks(body(196.0) + 200.0, 0.0, 20.0)  # denser than water throughout, as through the pelvis
    middle = result[(np.abs(X) < 120) & (np.abs(Y) < 60)].reshape(-1, 40)
    along, across = np.diff(middle, axis=1).std(), np.diff(middle, axis=0).std()
    assert middle.std() > 3
    assert across > 1.5 * along


def test_streaks_come_on_the_grid_of_the_scan() -> None:
    axis = (np.arange(96) - 47.5) * 4.0
    grid = FineGrid((np.arange(3.0) * 5, axis, axis))
    hu = np.full((3, 96, 96), -1000.0, np.float32)
    hu[:, 20:76, 10:86] = 40.0
    hu[1, 46:50, 46:50] = 9000.0
    result = SliceStreaks(grid, 200.0, 10.0)(hu, np.random.default_rng(0))
    assert result.shape == hu.shape
    assert np.abs(result[1]).max() > 50
    assert np.abs(result[[0, 2]]).max() < 5
