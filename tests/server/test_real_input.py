"""The plain server on two real CTs (fixture real_data), through MONAI Label's own client. What is found is not judged here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flrplan.image import Geometry
from flrplan.method import PAPER_STAGES

IMAGES = {"lidc": "lidc0001/abdomen_1p4x1p4x2p5_ct.nii.gz", "totalseg": "totalseg/example_ct.nii.gz"}
LIVER_OF_LIDC = "lidc0001/abdomen_1p4x1p4x2p5_liver.nii.gz"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(real_data: Path, tmp_path_factory: pytest.TempPathFactory, start_server: Callable[[str, Path], Any]) -> Any:
    folder = tmp_path_factory.mktemp("real")
    (folder / "studies").mkdir()
    for name, source in IMAGES.items():
        shutil.copy(real_data / source, folder / "studies" / f"{name}.nii.gz")
    return start_server(str(folder / "studies"), folder)


def test_info_and_next_sample(server: Any) -> None:
    assert server.client.info()["datastore"]["total"] == 2
    assert server.client.next_sample("first", {})["id"] == "lidc"


@pytest.mark.parametrize("model", [*map(str, PAPER_STAGES), "cascade"])
@pytest.mark.parametrize("image", IMAGES)
def test_each_task_answers_on_the_grid(
    server: Any, real_data: Path, image: str, model: str, read_image: Callable[..., tuple[NDArray[Any], Geometry]]
) -> None:
    file, params = server.client.infer(model, image, {"result_extension": ".nrrd", "result_dtype": "uint8"})
    label, geometry = read_image(file)
    assert geometry.is_same_grid(read_image(real_data / IMAGES[image])[1])
    if model == "liver":
        assert label.any()
    assert params["volumes"]["flr_ml" if model == "flr_e2e" else "liver_ml"] is not None


def test_a_liver_saved_at_index_3_is_the_liver_of_the_cascade(
    server: Any,
    real_data: Path,
    tmp_path: Path,
    write_image: Callable[..., Path],
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    liver, geometry = read_image(real_data / LIVER_OF_LIDC)
    file = write_image(tmp_path / "liver.nii.gz", (liver > 0).astype(np.uint8) * 3, geometry)
    server.client.save_label("lidc", str(file), params={"label_info": [{"name": "liver", "idx": 3}]})
    result, params = server.client.infer("cascade", "lidc", {"inputs": "labels_liver"})
    assert np.array_equal(read_image(result)[0] > 0, liver > 0)
    assert params["given"] == ["liver"]
