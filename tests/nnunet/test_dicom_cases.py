"""Cases whose image is the folder of a DICOM series, as a DICOMweb server gives them, are prepared like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.cohort.write_dicom import dicom_folder, write_dicom_cohort
from flrplan.errors import SettingsError
from flrplan.method import FLR, Recipe
from flrplan.nnunet.prepare import preparation
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import Case, find_labelled_cases, nnunet_split
from flrplan.workfolder.cases import files_of


@pytest.fixture
def series(tiny_cohort: Path, tmp_path: Path) -> list[Case]:
    """The four tiny cases, each with a DICOM series instead of its image file."""
    cohort = Path(shutil.copytree(tiny_cohort, tmp_path / "cohort"))
    cases = find_labelled_cases(cohort)
    write_dicom_cohort(cohort, [c.case_id for c in cases], progress=False)
    return [replace(case, image=dicom_folder(cohort, case.case_id)) for case in cases]


def test_series_are_prepared_like_files(
    series: list[Case],
    tiny_prepared: StageWork,
    tiny_recipe: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, int] = {}
    monkeypatch.setattr(preparation, "require_room", lambda _, needed, what: asked.update({what: needed}))
    work, split = StageWork(tmp_path / "work", FLR), nnunet_split([c.case_id for c in series], 2)
    prepare_stage(series, work, tiny_recipe(), split)
    inputs = sorted((tiny_prepared.folder / "raw").rglob("*.nii.gz"))
    assert len(inputs) == 4 * 3  # CT, metastases, target
    for path in inputs:
        made = work.folder / "raw" / path.relative_to(tiny_prepared.folder / "raw")
        assert np.array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in (path, made)))
    slices = [f for c in series for f in c.image.iterdir()]
    assert asked["copying 4 cases"] == sum(f.stat().st_size for f in slices)
    prepare_stage(series, work, tiny_recipe(), split)  # left alone
    slices[0].touch()
    prepare_stage(series, work, tiny_recipe(), split)  # left alone: the content is the same
    slices[0].write_bytes(slices[0].read_bytes() + bytes(2))
    with pytest.raises(SettingsError, match=rf"\(files\.{series[0].case_id} was "):
        prepare_stage(series, work, tiny_recipe(), split)


def test_the_hash_follows_every_slice(series: list[Case]) -> None:
    case = series[0]
    before, slices = case.sha256(), files_of(case.image)
    assert slices == sorted(case.image.glob("slice_*.dcm"))
    assert len(case.file_stamps()) == len(slices) + 1  # and the label
    content = bytearray(slices[-1].read_bytes())
    content[-1] ^= 1
    slices[-1].write_bytes(content)
    assert case.sha256() != before


def test_what_is_odd_about_a_ct_is_logged(series: list[Case], caplog: pytest.LogCaptureFixture) -> None:
    (series[0].image / "LOST").touch()
    (series[0].image / "._slice_0001.dcm").write_bytes(b"\0\5\26\7 Mac OS X")
    series[0].load(())
    assert [r.getMessage() for r in caplog.records] == [
        f"case {series[0].case_id}: 1 files of the folder are not used (empty): LOST; is a slice among them?"
    ]
    assert not any(f.name.startswith(".") for f in files_of(series[0].image))
