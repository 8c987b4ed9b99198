"""Makes a planned patch valid for a network: whole steps of its downsampling, about its authors' volume. Never fails."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Triple = tuple[int, int, int]
_EDGE = 4
"""A side is pooled further only while it has this many voxels, so that 2 remain."""


def fit_strides(strides: Sequence[Sequence[int]], patch_zyx: Sequence[int], resolutions: int) -> list[list[int]]:
    """nnU-Net's strides (the first is that of the input) cut or continued to a fixed number of resolutions.

    Continued strides halve every side that still has 4 voxels or more; a side that has fewer stays.
    """
    fitted = [list(s) for s in strides[:resolutions]]
    edges = [n / prod(s[axis] for s in fitted) for axis, n in enumerate(patch_zyx)]
    while len(fitted) < resolutions:
        step = [2 if edge >= _EDGE else 1 for edge in edges]
        edges = [edge / s for edge, s in zip(edges, step, strict=True)]
        fitted.append(step)
    return fitted


def fit_patch(patch_zyx: Sequence[int], divisors_zyx: Sequence[int], voxels: int | None = None) -> Triple:
    """The patch with every side rounded to the nearest multiple of its divisor (at least one step).

    voxels: while the patch is larger, the side that is largest compared with the planned one loses a step.
    At least two voxels remain at the coarsest resolution: instance normalization needs them.
    """
    sides = [max(1, int(n / d + 0.5)) * d for n, d in zip(patch_zyx, divisors_zyx, strict=True)]

    def excess(axis: int) -> tuple[float, int]:
        return sides[axis] / patch_zyx[axis], sides[axis]

    while voxels is not None and prod(sides) > voxels:
        shrinkable = [axis for axis in range(3) if sides[axis] > divisors_zyx[axis]]
        if not shrinkable:
            break
        largest = max(shrinkable, key=excess)
        sides[largest] -= divisors_zyx[largest]
    if all(n == d for n, d in zip(sides, divisors_zyx, strict=True)):
        longest = max(range(3), key=lambda axis: patch_zyx[axis])
        sides[longest] += divisors_zyx[longest]
    return (sides[0], sides[1], sides[2])
