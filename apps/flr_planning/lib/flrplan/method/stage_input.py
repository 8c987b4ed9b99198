"""The paper's method in one place: from (CT, masks, stage) to the network's input, and from its output back to the CT's grid.

Training, server, command line and benchmark all call :func:`build_stage_input`; nothing else crops or masks a CT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flrplan.anatomy import Mask, Structure
from flrplan.errors import EmptyLiverError, GridError, SettingsError
from flrplan.files.checked import Flag, Number, checked, settings_of
from flrplan.image import Canonical, Geometry
from flrplan.method.stages import Stage

Scalar = TypeVar("Scalar", bound=np.generic)

AIR_HU = -1024.0
"""Lowest value of a CT here; scanners write padding as low as -3024, which carries no information."""
MAX_HU = 32767.0
"""Largest value: that of int16."""


class RegionMode(StrEnum):
    """How a stage's region (the liver) restricts the CT."""

    MASK = "mask"
    CROP = "crop"
    MASK_AND_CROP = "mask_and_crop"
    WHOLE = "whole"

    @property
    def masks(self) -> bool:
        """Whether the CT outside the region is hidden."""
        return self in (RegionMode.MASK, RegionMode.MASK_AND_CROP)

    @property
    def crops(self) -> bool:
        """Whether the CT is cut to a box around the region."""
        return self in (RegionMode.CROP, RegionMode.MASK_AND_CROP)


class InputMasks(StrEnum):
    """Which masks a stage is trained with (:mod:`flrplan.input_masks`); in use it always gets what the cascade gives it."""

    GROUND_TRUTH = "ground_truth"
    PERTURBED = "perturbed"
    PREDICTED_OOF = "predicted_oof"


@checked
class InputSettings:
    """What the paper leaves open in "the liver mask is used to mask the CT input (i.e., cropping to the liver ROI)".

    region_mode: ``mask_and_crop`` by default, since that sentence says both; ``whole`` is the whole CT, as most foreign models want it.
    crop_margin_mm: 10, so that convolutions see the capsule from both sides and resampling has room.
    mask_margin_mm: 0, the letter of the paper; a few mm let tumours at the capsule survive a predicted liver that is too small.
    outside_hu: -1024 (air). nnU-Net clips it to the 0.5 percentile of the target's intensities, which bounds its weight; the price
        is that the darkest voxels of liver and lesions then look like the outside (about 1 %). It is not 0, which nnU-Net would crop away and normalise apart.
    region_channel: the region's mask as one more channel, the last, so that the border is known where intensities do not show it.
        False, since the paper names none.
    input_masks: which masks a stage is trained with; ground_truth as the paper, perturbed (with the errors that predictions have) or
        predicted_oof (out-of-fold predictions of the stage before). The other settings hold in training and use, this one in training.

    A model is only valid with the settings it was trained with; they travel in its ``dataset.json``.
    """

    region_mode: RegionMode = RegionMode.MASK_AND_CROP
    crop_margin_mm: Annotated[Number, Field(ge=0, le=200)] = 10.0
    mask_margin_mm: Annotated[Number, Field(ge=0, le=200)] = 0.0
    outside_hu: Annotated[Number, Field(ge=AIR_HU, le=3071)] = AIR_HU
    region_channel: Flag = False
    input_masks: InputMasks = InputMasks.GROUND_TRUTH

    def mask_channels(self, stage: Stage) -> tuple[Structure, ...]:
        """The structures whose masks follow the CT as channels of a stage's input."""
        return (*stage.mask_channels, *((stage.region,) if stage.region and self.region_channel else ()))

    def channel_names(self, stage: Stage) -> tuple[str, ...]:
        """Channels of a stage's input: the CT first, then the masks."""
        return ("CT", *(s.value for s in self.mask_channels(stage)))

    def outside_of(self, stage: Stage) -> float | None:
        """HU of the CT channel outside the stage's region; None where a stage shows the CT everywhere."""
        return self.outside_hu if stage.region is not None and self.region_mode.masks else None

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``dataset.json``."""
        return {**asdict(self), "region_mode": self.region_mode.value, "input_masks": self.input_masks.value}

    def describe(self, stage: Stage) -> str:
        """What a stage's network sees of the CT, in words."""
        if stage.region is None or self.region_mode is RegionMode.WHOLE:
            return "the whole CT"
        margins = f"{self.mask_margin_mm:g} mm around it kept, " if self.region_mode.masks and self.mask_margin_mm else ""
        masked = f"outside the {stage.region} set to {self.outside_hu:g} HU" if self.region_mode.masks else ""
        cropped = f"cut to the {stage.region} and {self.crop_margin_mm:g} mm around it" if self.region_mode.crops else ""
        return f"the CT {margins}{' and '.join(filter(None, (cropped, masked)))}"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> InputSettings:
        """The inverse of :meth:`to_json`. Raises SettingsError for unknown keys."""
        return settings_of(cls, values)


Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class StageInput:
    """What a network sees, and where it lies.

    channels_czyx: ``(C, Z, Y, X) float32`` in canonical axis order; channel 0 is HU in whole numbers, the others are masks of 0 and 1.
    shown_zyx: ``(Z, Y, X) bool``, where channel 0 is the CT and not ``outside_hu``.
    geometry: grid of these channels (canonical, cropped).
    """

    stage: Stage
    channels_czyx: NDArray[np.float32]
    shown_zyx: Mask
    geometry: Geometry
    canonical: Canonical
    box_zyx: Box

    def without_channels(self) -> StageInput:
        """The same place with nothing in it: what :meth:`restore` and :meth:`crop` need, and no more."""
        return replace(self, channels_czyx=np.empty((0, 0, 0, 0), np.float32), shown_zyx=np.empty((0, 0, 0), bool))

    def crop(self, array_zyx: NDArray[Scalar]) -> NDArray[Scalar]:
        """An array on the CT's grid (a target mask, say) on this input's grid."""
        return np.ascontiguousarray(self.canonical.forward(array_zyx)[self.box_zyx])

    def restore(self, array_zyx: NDArray[Scalar], fill: float = 0) -> NDArray[Scalar]:
        """An array on this input's grid (a prediction) on exactly the CT's grid, ``fill`` outside the crop.

        Raises: GridError where the shape is not that of this input.
        """
        if array_zyx.shape != self.geometry.shape_zyx:
            raise GridError(f"stage {self.stage}: expected a result of shape {self.geometry.shape_zyx}, got {array_zyx.shape}")
        whole = np.full(self.canonical.target.shape_zyx, fill, array_zyx.dtype)
        whole[self.box_zyx] = array_zyx
        return self.canonical.backward(whole)


def build_stage_input(
    ct_zyx: NDArray[Any],
    geometry: Geometry,
    masks: Mapping[Structure, Mask],
    stage: Stage,
    settings: InputSettings | None = None,
) -> StageInput:
    """The input of one stage's network from a CT and the masks the stage needs (given or predicted).

    Args:
        ct_zyx: ``(Z, Y, X)`` HU on ``geometry``, any axis order.
        masks: ``(Z, Y, X) bool`` on the same grid; must hold every structure of ``stage.needs``; others are ignored.
    Returns: channels in canonical axis order, masked and/or cropped to the stage's region.

    Raises:
        EmptyLiverError: the region is empty. An empty mask channel (no CRLM) is fine: the channel is all 0.
        GridError: a mask or the CT has another shape than ``geometry``.
        SettingsError: a mask that the stage needs is missing.
    """
    settings = settings or InputSettings()
    missing = [s.value for s in stage.needs if s not in masks]
    if missing:
        raise SettingsError(f"stage {stage} needs the mask of {', '.join(missing)}; give it or predict it first")
    for name, array in (("CT", ct_zyx), *((s.value, masks[s]) for s in stage.needs)):
        if array.shape != geometry.shape_zyx:
            raise GridError(f"stage {stage}: {name} has shape {array.shape}, the CT's grid has {geometry.shape_zyx} (z, y, x)")

    canonical = Canonical.of(geometry)
    ct = canonical.forward(ct_zyx)
    box: Box = (slice(0, ct.shape[0]), slice(0, ct.shape[1]), slice(0, ct.shape[2]))
    if stage.region is None:
        channel = _whole_hu(ct)
        shown = np.broadcast_to(np.True_, channel.shape)
    else:
        region = canonical.forward(masks[stage.region])
        if not region.any():
            raise EmptyLiverError(
                f"stage {stage}: the {stage.region} mask is empty, so there is nothing to look at. "
                "Check that the CT shows the liver and that the mask belongs to it, or draw the liver by hand"
            )
        spacing = canonical.target.spacing_zyx_mm
        if settings.region_mode.crops:
            box = _bounding_box(region, spacing, settings.crop_margin_mm + settings.mask_margin_mm)
        channel = _whole_hu(ct[box])
        shown = np.broadcast_to(np.True_, channel.shape)
        if settings.region_mode.masks:
            shown = _dilated(region[box], spacing, settings.mask_margin_mm)
            channel[~shown] = settings.outside_hu
    mask_channels = [canonical.forward(masks[s])[box].astype(np.float32) for s in settings.mask_channels(stage)]
    return StageInput(stage, np.stack([channel, *mask_channels]), shown, _cropped(canonical.target, box), canonical, box)


def _whole_hu(ct_zyx: NDArray[Any]) -> NDArray[np.float32]:
    """HU in whole numbers between :data:`AIR_HU` and the largest int16: what the raw data set of a training can hold."""
    clipped: NDArray[np.float32] = np.clip(ct_zyx, AIR_HU, MAX_HU, dtype=np.float32)
    return np.rint(clipped, out=clipped)


def _bounding_box(region: Mask, spacing_zyx_mm: tuple[float, float, float], margin_mm: float) -> Box:
    slices = []
    for axis in range(3):
        hit = np.flatnonzero(region.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(np.ceil(margin_mm / spacing_zyx_mm[axis]))
        slices.append(slice(max(0, int(hit[0]) - margin), min(region.shape[axis], int(hit[-1]) + 1 + margin)))
    return (slices[0], slices[1], slices[2])


def _dilated(region: Mask, spacing_zyx_mm: tuple[float, float, float], margin_mm: float) -> Mask:
    if margin_mm == 0:
        return region
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(~region, sampling=spacing_zyx_mm)
    return np.asarray(distance <= margin_mm)


def _cropped(geometry: Geometry, box: Box) -> Geometry:
    start_xyz = np.array([[box[2].start, box[1].start, box[0].start]], float)
    origin = geometry.world_mm(start_xyz)[0]
    size = (box[2].stop - box[2].start, box[1].stop - box[1].start, box[0].stop - box[0].start)
    return Geometry(size, geometry.spacing_mm, (float(origin[0]), float(origin[1]), float(origin[2])), geometry.direction)
