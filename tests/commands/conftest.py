"""A CT in a file, to give to a command."""

from __future__ import annotations

from pathlib import Path

import pytest
import SimpleITK as sitk

from flrplan.image import CT


@pytest.fixture
def ct_file(tmp_path: Path, small_ct: CT) -> Path:
    path = tmp_path / "cts" / "patient.one.nii.gz"
    path.parent.mkdir()
    sitk.WriteImage(small_ct.geometry.image(small_ct.array_zyx), str(path))
    return path
