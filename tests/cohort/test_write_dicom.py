"""``flrplan cohort --dicom``: the series beside the images, continued after a break."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flrplan.cli import main
from flrplan.cohort.write import dicom_folder, image_path
from flrplan.cohort.write_dicom import write_dicom_cohort
from flrplan.errors import CohortError, ImageError
from flrplan.image import read_ct, write_volume


def test_series_are_the_images_and_a_broken_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    assert main(["cohort", "--cases", "2", "--seed", "5", "--out", str(out), "--dicom"]) == 0
    cases = ["synth-5-0000", "synth-5-0001"]
    for case in cases:
        image, series = read_ct(image_path(out, case)), read_ct(dicom_folder(out, case))
        assert np.array_equal(image.array_zyx, series.array_zyx)
        assert image.geometry.is_same_grid(series.geometry)

    kept, broken = (dicom_folder(out, case) for case in cases)
    first = kept / "slice_0001.dcm"
    written = first.stat().st_mtime_ns
    (broken / "slice_0002.dcm").unlink()
    write_dicom_cohort(out, cases, progress=False)
    assert first.stat().st_mtime_ns == written
    assert (broken / "slice_0002.dcm").is_file()

    image = read_ct(image_path(out, cases[0]))
    write_volume(image_path(out, cases[0]), image.array_zyx + np.int16(1), image.geometry)
    write_dicom_cohort(out, cases, progress=False)
    assert np.array_equal(read_ct(kept).array_zyx, image.array_zyx + 1)


def test_a_run_killed_while_it_wrote_a_series_goes_on(tmp_path: Path) -> None:
    command = ["cohort", "--cases", "1", "--seed", "5", "--out", str(tmp_path), "--dicom"]
    assert main(command) == 0
    half = tmp_path / "dicom" / ".part-1a2b3c4d-synth-5-0000"
    half.mkdir()
    (half / "slice_0001.dcm").write_bytes(b"half")
    assert main(command) == 0
    assert [p.name for p in (tmp_path / "dicom").iterdir()] == ["synth-5-0000"]


def test_force_leaves_no_series_of_an_earlier_cohort(tmp_path: Path) -> None:
    command = ["cohort", "--cases", "1", "--out", str(tmp_path)]
    assert main([*command, "--seed", "5", "--dicom"]) == 0
    others = tmp_path / "dicom" / "synth-5-0001" / "seg.dcm"  # lies where a series of the cohort might, and is not of it
    others.parent.mkdir()
    others.write_bytes(b"mine")
    (others.parent / "slice_0001.dcm").write_bytes(b"the cohort's")
    assert main([*command, "--seed", "6", "--dicom", "--force"]) == 0
    assert sorted(p.name for p in (tmp_path / "dicom").iterdir()) == ["synth-5-0001", "synth-6-0000"]
    assert list(others.parent.iterdir()) == [others]
    assert main([*command, "--seed", "6", "--size", "medium", "--force"]) == 0  # a series of the small CT would lie
    assert sorted(p.name for p in (tmp_path / "dicom").iterdir()) == ["synth-5-0001"]


def test_an_image_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="synth-5-0000"):
        write_dicom_cohort(tmp_path, ["synth-5-0000"], progress=False)


def test_files_of_somebody_else_beside_the_slices_stay(tmp_path: Path) -> None:
    command = ["cohort", "--cases", "1", "--seed", "5", "--out", str(tmp_path), "--dicom"]
    assert main(command) == 0
    folder = dicom_folder(tmp_path, "synth-5-0000")
    (folder / "seg.dcm").write_bytes(b"mine")
    assert main(command) == 0  # the series is whole
    (folder / "slice_0002.dcm").unlink()
    with pytest.raises(CohortError, match=r"files of unknown origin \(seg.dcm\)"):
        write_dicom_cohort(tmp_path, ["synth-5-0000"], progress=False)
    assert (folder / "seg.dcm").read_bytes() == b"mine"
