"""The plan of one case: masks, volumes and where they came from; and as files, written beside and renamed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan import __version__
from flrplan.anatomy import Mask, Structure
from flrplan.errors import OutputError
from flrplan.files import write_json
from flrplan.image import CT, write_label_map
from flrplan.method import CascadeResult, Source
from flrplan.planning.volumetry import Volumes, measure_volumes

RESEARCH_ONLY = "for research use only; not a medical device"
MAP_NAME = "planning.nii.gz"
REPORT_NAME = "plan.json"
PICTURE_NAME = "plan.png"


@dataclass(frozen=True, eq=False)
class Plan:
    """The plan of one CT; what it is made of is computed at the first look.

    result: of the cascade, with liver, CRLM and FLR. request: the files that were asked for, with size and time, kept in ``plan.json`` so
    that a later run can tell whether it asks the same; None where arrays were given.
    """

    result: CascadeResult
    request: Mapping[str, Any] | None = None

    @property
    def ct(self) -> CT:
        """The CT that was planned."""
        return self.result.ct

    @property
    def masks(self) -> Mapping[Structure, Mask]:
        """``(Z, Y, X) bool`` on the CT's grid, read-only: liver, CRLM and FLR, as they were given or predicted."""
        return self.result.masks

    @property
    def sources(self) -> Mapping[Structure, Source]:
        """Where each mask came from: given or predicted."""
        return self.result.sources

    @property
    def label_zyx(self) -> NDArray[np.uint8]:
        """The planning map ``(Z, Y, X) uint8``, read-only: 1 remnant, 2 resection, 3 metastasis in the resection, 4 in the remnant."""
        return self.result.planning_map()[0]

    @cached_property
    def volumes(self) -> Volumes:
        """Volumes (ml) and fractions (0..1) of the planning map; NaN where a denominator is empty."""
        return measure_volumes(self.label_zyx, self.ct.geometry.voxel_volume_ml)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should check, one sentence each: of the CT, of the masks, and that demo models took part."""
        return (*self.result.warnings, *self.result.planning_map()[1].findings())

    def report(self) -> dict[str, Any]:
        """The content of ``plan.json``: plain values, undefined ones None."""
        geometry = self.ct.geometry
        content = {
            "case": self.ct.name,
            "source": self.ct.source,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "software": f"flrplan {__version__}",
            "use": RESEARCH_ONLY,
            "size_xyz": list(geometry.size_xyz),
            "spacing_mm": [round(s, 6) for s in geometry.spacing_mm],
            "volumes": self.volumes.to_json(),
            "inputs": {str(s): source.value for s, source in self.sources.items()},
            "models": {stage: model.to_json() for stage, model in self.result.models.items()},
            "demo_models": self.result.demo,
            "seconds": dict(self.result.seconds),
            "warnings": list(self.warnings),
        }
        return {**content, "request": dict(self.request)} if self.request else content

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes ``planning.nii.gz``, ``plan.png`` and, last, ``plan.json`` into ``folder``, which is made; a plan that is there is replaced.

        Raises: OutputError where the disk is full or the folder cannot be written; no half-written file is left.
        """
        from flrplan.planning.picture import write_picture  # matplotlib, a second of imports that nothing before needs

        folder = Path(folder)
        report = self.report()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / REPORT_NAME).unlink(missing_ok=True)  # an old report beside a new map would be wrong
        except OSError as error:
            raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
        write_label_map(folder / MAP_NAME, self.label_zyx, self.ct.geometry)
        write_picture(folder / PICTURE_NAME, self.ct, self.label_zyx, self.volumes)
        write_json(folder / REPORT_NAME, report)
