"""``flrplan plan`` on real CTs (not in the repository): a whole DICOM series, and a NIfTI that cuts the liver."""

from __future__ import annotations

import json
from pathlib import Path

import SimpleITK as sitk

from flrplan.cli import main


def test_the_lidc_series(lidc_series: Path, tmp_path: Path) -> None:
    assert main(["plan", str(lidc_series), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    report = json.loads((tmp_path / "out" / "LIDC-IDRI-0001" / "plan.json").read_text())
    assert sitk.ReadImage(str(tmp_path / "out" / "LIDC-IDRI-0001" / "planning.nii.gz")).GetSize() == (512, 512, 133)
    # The liver of this patient has 1023 ml by another model's mask; 850 to 1250 says that it was found, no more.
    assert 850 < report["volumes"]["liver_ml"] < 1250
    assert not any("cut by the field of view" in w for w in report["warnings"])


def test_a_liver_cut_by_the_field_of_view(real_data: Path, tmp_path: Path) -> None:
    assert main(["plan", str(real_data / "totalseg" / "example_ct.nii.gz"), "--out", str(tmp_path), "--device", "cpu"]) == 0
    warnings = json.loads((tmp_path / "example_ct" / "plan.json").read_text())["warnings"]
    assert any("cut by the field of view" in w and "superior" in w for w in warnings)
