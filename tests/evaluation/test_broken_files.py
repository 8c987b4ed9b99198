"""One broken file among good ones is named with its path, what is wrong with it and what to do; no library's words, no number."""

from __future__ import annotations

import csv

import numpy as np
import pytest

SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".mha"]
COLUMN = "predictions/nnunet/pipelined_flr"


@pytest.fixture
def refused(whole, command, capsys):
    """Runs the command, which must fail, write nothing and say all of ``said`` on stderr."""

    def run(*said: str) -> str:
        assert command(whole.arguments()) == 1
        error = capsys.readouterr().err
        assert not whole.out.exists()
        for text in said:
            assert text in error
        assert "in 1 places" in error
        assert "simpleitk" not in error.lower()
        assert "/src/" not in error, "no path of whoever built a library"
        return error

    return run


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("content", "size"), [(b"", 0), (b"not an image", 12)])
@pytest.mark.parametrize("folder", [COLUMN, "labels"])
def test_empty_file_and_file_that_is_no_image(whole, refused, folder, suffix, content, size):
    (whole.root / folder / "t1.nii.gz").unlink()
    (whole.root / folder / f"t1{suffix}").write_bytes(content)
    refused(
        "broken label: t1" if folder == "labels" else "broken prediction: t1 (nnunet/pipelined_flr",
        f"{folder}/t1{suffix}: empty, cut off or not an image ({size} bytes); expected a whole mask "
        "(.nii.gz, .nii, .nrrd, .mha); make or copy it again",
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [100, 500])
def test_file_cut_off_in_its_header_or_its_voxels(whole, refused, suffix, keep):
    (whole.root / COLUMN / "t1.nii.gz").unlink()
    noise = np.random.default_rng(0).integers(0, 2, whole.FLR.shape).astype(np.uint8)  # does not pack into less than 500 bytes
    path = whole.write(whole.root / COLUMN / f"t1{suffix}", noise)
    path.write_bytes(path.read_bytes()[:keep])
    refused("broken prediction: t1", f"t1{suffix}: ", "cut off", "again")


def test_what_is_whole_is_evaluated_with_allow_missing(whole, command):
    path = whole.root / COLUMN / "t1.nii.gz"
    path.write_bytes(path.read_bytes()[:120])
    assert command(whole.arguments("--allow-missing")) == 0
    rows = list(csv.DictReader((whole.out / "cases.csv").open()))
    assert len([r for r in rows if r["status"] == "scored"]) == 4
    assert [r["case"] for r in rows if r["status"] == "broken prediction"] == ["t1"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_prediction_of_nan_is_no_empty_mask(whole, refused, suffix):
    (whole.root / COLUMN / "t1.nii.gz").unlink()
    whole.write(whole.root / COLUMN / f"t1{suffix}", np.full(whole.FLR.shape, np.nan, np.float32))
    refused("broken prediction: t1", f"t1{suffix}: 4800 of 4800 voxels are NaN or infinite; export the image again")
