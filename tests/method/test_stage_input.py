"""The one function that builds a stage's input, and its inverse."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from flrplan.anatomy import Structure
from flrplan.errors import EmptyLiverError, GridError, SettingsError
from flrplan.image import Canonical, Geometry
from flrplan.method import CRLM, FLR, FLR_E2E, LIVER, STAGES, InputSettings, RegionMode, build_stage_input, stage_named
from flrplan.method.stage_input import AIR_HU

SHAPE = (12, 14, 16)
GRID = Geometry((16, 14, 12), (1.0, 2.0, 7.5), (5.0, -3.0, 40.0))


@pytest.fixture
def ct() -> np.ndarray:
    return np.random.default_rng(0).integers(-100, 200, SHAPE).astype(np.int16)


@pytest.fixture
def masks() -> dict[Structure, np.ndarray]:
    liver = np.zeros(SHAPE, bool)
    liver[4:8, 5:9, 6:10] = True
    liver[4, 5, 6] = False
    crlm = np.zeros(SHAPE, bool)
    crlm[5, 6, 7] = True
    return {Structure.LIVER: liver, Structure.CRLM: crlm}


def test_whole_ct_for_stages_without_a_region(ct: np.ndarray) -> None:
    ct[0, 0, 0] = -3024
    for stage in (LIVER, FLR_E2E):
        given = build_stage_input(ct, GRID, {}, stage)
        assert given.channels_czyx.shape == (1, *SHAPE)
        assert given.channels_czyx.dtype == np.float32
        assert given.channels_czyx[0, 0, 0, 0] == AIR_HU, "padding is air"
        assert np.array_equal(given.channels_czyx[0, 1:], ct[1:])
        assert given.geometry == GRID


def test_region_masks_and_crops(ct: np.ndarray, masks: dict[Structure, np.ndarray]) -> None:
    given = build_stage_input(ct, GRID, masks, CRLM)
    # margins of 10 mm: 2 voxels of 7.5, 5 of 2, 10 of 1 mm, clipped to the image
    assert given.box_zyx == (slice(2, 10), slice(0, 14), slice(0, 16))
    assert given.channels_czyx.shape == (1, 8, 14, 16)
    inside = given.crop(masks[Structure.LIVER])
    assert np.array_equal(given.channels_czyx[0][inside], given.crop(ct)[inside])
    assert set(given.channels_czyx[0][~inside]) == {AIR_HU}
    assert given.geometry.origin_mm == (5.0, -3.0, 55.0)


def test_crlm_becomes_a_channel(ct: np.ndarray, masks: dict[Structure, np.ndarray]) -> None:
    given = build_stage_input(ct, GRID, masks, FLR)
    assert given.channels_czyx.shape[0] == 2
    assert np.array_equal(given.channels_czyx[1], given.crop(masks[Structure.CRLM]))
    empty = build_stage_input(ct, GRID, {**masks, Structure.CRLM: np.zeros(SHAPE, bool)}, FLR)
    assert not empty.channels_czyx[1].any(), "an empty CRLM is an answer"


def test_modes_and_margins(ct: np.ndarray, masks: dict[Structure, np.ndarray]) -> None:
    mask = build_stage_input(ct, GRID, masks, CRLM, InputSettings(RegionMode.MASK))
    assert mask.channels_czyx.shape[1:] == SHAPE
    assert np.count_nonzero(mask.channels_czyx[0] != AIR_HU) == masks[Structure.LIVER].sum()
    crop = build_stage_input(ct, GRID, masks, CRLM, InputSettings(RegionMode.CROP, crop_margin_mm=0))
    assert crop.channels_czyx.shape[1:] == (4, 4, 4)
    assert np.array_equal(crop.channels_czyx[0], ct[4:8, 5:9, 6:10])
    wide = build_stage_input(ct, GRID, masks, CRLM, InputSettings(RegionMode.MASK, mask_margin_mm=1.0, outside_hu=0))
    grown = wide.channels_czyx[0] != 0
    assert grown[5, 5, 5] or ct[5, 5, 5] == 0, "1 mm along x is one voxel"
    assert not grown[3].any(), "7.5 mm along z is more than 1 mm"


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_round_trip_in_every_axis_order(order: tuple[int, ...], ct: np.ndarray, masks: dict[Structure, np.ndarray]) -> None:
    """The network sees the same array whatever the file's axes, and the result lands on the file's grid."""
    reference = build_stage_input(ct, GRID, masks, FLR)
    matrix = np.eye(3)[:, list(order)] * np.array([1.0, -1.0, -1.0])  # columns: index axes; two of them flipped
    size = tuple(GRID.size_xyz[o] for o in order)
    spacing = tuple(GRID.spacing_mm[o] for o in order)
    first = [0 if sign > 0 else n - 1 for sign, n in zip((1, -1, -1), size, strict=True)]
    shift = np.zeros(3)
    for axis, world in enumerate(order):
        shift[world] = first[axis] * spacing[axis]
    origin = np.asarray(GRID.origin_mm) + shift
    stored = Geometry(size, spacing, tuple(origin.tolist()), tuple(matrix.ravel().tolist()))  # type: ignore[arg-type]
    canonical = Canonical.of(stored)
    assert canonical.target.is_same_grid(GRID)
    other = build_stage_input(canonical.backward(ct), stored, {s: canonical.backward(m) for s, m in masks.items()}, FLR)
    assert np.array_equal(other.channels_czyx, reference.channels_czyx)
    result = np.random.default_rng(1).random(reference.geometry.shape_zyx) < 0.5
    assert np.array_equal(canonical.forward(other.restore(result)), reference.restore(result))
    assert other.restore(result).shape == stored.shape_zyx


def test_restore_fills_outside_the_crop(ct: np.ndarray, masks: dict[Structure, np.ndarray]) -> None:
    given = build_stage_input(ct, GRID, masks, CRLM, InputSettings(crop_margin_mm=0))
    whole = given.restore(np.ones(given.geometry.shape_zyx, np.uint8))
    assert whole.sum() == 4 * 4 * 4
    assert whole[4:8, 5:9, 6:10].all()
    with pytest.raises(GridError, match=r"stage crlm: expected a result of shape \(4, 4, 4\)"):
        given.restore(np.ones(SHAPE, np.uint8))


def test_errors(ct: np.ndarray, masks: dict[Structure, np.ndarray]) -> None:
    with pytest.raises(EmptyLiverError, match="stage crlm: the liver mask is empty"):
        build_stage_input(ct, GRID, {Structure.LIVER: np.zeros(SHAPE, bool)}, CRLM)
    with pytest.raises(SettingsError, match="stage flr needs the mask of crlm"):
        build_stage_input(ct, GRID, {Structure.LIVER: masks[Structure.LIVER]}, FLR)
    with pytest.raises(GridError, match="liver has shape"):
        build_stage_input(ct, GRID, {Structure.LIVER: np.ones((2, 2, 2), bool)}, CRLM)
    with pytest.raises(GridError, match="CT has shape"):
        build_stage_input(ct[1:], GRID, {}, LIVER)
    with pytest.raises(SettingsError, match="crop_margin_mm"):
        InputSettings(crop_margin_mm=-1)
    with pytest.raises(SettingsError, match="outside_hu"):
        InputSettings(outside_hu=-5000)


def test_settings_travel_as_json() -> None:
    settings = InputSettings(RegionMode.CROP, 3.0, 2.0, -500.0)
    assert InputSettings.from_json(settings.to_json()) == settings


def test_the_table_of_stages() -> None:
    assert list(STAGES) == ["liver", "crlm", "flr", "flr_e2e", "multi"]
    assert stage_named("flr").target is Structure.FLR
    with pytest.raises(SettingsError, match="unknown stage 'tumour'; known are liver, crlm, flr, flr_e2e, multi"):
        stage_named("tumour")
