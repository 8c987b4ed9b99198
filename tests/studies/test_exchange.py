"""Labels in and out of a studies folder: a work folder becomes studies, confirmed labels become a data set that is read back."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from flrplan.anatomy import Compartment, Structure, structure_mask
from flrplan.cli import main
from flrplan.image import Geometry, read_ct, read_label_map, read_mask, write_label_map, write_volume
from flrplan.image.dicom_seg import read_dicom_layers
from flrplan.image.dicom_write import write_dicom_series
from flrplan.preparation import PrepareSettings, SourceKind, find_folder_cases, prepare
from flrplan.studies import FINAL, ORIGINAL, StudiesFolder
from flrplan.workfolder import find_labelled_cases

GRID = Geometry((22, 20, 12), (1.5, 1.5, 3.0), (-10.0, 5.0, 40.0))
PLANNED = (Structure.LIVER, Structure.CRLM, Structure.FLR)


def planning() -> NDArray[np.uint8]:
    """A liver cut in halves, a metastasis in the resection."""
    label = np.zeros(GRID.shape_zyx, np.uint8)
    label[2:10, 4:16, 4:11], label[2:10, 4:16, 11:18] = Compartment.RESECTION, Compartment.REMNANT
    label[4:6, 6:8, 5:7] = Compartment.CRLM_IN_RESECTION
    return label


def hu() -> NDArray[np.int16]:
    array = np.full(GRID.shape_zyx, -1000, np.int16)
    array[1:11, 2:18, 2:20] = np.random.default_rng(5).integers(30, 90, (10, 16, 18))
    return array


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """What prepare.py leaves: one case with a planning map, one with the masks of liver and metastases alone."""
    folder = tmp_path / "work"
    for case in ("P1", "P2"):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        write_volume(folder / "images" / f"{case}.nii.gz", hu(), GRID)
    write_label_map(folder / "labels" / "P1.nii.gz", planning(), GRID)
    for structure in PLANNED[:2]:
        write_label_map(folder / "masks" / "P2" / f"{structure}.nii.gz", structure_mask(planning(), structure), GRID)
    return folder


@pytest.fixture
def studies(work: Path, tmp_path: Path) -> Path:
    assert main(["studies", "import", str(work), "--studies", str(tmp_path / "studies")]) == 0
    return tmp_path / "studies"


def test_a_work_folder_becomes_studies_with_one_map_to_edit(
    studies: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = StudiesFolder(studies).scan()
    assert list(images) == ["P1", "P2"]
    assert images["P1"].path.read_bytes() == (work / "images" / "P1.nii.gz").read_bytes()
    first, second = (images[case].labels[ORIGINAL] for case in images)
    assert np.array_equal(read_label_map(first.path)[0], planning())
    assert first.info["params"]["label_names"] == {"remnant": 1, "resection": 2, "crlm_in_resection": 3}, (
        "as 3D Slicer reads them"
    )
    assert [e["name"] for e in first.info["label_info"]] == [c.label_name for c in Compartment]
    assert second.info["params"]["label_names"] == {"liver": 1, "crlm": 2}
    stamp = first.path.stat().st_mtime_ns
    assert main(["studies", "import", str(work), "--studies", str(studies)]) == 0
    assert "P1: as it was" in capsys.readouterr().out
    assert first.path.stat().st_mtime_ns == stamp


def test_a_case_that_cannot_be_imported_costs_no_other(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_label_map(work / "labels" / "P1.nii.gz", np.full(GRID.shape_zyx, 9, np.uint8), GRID)
    assert main(["studies", "import", str(work), "--studies", str(tmp_path / "s")]) == 1
    seen = capsys.readouterr()
    assert "P1: left out: " in seen.out
    assert "a planning label map holds 0..4" in seen.out
    assert list(StudiesFolder(tmp_path / "s").scan()) == ["P2"]


def submit(studies: Path, case: str, tmp_path: Path, **meta: Any) -> None:
    file = tmp_path / "drawn.nii.gz"
    write_label_map(file, planning(), GRID)
    names = [{"name": c.label_name, "idx": int(c)} for c in Compartment]
    info: dict[str, Any] = {"label_info": names, "client_id": "Ann", "ts": 1_750_000_000}
    if meta:
        info["segmentationMeta"] = {"level": "", "comment": "", "editTime": 1_750_000_100, **meta}
    StudiesFolder(studies).save_label(case, FINAL, file, info)


def test_confirmed_labels_are_published_and_prepare_reads_them_back(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(studies, "P1", tmp_path, status="approved", approvedBy="Bob")
    submit(studies, "P2", tmp_path)
    write_dicom_series(tmp_path / "dicom" / "x", hu(), GRID, "P1", "portal")
    out = tmp_path / "out"
    command = ["studies", "export", str(studies), "--out", str(out), "--dicom", str(tmp_path / "dicom"), "--images"]
    assert main(command) == 0
    assert (
        "P2: left out: its label is drafted, and only labels that a second reader confirmed are used" in capsys.readouterr().out
    )
    ct = read_ct(out / "images" / "P1.nii.gz")
    for structure in PLANNED:
        assert np.array_equal(
            read_mask(out / f"masks/P1/{structure}.nii.gz", ct, structure), structure_mask(planning(), structure)
        )
    assert np.array_equal(read_label_map(out / "labels" / "P1.nii.gz")[0], planning())

    seg = pydicom.dcmread(out / "seg" / "P1.dcm")
    series = read_ct(tmp_path / "dicom" / "x")
    layers = read_dicom_layers(seg, series.geometry, "seg")
    found = {name: label == number for label, names in layers for name, number in names.items()}
    assert {n: int(m.sum()) for n, m in found.items()} == {
        s.value: int(structure_mask(planning(), s).sum()) for s in PLANNED
    }, "the segments overlap, whole"
    assert seg.SegmentationType == "BINARY"
    assert seg.PatientID == ""

    manifest = json.loads((out / "manifest.json").read_text())
    (entry,) = manifest["cases"]
    assert (entry["drafted_by"], entry["confirmed_by"], entry["state"]) == ("reader 1", "reader 2", "confirmed")
    assert "Ann" not in (out / "manifest.json").read_text(), "readers are numbers"
    assert entry["volumes_ml"]["liver"] == pytest.approx((planning() > 0).sum() * 0.00675, abs=1e-3)
    sums = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {
        p.relative_to(out).as_posix() for p in out.rglob("*.*") if p.name not in ("manifest.json", "SHA256SUMS")
    }
    assert all(hashlib.sha256((out / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())

    again = tmp_path / "again"
    prepared = prepare(find_folder_cases(out).cases, PrepareSettings(again, SourceKind.FOLDER, progress=False))
    assert (prepared.ready, prepared.problems) == (("P1",), ())
    _, masks = find_labelled_cases(again)[0].load(PLANNED)
    for structure in PLANNED:
        assert np.array_equal(masks[structure], structure_mask(planning(), structure))
    assert main([*command, "--labels", "all"]) == 0
    assert [c["case"] for c in json.loads((out / "manifest.json").read_text())["cases"]] == ["P1", "P2"]


def test_an_export_done_again_holds_nothing_that_does_not_count_any_more(studies: Path, tmp_path: Path) -> None:
    for case in ("P1", "P2"):
        submit(studies, case, tmp_path, status="approved", approvedBy="Bob")
    out = tmp_path / "out"
    assert main(["studies", "export", str(studies), "--out", str(out), "--images"]) == 0
    (out / "README.md").write_text("mine")
    submit(studies, "P2", tmp_path, status="flagged", approvedBy="Bob")
    StudiesFolder(studies).remove_label("P2", "version_1")
    assert main(["studies", "export", str(studies), "--out", str(out), "--images"]) == 0
    assert not [path for path in out.rglob("*") if path.is_file() and "P2" in path.as_posix()], "P2 was sent back"
    assert (out / "README.md").exists()
    (out / "manifest.json").write_text("{}")
    assert main(["studies", "export", str(studies), "--out", str(out)]) == 1
    assert main(["studies", "export", str(studies), "--out", str(out / "README.md")]) == 1


def test_what_cannot_be_exported_is_told(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "export", str(studies), "--out", str(tmp_path / "o")]) == 1
    assert "no label to export; P1: it has no final label; P2: it has no final label" in capsys.readouterr().err
    assert main(["studies", "export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "o")]) == 1
    assert "nowhere: no such folder; expected the --studies folder of a server" in capsys.readouterr().err
    assert main(["studies", "restore", str(studies), "P1"]) == 1
    assert "P1 has no label that somebody submitted" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert main(["studies", "export", str(studies), "--out", str(tmp_path / "mine")]) == 1
    assert "holds something else; choose an empty folder" in capsys.readouterr().err
    submit(studies, "P1", tmp_path, status="approved", approvedBy="Bob")
    shutil.copy(studies / "P1.nii.gz", studies / "labels" / FINAL / "P1.nii.gz")  # a CT in place of the label
    assert main(["studies", "export", str(studies), "--out", str(tmp_path / "o")]) == 1
    assert "P1: " in capsys.readouterr().err


def test_a_work_folder_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "import", str(tmp_path), "--studies", str(tmp_path / "s")]) == 1
    assert "expected images/<case>.nii.gz and labels/<case>.nii.gz, found no image" in capsys.readouterr().err
