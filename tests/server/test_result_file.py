from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.errors import OutputError, SettingsError
from flrplan.image import Geometry
from flrplan.server.label_table import COMPARTMENT_NAMES
from flrplan.server.result_file import DTYPES, EXTENSIONS, ResultFormat, write_result

OBLIQUE = Geometry((9, 7, 5), (0.7, 0.8, 7.5), (-100.25, 30.5, 11.0), (0.6, 0.0, 0.8, 0.0, -1.0, 0.0, 0.8, 0.0, -0.6))
OHIF = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False}


@pytest.fixture
def label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return np.random.default_rng(0).integers(0, 5, OBLIQUE.shape_zyx).astype(np.uint8)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format_comes_back_on_the_same_grid(
    label: np.ndarray, extension: str, read_image: Callable[..., tuple[Any, Geometry]]
) -> None:
    path = write_result(label, OBLIQUE, COMPARTMENT_NAMES, ResultFormat(extension))
    assert path.name.endswith(extension)
    array, geometry = read_image(path)
    assert array.dtype == np.uint8
    assert np.array_equal(array, label)
    assert geometry.is_same_grid(OBLIQUE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_asked_type_is_written(label: np.ndarray, dtype: str, read_image: Callable[..., tuple[Any, Geometry]]) -> None:
    array, _ = read_image(write_result(label, OBLIQUE, COMPARTMENT_NAMES, ResultFormat(".nrrd", dtype)))
    assert array.dtype == np.dtype(dtype)
    assert np.array_equal(array, label)


def test_what_ohif_asks_for_is_raw_uint8_nrrd(label: np.ndarray) -> None:
    wanted = ResultFormat.from_request(OHIF)
    data, header = nrrd.read(str(write_result(label, OBLIQUE, COMPARTMENT_NAMES, wanted)))
    assert (header["encoding"], header["type"]) == ("raw", "unsigned char")
    assert np.array_equal(data, label.transpose(2, 1, 0))


def test_compression_is_honoured(label: np.ndarray) -> None:
    _, header = nrrd.read(str(write_result(label, OBLIQUE, COMPARTMENT_NAMES, ResultFormat(".nrrd", "uint8", compress=True))))
    assert header["encoding"] == "gzip"


def test_seg_nrrd_names_and_colours_its_segments(label: np.ndarray) -> None:
    _, header = nrrd.read(str(write_result(label, OBLIQUE, COMPARTMENT_NAMES, ResultFormat(".seg.nrrd"))))
    assert [header[f"Segment{i}_Name"] for i in range(4)] == ["remnant", "resection", "crlm_in_resection", "crlm_in_remnant"]
    assert [header[f"Segment{i}_LabelValue"] for i in range(4)] == ["1", "2", "3", "4"]
    assert header["Segment0_Color"] == "0 0.666667 0.313725"  # APPEARANCE: (0, 170, 80) / 255
    assert header["Segment3_Extent"] == "0 8 0 6 0 4"


@pytest.mark.parametrize("values", [{}, {"result_extension": None, "result_dtype": None, "result_compress": None}])
def test_nothing_asked_is_compressed_nifti(values: dict[str, object]) -> None:
    assert ResultFormat.from_request(values) == ResultFormat(".nii.gz", "uint8", compress=False)


def test_an_extension_without_its_dot_is_understood() -> None:
    assert ResultFormat.from_request({"result_extension": "NRRD", "result_compress": "true"}) == ResultFormat(
        ".nrrd", compress=True
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"result_extension": ".dcm"}, r"result_extension must be one of .nii.gz, .nii, .nrrd, .seg.nrrd, got '.dcm'"),
        ({"result_dtype": "complex64"}, r"result_dtype must be one of uint8.*got 'complex64'"),
        ({"result_compress": "maybe"}, r"result_compress must be true or false"),
    ],
)
def test_an_unknown_format_names_the_known_ones(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ResultFormat.from_request(values)


FULL_DISK = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np
from flrplan.server.result_file import EXTENSIONS, ResultFormat, write_result
from flrplan.errors import OutputError
from flrplan.image import Geometry
tempfile.tempdir = sys.argv[1]
label = np.random.default_rng(0).integers(0, 5, (40, 40, 40)).astype(np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # writing fails after 5 kB, as on a full disk
for extension in EXTENSIONS:
    try:
        write_result(label, Geometry((40, 40, 40), (1, 1, 1)), {"remnant": 1}, ResultFormat(extension))
    except OutputError as error:
        print("OutputError:", error)
assert not list(Path(sys.argv[1]).iterdir()), list(Path(sys.argv[1]).iterdir())
"""


def test_a_full_disk_is_an_error_for_every_format(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("OutputError: could not write the result") == 4, done.stdout


def test_a_failed_write_is_an_error_and_leaves_nothing(
    label: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(OutputError, match=r"could not write the result to .*No space left"):
        write_result(label, OBLIQUE, COMPARTMENT_NAMES, ResultFormat())
    assert list(tmp_path.iterdir()) == []
