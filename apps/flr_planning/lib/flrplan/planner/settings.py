"""What an administrator can set of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from flrplan.files.checked import Number, checked


@checked
class PlannerSettings:
    """Settings of the page.

    folder: where uploads and plans lie while they are kept, each server's in a private folder of its own; None is the system's folder for
        temporary files.
    max_upload_gib: the largest upload, and again the most that a zip unpacks to; 1 GiB is some 2000 slices.
    keep_hours: after so many an upload is deleted with its plan.
    """

    folder: Path | None = None
    max_upload_gib: Annotated[Number, Field(gt=0)] = 2.0
    keep_hours: Annotated[Number, Field(gt=0)] = 24.0
