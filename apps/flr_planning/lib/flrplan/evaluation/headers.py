"""A quick look at every file's header before hours of scoring: unreadable files and predictions on another grid."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from flrplan.errors import FlrError, ImageError
from flrplan.evaluation.inputs import IMAGE_SUFFIXES, CaseFiles, Gap
from flrplan.image import Geometry, require_same_grid
from flrplan.image.geometry import straighten
from flrplan.image.volume_file import itk_path


def header_geometry(path: Path) -> Geometry | None:
    """The grid that a file's header states, without reading its voxels; None for other than three axes.

    Raises: ImageError for a file that is empty, cut off inside its header or not an image, and for a grid that cannot be.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(itk_path(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            return None  # a sheared grid, which reading the file explains
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ImageError(
            f"{path}: empty, cut off or not an image ({path.stat().st_size} bytes); expected a whole mask ({kinds}); "
            "make or copy it again"
        ) from error
    if reader.GetDimension() != 3:
        return None  # whether such a file can be used is decided when it is read
    direction = np.array(reader.GetDirection()).reshape(3, 3)
    return straighten(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), direction, str(path))[0]


def header_gaps(cases: Iterable[CaseFiles]) -> list[Gap]:
    """What the headers alone show to be broken, so that it is known at once; contents are checked while scoring."""
    gaps = []
    for case in cases:
        try:
            expected = header_geometry(case.label.first)
        except (FlrError, OSError) as error:
            gaps.append(Gap("broken label", str(case.label.first), case.case, _one_line(error)))
            continue
        files = [("broken prediction", *item) for item in case.predictions.items()]
        files += [("broken probabilities", *item) for item in case.probabilities.items()]
        for kind, (architecture, column), path in files:
            try:
                found = header_geometry(path)
                if expected is not None and found is not None:
                    require_same_grid(expected, found, str(case.label.first), str(path))
            except (FlrError, OSError) as error:
                gaps.append(Gap(kind, f"{architecture}/{column}", case.case, _one_line(error)))
    return gaps


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
