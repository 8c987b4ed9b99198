"""The plan that a client works on: what it was answered last, until it submits a label."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import PLANNED, Mask, Structure, structure_mask
from flrplan.files import stamp_of
from flrplan.image import CT
from flrplan.method import Probability
from flrplan.planning import Plan
from flrplan.server.host import IMAGE_ID
from flrplan.server.user import current_user

KEPT = 3
"""Plans that are kept; one of 512 x 512 x 133 voxels takes about 140 MB with its CT."""


@dataclass(frozen=True, eq=False)
class Current:
    """A plan of one image as a client has it.

    image_stamp: of the image when ``ct`` was read from it (:func:`image_stamp_of`).
    probability: of the CRLM by the network, where it ran. said: of the models, for answers. label_stamp: of the submitted label at that time.
    meant: voxels that were clicked as background, and the structure that they were taken to be outside of.
    """

    ct: CT
    label_zyx: NDArray[np.uint8]
    came_from: str
    image_stamp: str
    probability: Probability | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    label_stamp: str | None = None
    meant: Mapping[tuple[int, ...], Structure] = field(default_factory=dict)

    @property
    def masks(self) -> dict[Structure, Mask]:
        """Liver, CRLM and FLR."""
        return {s: structure_mask(self.label_zyx, s) for s in PLANNED}


def image_stamp_of(path: Path) -> str:
    """As :func:`flrplan.files.stamp_of`; empty where there is no image, of which reading it says more."""
    with suppress(OSError):
        return stamp_of(path)
    return ""


class CurrentPlans:
    """The newest :data:`KEPT` plans, by image and client. To be used under the lock of the service."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, str], Current] = OrderedDict()

    def of(self, request: Mapping[str, Any], path: Path) -> Current | None:
        """What was kept for the image and the client of a request, also where the image was replaced since."""
        found = self._plans.get(self._key(request, path))
        if found is not None:
            self._plans.move_to_end(self._key(request, path))
        return found

    def keep(self, request: Mapping[str, Any], path: Path, plan: Current) -> None:
        """In place of what was kept for this image and client."""
        self._plans[self._key(request, path)] = plan
        self._plans.move_to_end(self._key(request, path))
        while len(self._plans) > KEPT:
            self._plans.popitem(last=False)

    @staticmethod
    def _key(request: Mapping[str, Any], path: Path) -> tuple[str, str]:
        who = current_user() or request.get("client_id") or ""
        return str(request.get(IMAGE_ID) or path), str(who)


def current_of(
    plan: Plan,
    probabilities: Mapping[Structure, Probability],
    said: Mapping[str, Any],
    image_stamp: str,
    label_stamp: str | None,
) -> Current | None:
    """What is kept of an answer; None unless it is a whole plan. image_stamp: from before the CT was read."""
    if not all(s in plan.masks for s in PLANNED):
        return None
    return Current(plan.ct, plan.label_zyx, "the prediction", image_stamp, probabilities.get(Structure.CRLM), said, label_stamp)
