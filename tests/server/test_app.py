"""The app in process: MONAI Label's own class loading and a real datastore, the real cascade with the demo models."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import MONAILabelException
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import KNOWN_LABEL_NAMES, Compartment, Structure, structure_mask
from flrplan.cohort import SyntheticCase
from flrplan.errors import SettingsError
from flrplan.image import Geometry
from flrplan.method import PAPER_STAGES
from flrplan.nnunet.model import StagePredictor


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, make_studies: Callable[[Path], Path], make_app: Callable[..., Any]) -> Any:
    return make_app(make_studies(tmp_path_factory.mktemp("app") / "studies"), {"device": "cpu"})


@pytest.fixture
def infer(app: Any) -> Any:
    """Runs a task; its label file is removed afterwards, as the server does."""
    files: list[str] = []

    def run(model: str, image: str, **request: Any) -> tuple[str, dict[str, Any]]:
        result = app.infer({"model": model, "image": image, **request})
        files.append(result["file"])
        return result["file"], result["params"]

    yield run
    for file in files:
        os.unlink(file)


def test_an_unknown_conf_key_stops_the_start(tmp_path: Path, make_app: Callable[..., Any]) -> None:
    with pytest.raises(SettingsError, match="unknown --conf modells; known are models"):
        make_app(tmp_path, {"modells": "x"})


def test_info_is_what_the_viewers_need(app: Any) -> None:
    info = json.loads(json.dumps(app.info(), allow_nan=False))
    assert info["labels"] == [*KNOWN_LABEL_NAMES, "background"]
    assert info["label_colors"]["resection"] == [220, 40, 40]
    assert set(info["models"]) == {*map(str, PAPER_STAGES), "cascade", "measure", "clicks", "strokes"}
    assert list(info["strategies"]) == ["random", "first", "label_faults", "disagreement", "decision", "diverse"]
    assert list(info["trainers"]) == [*map(str, PAPER_STAGES), "cascade"]
    assert list(info["scoring"]) == ["label_qc", "case_scores"]
    assert set(info["trainers"]["liver"]["config"]) == {"architecture", "start", "epochs", "device"}
    assert info["trainers"]["cascade"]["description"] == "train liver, then crlm, then flr on the final labels"
    assert info["datastore"]["total"] == 2
    assert info["models"].pop("measure")["config"] == {}, "nothing is predicted, so nothing is to be chosen"
    assert info["models"].pop("clicks")["type"] == "deepedit", "OHIF lists it under Point Prompts, 3D Slicer under SmartEdit"
    assert info["models"].pop("strokes")["type"] == "scribbles"
    for name, model in info["models"].items():
        assert (model["type"], model["dimension"]) == ("segmentation", 3), name
        assert set(model["config"]) == {"architecture", "device", "inputs"} | (
            {"plan", "height_cm", "weight_kg", "liver_state"} if name in ("flr", "cascade") else set()
        )
        assert model["config"]["device"][0] == "cpu"
    assert info["models"]["flr_e2e"]["labels"] == {"flr": 1}
    assert info["models"]["crlm"]["config"]["inputs"] == ["predicted", "labels_liver"]
    assert list(info["models"]["cascade"]["labels"].values()) == [1, 2, 3, 4]


def test_the_cascade_answers_with_compartments_and_volumes(
    infer: Callable[..., tuple[str, dict[str, Any]]],
    case: SyntheticCase,
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    file, params = infer("cascade", case.case_id, result_extension=".nrrd", result_dtype="uint8", result_compress=False)
    label, geometry = read_image(file)
    assert geometry.is_same_grid(case.geometry)
    assert label.dtype == np.uint8
    assert params == json.loads(json.dumps(params, allow_nan=False))
    assert params["label_names"] == {"remnant": 1, "resection": 2, "crlm_in_resection": 3, "crlm_in_remnant": 4}
    assert [params["label_names"][n] for n in params["labels_present"]] == sorted(set(np.unique(label).tolist()) - {0})
    assert (params["given"], params["predicted"], params["inputs"]) == ([], ["liver", "crlm", "flr"], "predicted")
    volumes = params["volumes"]
    ml = case.geometry.voxel_volume_ml
    assert volumes["liver_ml"] == pytest.approx(np.count_nonzero(label) * ml, abs=1e-3)
    assert volumes["crlm_ml"] == pytest.approx(np.isin(label, (3, 4)).sum() * ml, abs=1e-3)
    assert volumes["flr_ml"] == pytest.approx(np.isin(label, (1, 4)).sum() * ml, abs=1e-3)
    assert volumes["flr_functional_ml"] == pytest.approx((label == 1).sum() * ml, abs=1e-3)
    assert volumes["flr_fraction"] == pytest.approx((label == 1).sum() / np.isin(label, (1, 2)).sum(), abs=1e-5)
    assert params["demo_models"] is True
    assert "not for patients" in params["notice"]
    assert set(params["models"]) == {"liver", "crlm", "flr"}
    assert all(model["weights_sha256"] for model in params["models"].values())
    assert {"read", "write", "total", "liver_predict", "flr_predict"} <= set(params["seconds"])
    assert (params["assessment"]["sflr_percent"], params["assessment"]["standardised"]) == (None, "not computable")
    known = {"height_cm": "170", "weight_kg": 80, "liver_state": "injured"}
    file, raw = infer("cascade", case.case_id, plan="raw", **known)
    assessment = raw["assessment"]
    assert assessment["sflr_percent"] == pytest.approx(100 * raw["volumes"]["flr_functional_ml"] / 1668.8, rel=1e-3), (
        "test_assessment"
    )
    assert assessment["patient"] == {"height_cm": 170.0, "weight_kg": 80, "height_and_weight": "given"}
    assert {t["liver"] for t in assessment["thresholds"]} == {"injured"}
    assert any("FLR" in line for line in assessment["text"])
    assert (params["plan"], raw["plan"], raw["raw_volumes"]) == ("coherent", "raw", None)
    assert params["raw_volumes"] == raw["volumes"] != params["volumes"]
    assert params["interval"]["text"].startswith("how sure: ")
    assert (params["interval"]["inputs"], raw["interval"]) == ("predicted", None)
    pieces = [ndimage.label(np.isin(of, (2, 3)), np.ones((3, 3, 3)))[1] for of in (label, read_image(file)[0])]
    assert pieces[0] <= 3 < 10 < pieces[1], "the viewers get a plan, the network's own mask on request"


def test_the_demo_model_finds_the_liver(
    infer: Callable[..., tuple[str, dict[str, Any]]],
    case: SyntheticCase,
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    file, params = infer("liver", case.case_id)
    assert file.endswith(".nii.gz")
    found, truth = read_image(file)[0] > 0, structure_mask(case.planning_zyx, Structure.LIVER)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.5
    assert params["label_names"] == {"liver": 1}
    assert params["volumes"]["liver_ml"] == pytest.approx(found.sum() * case.geometry.voxel_volume_ml, abs=1e-3)
    assert params["volumes"]["flr_fraction"] is None
    assert set(params["models"]) == {"liver"}


def test_a_stage_predicts_what_it_needs(infer: Callable[..., tuple[str, dict[str, Any]]], case: SyntheticCase) -> None:
    _, params = infer("crlm", case.case_id)
    assert (params["label_names"], params["predicted"]) == ({"crlm": 1}, ["liver", "crlm"])
    _, params = infer("flr_e2e", case.case_id)
    assert (params["label_names"], params["predicted"]) == ({"flr": 1}, ["flr"])


def test_the_annotators_masks_are_taken(
    app: Any,
    infer: Callable[..., tuple[str, dict[str, Any]]],
    cases: list[SyntheticCase],
    tmp_path: Path,
    write_image: Callable[..., Path],
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    case = cases[1]
    lookup = np.array([0, 8, 8, 5, 5], np.uint8)  # parenchyma 8, tumour 5: structures at odd indices
    file = write_image(tmp_path / "label.nii.gz", lookup[case.planning_zyx], case.geometry)
    app.datastore().save_label(
        case.case_id, str(file), "final", {"label_info": [{"name": "liver", "idx": 8}, {"name": "crlm", "idx": 5}]}
    )
    result, params = infer("cascade", case.case_id, inputs=["labels", "predicted"])
    assert (params["given"], params["predicted"]) == (["liver", "crlm"], ["flr"])
    label = read_image(result)[0]
    assert np.array_equal(label > 0, case.planning_zyx > 0)
    assert np.array_equal(label >= 3, case.planning_zyx >= 3)
    _, params = infer("flr", case.case_id, inputs="labels_liver")
    assert (params["given"], params["predicted"]) == (["liver"], ["crlm", "flr"])


@pytest.mark.parametrize(
    ("request_values", "message"),
    [
        ({"model": "cascade", "inputs": "labels_liver"}, r"has no final label. Draw the liver"),
        (
            {"model": "liver", "inputs": "labels_liver"},
            r"inputs='labels_liver' is not offered by model liver; known are predicted",
        ),
        ({"model": "liver", "device": "tpu"}, r"unknown device 'tpu'"),
        ({"model": "liver", "result_extension": ".dcm"}, r"result_extension must be one of"),
        ({"model": "liver", "image": "nobody"}, r"no image .nobody. in this server's studies"),
    ],
)
def test_a_bad_request_is_an_error_of_the_host_with_our_message(
    app: Any, case: SyntheticCase, request_values: dict[str, str], message: str
) -> None:
    with pytest.raises(MONAILabelException) as caught:
        app.infer({"image": case.case_id, **request_values})
    assert caught.match(message)


def test_next_sample_serves_the_images(app: Any, cases: list[SyntheticCase]) -> None:
    sample = app.next_sample({"strategy": "first"})
    assert sample["id"] in {case.case_id for case in cases}
    assert Path(sample["path"]).is_file()


def test_tasks_share_their_models_and_run_one_at_a_time(app: Any, case: SyntheticCase, infer: Callable[..., Any]) -> None:
    tasks = [task for name, task in app._infers.items() if name != "measure"]  # it has no model
    services = {id(task._service) for task in tasks}
    assert len(services) == 1
    service = next(iter(tasks))._service
    done = threading.Event()
    with service.lock:
        thread = threading.Thread(target=lambda: (infer("liver", case.case_id), done.set()))
        thread.start()
        assert not done.wait(0.5)
    assert done.wait(60)
    thread.join(60)


def test_hidden_and_junk_files_of_a_studies_folder_are_no_images(
    tmp_path: Path, make_studies: Callable[[Path], Path], make_app: Callable[..., Any], cases: list[SyntheticCase]
) -> None:
    studies = make_studies(tmp_path)
    first = studies / f"{cases[0].case_id}.nii.gz"
    first.rename(studies / f"{cases[0].case_id}.NII.GZ")
    for name in (f"._{cases[1].case_id}.nii.gz", ".hidden.nii", "desktop.ini"):
        (studies / name).write_bytes(b"\0\5\26\7 Mac OS X")
    known = {"image": {"ext": ".nii.gz"}, "labels": {}}
    index = {"name": "n", "description": "d", "images_dir": ".", "objects": {f"._{cases[1].case_id}": known}}
    (studies / "datastore_v2.json").write_text(json.dumps(index))  # as a server of before had written it
    app = make_app(studies, {"device": "cpu"})
    ids = {case.case_id for case in cases}
    assert set(app.datastore().list_images()) == ids
    assert {app.next_sample({"strategy": name})["id"] for name in ("first", "random", "random")} <= ids
    labels = studies / "labels" / "final"
    (labels / f"._{cases[1].case_id}.nii.gz").write_bytes(b"\0\5\26\7 Mac OS X")
    app.datastore().refresh()
    assert app.datastore().get_labeled_images() == []
    assert Path(app.datastore().get_image_uri(cases[0].case_id)).name == f"{cases[0].case_id}.NII.GZ"


def test_a_batch_goes_on_past_a_broken_ct_and_ends_with_a_list(
    tmp_path: Path,
    make_studies: Callable[[Path], Path],
    make_app: Callable[..., Any],
    cases: list[SyntheticCase],
    write_image: Callable[..., Path],
) -> None:
    studies = make_studies(tmp_path / "studies")
    (studies / "broken.nii.gz").write_bytes(b"no image")
    app = make_app(studies, {})
    one, other = (case.case_id for case in cases)
    host_default = {"model": "liver", "images": "all", "device": "cuda", "multi_gpu": True, "gpus": "all", "logging": "WARNING"}
    host_default |= {"save_label": True, "label_tag": DefaultLabelTag.ORIGINAL, "max_workers": 1, "max_batch_size": 2}
    label = write_image(tmp_path / "label.nii.gz", cases[0].planning_zyx, cases[0].geometry)
    app.datastore().save_label(
        one, str(label), "original", {"label_info": [{"name": c.label_name, "idx": int(c)} for c in Compartment]}
    )
    (studies / "labels" / "original").chmod(0o750)
    found = app.batch_infer(host_default)
    assert (found["done"], found["skipped"]) == ([other], [one])
    assert list(found["failed"]) == ["broken"]
    assert "broken.nii.gz" in found["failed"]["broken"]
    written = Path(app.datastore().get_label_uri(other, "original"))
    assert stat.S_IMODE(written.stat().st_mode) == 0o640
    assert app.batch_infer(host_default)["done"] == [], "what is done is not done again"
    with pytest.raises(MONAILabelException, match="is no tag"):
        app.batch_infer({**host_default, "label_tag": "../../x"})
    with pytest.raises(MONAILabelException, match="no model 'heart' here"):
        app.batch_infer({**host_default, "model": "heart"})


def test_second_opinions_are_those_of_the_settings_but_for_the_architecture_that_a_client_chose(
    app: Any, case: SyntheticCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.service, "settings", replace(app.service.settings, also=("stunet",)))
    with pytest.raises(MONAILabelException, match=r"^500: second opinion by stunet: no stunet model for stage flr: looked in"):
        app.infer({"model": "cascade", "image": case.case_id})
    with pytest.raises(MONAILabelException, match=r"^500: no stunet model for stage liver: looked in"):
        app.infer({"model": "cascade", "image": case.case_id, "architecture": "stunet"})


def test_another_option_or_an_edit_predicts_only_what_depends_on_it(
    app: Any, infer: Any, case: SyntheticCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer("cascade", case.case_id, inputs="predicted")
    ran: list[str] = []
    original: Callable[..., Any] = StagePredictor._predict

    def counted(self: StagePredictor, *arguments: Any) -> Any:
        ran.append(self.stage.name)
        return original(self, *arguments)

    monkeypatch.setattr(StagePredictor, "_predict", counted)
    for model in ("cascade", "liver", "crlm", "flr"):
        infer(model, case.case_id, inputs="predicted")
    infer("cascade", case.case_id, inputs="predicted", plan="raw")
    assert ran == []
    assert app.service.store.cache.most_bytes == 256_000_000
