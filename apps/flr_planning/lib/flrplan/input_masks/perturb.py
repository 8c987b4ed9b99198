"""True masks with the errors that predictions have: a training on them meets at once what the cascade will feed it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask
from flrplan.image.smooth_noise import smooth_noise
from flrplan.input_masks.mask_errors import LesionErrors, LiverErrors
from flrplan.input_masks.measure import signed_depth_mm
from flrplan.metrics.lesions import SizeClass, components
from flrplan.metrics.region import Region, Spacing

BUMP_MM = 25.0
"""Length over which the displacement of a liver's surface changes."""
MOST_MISSING = 0.5
"""No more than this share of a liver goes missing; more would be another failure, the liver that was not found."""

Box = tuple[slice, slice, slice]


def perturb_liver(liver: Mask, spacing_zyx_mm: Spacing, errors: LiverErrors, rng: np.random.Generator) -> Mask:
    """A liver ``(Z, Y, X) bool`` with a shifted and bumpy surface, at times without a part or with something beside it.

    A liver of which nothing would be left, and an empty one, come back as they are.
    """
    if not liver.any():
        return liver
    shift = rng.normal(errors.shift_mean_mm, errors.shift_std_mm)
    box = _box(liver, spacing_zyx_mm, 4 * errors.local_std_mm + abs(shift) + BUMP_MM)
    inside = liver[box]
    axes = [np.arange(n) * s for n, s in zip(inside.shape, spacing_zyx_mm, strict=True)]
    bumps = errors.local_std_mm * smooth_noise(rng, (axes[0], axes[1], axes[2]), BUMP_MM)
    result = _shifted(inside, spacing_zyx_mm, shift + bumps)
    if rng.random() < errors.missing_rate:
        result &= ~_end_of(inside, spacing_zyx_mm, _share(errors.missing_fraction, rng), rng)
    if rng.random() < errors.added_rate:
        result |= _ball_on(inside, spacing_zyx_mm, _share(errors.added_fraction, rng), rng)
    if not result.any():
        return liver
    whole = np.zeros_like(liver)
    whole[box] = result
    return whole


def perturb_lesions(
    lesions: Mask, within: Mask, spacing_zyx_mm: Spacing, errors: LesionErrors, rng: np.random.Generator
) -> Mask:
    """Metastases ``(Z, Y, X) bool`` of which some are missed, others too small or too large, and some are invented.

    within: the liver that the result lies in. The result may be empty, and an empty mask may get lesions.
    """
    result = np.zeros_like(lesions)
    region = Region.of(lesions, spacing_zyx_mm)
    labels, sizes = components(region)
    for number, box in enumerate(ndimage.find_objects(labels) if sizes.size else [], 1):
        diameter = float(np.cbrt(6 * sizes[number - 1] * np.prod(spacing_zyx_mm) / np.pi))
        dropped = rng.random() < errors.missed[SizeClass.of(diameter)]
        shift = rng.normal(errors.shift_mean_mm, errors.shift_std_mm)
        if dropped:
            continue
        start = region.start_zyx
        one = np.zeros_like(lesions)
        one[tuple(slice(s.start + o, s.stop + o) for s, o in zip(box, start, strict=True))] = labels[box] == number
        around = _box(one, spacing_zyx_mm, abs(shift) + 2 * max(spacing_zyx_mm))
        result[around] |= _shifted(one[around], spacing_zyx_mm, shift)
    places = np.flatnonzero(within)
    for _ in range(rng.poisson(errors.invented_per_case) if places.size else 0):
        centre = np.unravel_index(rng.choice(places), within.shape)
        diameter = errors.invented_diameter_mm * float(np.exp(errors.invented_log_std * rng.standard_normal()))
        _add_ellipsoid(result, centre, diameter / 2 * rng.uniform(0.75, 1.25, 3), spacing_zyx_mm)
    return np.asarray(result & within)


def _shifted(mask: Mask, spacing_zyx_mm: Spacing, outwards_mm: float | NDArray[np.float32]) -> Mask:
    """The mask with its surface displaced."""
    return np.asarray(signed_depth_mm(mask, spacing_zyx_mm) + outwards_mm > 0)


def _end_of(mask: Mask, spacing_zyx_mm: Spacing, share: float, rng: np.random.Generator) -> Mask:
    """The voxels beyond a plane of random direction, that share of the mask: a lobe, the dome, the tip."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    position: NDArray[np.float64] = np.zeros(mask.shape)
    for axis, (n, s, d) in enumerate(zip(mask.shape, spacing_zyx_mm, direction, strict=True)):
        position += (np.arange(n) * s * d).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.asarray(position > np.quantile(position[mask], 1 - share))


def _ball_on(mask: Mask, spacing_zyx_mm: Spacing, share: float, rng: np.random.Generator) -> Mask:
    """A ball on a random point of the surface, so large that about that share of the mask's volume lies outside."""
    surface = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    volume = np.count_nonzero(mask) * np.prod(spacing_zyx_mm)
    radius = float(np.cbrt(2 * share * volume * 3 / (4 * np.pi)))
    ball = np.zeros_like(mask)
    _add_ellipsoid(ball, surface[rng.integers(len(surface))], np.full(3, radius), spacing_zyx_mm)
    return ball


def _add_ellipsoid(
    mask: Mask, centre_zyx: NDArray[np.intp] | tuple[np.intp, ...], radii_mm: NDArray[np.float64], spacing_zyx_mm: Spacing
) -> None:
    box, squares = [], []
    for c, r, s, n in zip(centre_zyx, radii_mm, spacing_zyx_mm, mask.shape, strict=True):
        low, high = max(0, int(c - r / s)), min(n, int(c + r / s) + 2)
        box.append(slice(low, high))
        squares.append(((np.arange(low, high) - int(c)) * s / r) ** 2)
    z, y, x = squares
    mask[tuple(box)] |= z[:, None, None] + y[:, None] + x <= 1


def _share(mean: float, rng: np.random.Generator) -> float:
    return float(min(rng.exponential(mean), MOST_MISSING))


def _box(mask: Mask, spacing_zyx_mm: Spacing, margin_mm: float) -> Box:
    region = Region.of(mask, spacing_zyx_mm)
    margins = [int(np.ceil(margin_mm / s)) for s in spacing_zyx_mm]
    cuts = [
        slice(max(0, first - margin), first + length + margin)
        for first, length, margin in zip(region.start_zyx, region.crop_zyx.shape, margins, strict=True)
    ]
    return (cuts[0], cuts[1], cuts[2])
