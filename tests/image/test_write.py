from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flrplan.anatomy import Structure
from flrplan.errors import GridError, LabelError, OutputError
from flrplan.files import write_json, write_text
from flrplan.image import Geometry, read_label_map, write_label_map


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_label_map_comes_back(tmp_path: Path, geometry: Geometry, suffix: str) -> None:
    array = np.random.default_rng(1).integers(0, 5, geometry.shape_zyx).astype(np.uint8)
    path = tmp_path / "new" / f"label{suffix}"
    write_label_map(path, array, geometry)
    found, grid = read_label_map(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)
    assert np.allclose(grid.corners_mm(), geometry.corners_mm(), atol=1e-3)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_written_as_a_label(tmp_path: Path, geometry: Geometry) -> None:
    with pytest.raises(LabelError, match="written as uint8, got float32"):
        write_label_map(tmp_path / "a.nii.gz", np.zeros(geometry.shape_zyx, np.float32), geometry)
    with pytest.raises(GridError, match="an array on this grid has shape"):
        write_label_map(tmp_path / "a.nii.gz", np.zeros((2, 2, 2), np.uint8), geometry)
    with pytest.raises(OutputError, match=r"expected a name that ends in .nii.gz"):
        write_label_map(tmp_path / "a.nhdr", np.zeros(geometry.shape_zyx, np.uint8), geometry)
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from flrplan.errors import OutputError
from flrplan.image import Geometry
from flrplan.files import write_json
from flrplan.image import write_label_map
folder, name = Path(sys.argv[1]), sys.argv[2]
label = np.random.default_rng(0).integers(0, 5, (40, 40, 40)).astype(np.uint8)
if len(sys.argv) > 3:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    if name.endswith("json"):
        write_json(folder / name, list(range(20000)))
    else:
        write_label_map(folder / name, label, Geometry((40, 40, 40), (0.8, 0.8, 2.5)))
except OutputError as error:
    print(error)
"""


def limited(folder: Path, name: str, *flag: str) -> str:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(folder), name, *flag], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.json"])
def test_a_file_that_outgrows_its_limit_leaves_the_old_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    said = limited(tmp_path, name, "limit")
    assert f"could not write {tmp_path / name}" in said
    assert "check that the disk has room" in said
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
@pytest.mark.parametrize("name", ["a.nii.gz", "a.json"])
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=False, capture_output=True
    ).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        assert "check that the disk has room" in limited(disk, name)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(OutputError, match=r"could not write .*a.txt: (File exists|Not a directory)"):
        write_text(tmp_path / "f" / "a.txt", "x")


def test_json_holds_plain_values_and_no_nan(tmp_path: Path) -> None:
    content: dict[Any, Any] = {
        Structure.LIVER: np.float32(1.5),
        "undefined": [float("nan"), np.float64("nan"), float("inf")],
        "array": np.arange(3),
        "path": Path("a/b"),
        "flag": np.bool_(True),
        "tuple": (1, None, "ü"),
    }
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {
        "liver": 1.5,
        "undefined": [None, None, None],
        "array": [0, 1, 2],
        "path": "a/b",
        "flag": True,
        "tuple": [1, None, "ü"],
    }
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"no": object()})
    assert "liver" in (tmp_path / "a.json").read_text(encoding="utf-8")
