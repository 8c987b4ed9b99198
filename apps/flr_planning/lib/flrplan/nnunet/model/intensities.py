"""Are the intensity statistics of a plan those of a target that the network can see?

nnU-Net clips a CT to the 0.5 and 99.5 percentiles of the target's intensities and divides by their standard deviation. Where half a
per cent of the target lies outside the region that masks the CT, the floor is ``outside_hu``: tissue is pressed into a small part of
the scale, and the network learns slowly or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flrplan.method import InputSettings, Stage
from flrplan.method.stage_input import AIR_HU

NO_TISSUE_HU = -200.0
"""Below it lie lung, gas and air alone (fat begins at about -150 HU); an ``outside_hu`` above it is within tissue by intention."""


def clip_floor_fault(plans: Mapping[str, Any], stage: Stage, settings: InputSettings, whole_ct: bool = False) -> str:
    """What is wrong with the clip floor of a plan's CT channel; empty where nothing is, or the plan states none.

    At fault is a floor at the HU outside the stage's region. whole_ct: also one at air where the network is shown the whole CT, which
    no plan for the liver alone has; a foreign model with more labels may.
    """
    properties = plans.get("foreground_intensity_properties_per_channel") or {}
    ct = properties.get("0", properties.get(0)) or {}
    floor, std = ct.get("percentile_00_5"), ct.get("std")
    if not isinstance(floor, int | float):
        return ""
    outside = settings.outside_of(stage)
    if outside is None and not whole_ct:
        return ""
    limit = AIR_HU if outside is None else min(outside, NO_TISSUE_HU)
    if floor > limit:
        return ""
    what = "of air and padding" if outside is None else f"outside the {stage.region}"
    spread = f", standard deviation {std:.0f}" if isinstance(std, int | float) else ""
    return f"the {stage.target_names}'s 0.5 percentile is {floor:.0f} HU, the value {what}, expected tissue (above {limit:.0f} HU{spread})"
