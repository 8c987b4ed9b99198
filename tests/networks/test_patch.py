"""Patches: rounded to the network's steps, about its authors' volume; expected values by hand."""

from __future__ import annotations

from math import prod

import pytest

from flrplan.networks.patch import fit_patch, fit_strides

ONE, TWO = [1, 1, 1], [2, 2, 2]


@pytest.mark.parametrize(
    ("patch", "voxels", "expected"),
    [
        ((128, 128, 128), 96**3, (96, 96, 96)),
        ((96, 96, 96), 96**3, (96, 96, 96)),
        ((80, 112, 47), None, (96, 128, 32)),  # 2.5 and 3.5 steps round up, 1.47 down
        ((16, 24, 24), None, (32, 64, 32)),  # one step everywhere would leave one voxel: the longest side gets a second
        ((16, 320, 320), 96**3, (32, 160, 160)),  # z cannot shrink; 32*192*160 = 983040 > 884736 >= 32*160*160
        ((1, 1, 1), 1, (64, 32, 32)),
    ],
)
def test_steps_of_32(patch: tuple[int, int, int], voxels: int | None, expected: tuple[int, int, int]) -> None:
    assert fit_patch(patch, (32, 32, 32), voxels) == expected


def test_other_steps_per_axis() -> None:
    assert fit_patch((20, 200, 200), (4, 32, 32)) == (20, 192, 192)


@pytest.mark.parametrize(
    ("strides", "patch", "expected"),
    [
        ([ONE] + [TWO] * 5, (128, 128, 128), [ONE] + [TWO] * 5),
        ([ONE] + [TWO] * 6, (256, 256, 256), [ONE] + [TWO] * 5),
        ([ONE] + [TWO] * 4, (96, 96, 96), [ONE] + [TWO] * 5),  # 96 -> 6 -> 3
        ([ONE, [1, 2, 2], [1, 2, 2], TWO, TWO], (20, 192, 192), [ONE, [1, 2, 2], [1, 2, 2], TWO, TWO, TWO]),  # 5 and 12 remain
        ([ONE, TWO, TWO], (16, 24, 24), [ONE, TWO, TWO, TWO, ONE, ONE]),  # 4 and 6, then 2 and 3
    ],
)
def test_six_resolutions(strides: list[list[int]], patch: tuple[int, int, int], expected: list[list[int]]) -> None:
    fitted = fit_strides(strides, patch, 6)
    assert fitted == expected
    steps = [prod(s[axis] for s in fitted) for axis in range(3)]
    assert all(n % step == 0 for n, step in zip(fit_patch(patch, steps), steps, strict=True))
