"""The real server on a folder of studies, seen through MONAI Label's own client (3D Slicer uses the same one)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException
from numpy.typing import NDArray

from flrplan.anatomy import APPEARANCE, KNOWN_LABEL_NAMES, Compartment
from flrplan.cohort import SyntheticCase
from flrplan.image import Geometry
from flrplan.method import PAPER_STAGES

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server(plain: Any) -> Any:
    return plain


@pytest.fixture
def client(server: Any, show_log_on_failure: Callable[[Any], None]) -> MONAILabelClient:
    show_log_on_failure(server)
    return server.client


def test_info_names_the_app_and_its_tasks(client: MONAILabelClient) -> None:
    info = client.info()
    assert info["name"] == "FLR planning"
    assert info["labels"] == [*KNOWN_LABEL_NAMES, "background"]
    assert set(info["models"]) == {*map(str, PAPER_STAGES), "cascade", "measure", "clicks", "strokes"}
    assert info["datastore"]["total"] == 2


@pytest.mark.parametrize("strategy", ["random", "first"])
def test_next_sample_is_one_of_the_images(client: MONAILabelClient, cases: list[SyntheticCase], strategy: str) -> None:
    sample = client.next_sample(strategy, {})
    assert sample["id"] in {case.case_id for case in cases}
    assert Path(sample["path"]).is_file()


@pytest.mark.parametrize("model", [*map(str, PAPER_STAGES), "cascade"])
def test_each_task_answers_on_the_grid_of_the_image(
    client: MONAILabelClient,
    case: SyntheticCase,
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
    model: str,
) -> None:
    file, params = client.infer(model, case.case_id, {"result_extension": ".nrrd", "result_dtype": "uint8"})
    label, geometry = read_image(file)
    assert geometry.is_same_grid(case.geometry)
    assert set(np.unique(label).tolist()) <= {0, *params["label_names"].values()}
    assert params["demo_models"] is True
    assert params["volumes"]["flr_ml" if model.startswith("flr") else "liver_ml"] is not None


def test_a_liver_saved_at_index_3_is_the_liver_of_the_cascade(
    client: MONAILabelClient,
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    tmp_path: Path,
    write_image: Callable[..., Path],
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    file = write_image(tmp_path / "liver.nii.gz", liver.astype(np.uint8) * 3, case.geometry)
    info = {"label_info": [{"name": "crlm", "idx": 1}, {"name": "liver", "idx": 3}]}
    saved = client.save_label(case.case_id, str(file), params=info)
    assert saved["label"] == case.case_id
    assert saved["volumes"]["liver_ml"] == pytest.approx(liver.sum() * case.geometry.voxel_volume_ml, abs=1e-3)
    assert saved["warnings"] == [
        "crlm is named and has no voxels: it says that there is none",
        "nothing is said of flr: not drawn, and not named either",
    ]
    result, params = client.infer("cascade", case.case_id, {"inputs": "labels_liver"})
    label, geometry = read_image(result)
    assert geometry.is_same_grid(case.geometry)
    assert np.array_equal(label > 0, liver)
    assert (params["given"], params["predicted"]) == (["liver"], ["crlm", "flr"])
    assert client.info()["datastore"]["completed"] == 1


def test_a_missing_label_is_told_to_the_client(client: MONAILabelClient, cases: list[SyntheticCase]) -> None:
    with pytest.raises(MONAILabelClientException) as caught:
        client.infer("cascade", cases[1].case_id, {"inputs": "labels"})
    assert "Status: 400" in caught.value.msg
    assert f"image {cases[1].case_id} has no final label. Draw the liver" in caught.value.msg


def test_a_label_that_no_inference_could_use_is_refused_at_once(
    client: MONAILabelClient, cases: list[SyntheticCase], tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    file = write_image(tmp_path / "label.nii.gz", cases[1].planning_zyx, cases[1].geometry)
    with pytest.raises(MONAILabelClientException) as caught:
        client.save_label(cases[1].case_id, str(file), params={"label_info": [{"name": "spleen", "idx": 1}]})
    assert "Status: 400" in caught.value.msg
    assert "unknown label names ['spleen']; known are liver" in caught.value.msg
    assert "The upload is kept as" in caught.value.msg
    assert (
        requests.get(f"{client._server_url}/datastore/?output=all", timeout=30).json()["objects"][cases[1].case_id]["labels"]
        == {}
    )


def test_an_unknown_image_is_told_to_the_client(client: MONAILabelClient) -> None:
    with pytest.raises(MONAILabelClientException) as caught:
        client.infer("liver", "nobody", {})
    assert "no image 'nobody' in this server's studies" in caught.value.msg


def test_what_ohif_posts(server: Any, case: SyntheticCase, tmp_path: Path, read_image: Callable[..., Any]) -> None:
    posted = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False}
    posted["architecture"] = ["nnunet"]
    url = f"{server.url}/infer/cascade?image={case.case_id}&output=image"
    answer = requests.post(url, data={"params": json.dumps(posted)}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert b"encoding: raw" in answer.content[:2000]
    file = tmp_path / "ohif.nrrd"
    file.write_bytes(answer.content)
    label, geometry = read_image(file)
    assert label.dtype == np.uint8
    assert geometry.is_same_grid(case.geometry)


def test_ohif_gets_our_colours_with_the_configuration_that_the_host_ships(server: Any) -> None:
    config = requests.get(f"{server.url}/ohif/app-config.js", timeout=30)
    shipped = requests.get(f"{server.url}/static/ohif/app-config.js", timeout=30).text
    assert config.headers["content-type"].startswith("application/javascript")
    assert config.text.startswith(shipped)
    assert "routerBasename: '/ohif/'" in shipped
    colors = json.loads(re.search(r"const wanted = (\{.*?\}), ", config.text).group(1))  # type: ignore[union-attr]
    assert set(colors) == set(KNOWN_LABEL_NAMES)
    assert colors[Compartment.REMNANT.label_name] == list(APPEARANCE[Compartment.REMNANT].rgb)
    assert "<html" in requests.get(f"{server.url}/ohif/", timeout=30).text


@pytest.mark.parametrize(("params", "says"), [("{", "params is no JSON"), ("[1]", "params must be names with values")])
def test_options_that_are_no_json_are_refused_with_the_reason(server: Any, case: SyntheticCase, params: str, says: str) -> None:
    answer = requests.post(f"{server.url}/infer/clicks?image={case.case_id}", data={"params": params}, timeout=30)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]


def test_the_server_keeps_no_result_files(server: Any) -> None:
    assert list((server.folder / "tmp").glob("flrplan_*")) == []
