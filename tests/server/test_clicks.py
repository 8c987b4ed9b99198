"""The tasks ``clicks`` and ``strokes``: what OHIF and 3D Slicer send, and what they are answered."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import SimpleITK as sitk
from fastapi import HTTPException
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import KNOWN_LABEL_NAMES, Compartment, Structure, structure_mask
from flrplan.cohort import SyntheticCase
from flrplan.errors import LabelError
from flrplan.files import link
from flrplan.image import CT, Geometry
from flrplan.server.clicks import STROKES, _marks, _points
from flrplan.server.current import Current
from flrplan.server.ohif_clicks import CLICKS
from flrplan.server.ohif_colors import ohif_config

ANNA, BEN = ("anna", "correct horse"), ("ben", "battery staple")
COMPARTMENTS = [{"name": c.label_name, "idx": int(c)} for c in Compartment]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, make_studies: Callable[[Path], Path], make_app: Callable[..., Any]) -> Any:
    return make_app(make_studies(tmp_path_factory.mktemp("clicks") / "studies"), {"device": "cpu"})


@pytest.fixture(scope="module")
def drawn(case: SyntheticCase) -> NDArray[np.uint8]:
    """The true plan without its largest metastasis: what a person submitted."""
    crlm = structure_mask(case.planning_zyx, Structure.CRLM)
    largest = _largest(crlm)
    left = case.planning_zyx.copy()
    left[largest & (left == Compartment.CRLM_IN_RESECTION)] = Compartment.RESECTION
    left[largest & (left == Compartment.CRLM_IN_REMNANT)] = Compartment.REMNANT
    return left


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    return np.asarray(parts == np.bincount(parts.ravel())[1:].argmax() + 1)


def _middle(mask: NDArray[np.bool_]) -> list[int]:
    """Column, row and slice of the deepest voxel."""
    z, y, x = np.unravel_index(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1].argmax(), mask.shape)
    return [int(x), int(y), int(z)]


@pytest.fixture
def submitted(
    app: Any, case: SyntheticCase, drawn: NDArray[np.uint8], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_image(tmp_path / "drawn.nii.gz", drawn, case.geometry)
    app.datastore().save_label(case.case_id, str(file), "final", {"label_info": COMPARTMENTS})


@pytest.fixture
def ask(app: Any, case: SyntheticCase) -> Iterator[Callable[..., tuple[NDArray[np.uint8], dict[str, Any]]]]:
    files: list[str] = []

    def run(model: str = CLICKS, **request: Any) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        found = app.infer({"model": model, "image": case.case_id, "result_extension": ".nrrd", **request})
        files.append(found["file"])
        return sitk.GetArrayFromImage(sitk.ReadImage(found["file"])), found["params"]

    yield run
    for file in files:
        os.unlink(file)


def test_a_click_adds_a_metastasis_and_one_on_the_background_takes_it_away(
    ask: Callable[..., Any], submitted: None, case: SyntheticCase, drawn: NDArray[np.uint8]
) -> None:
    point = _middle(_largest(structure_mask(case.planning_zyx, Structure.CRLM)))
    label, params = ask(crlm=[point], background=[])  # as OHIF sends it
    assert label[tuple(point[::-1])] in (3, 4)
    assert params["label_names"] == {c.label_name: int(c) for c in Compartment}
    assert (params["corrected"], params["changed_ml"]["liver"]) == ("the final label", 0)
    assert params["changed_ml"]["crlm"] > 0
    assert params["volumes"]["crlm_ml"] > 0
    assert params["models"] == {}, "nothing was predicted"
    slicer = {name: [] for name in (*KNOWN_LABEL_NAMES, "background")}  # 3D Slicer sends every list
    again, params = ask(**{**slicer, "crlm": [point]}, label="crlm", start=["last", "label", "prediction"], reset_state=True)
    assert np.array_equal(again, label)
    assert "nothing changed" in params["warnings"][0]
    gone, _ = ask(background=[point], crlm=[])
    assert gone[tuple(point[::-1])] in (1, 2)
    same, params = ask(background=[point], liver=[point])
    assert np.array_equal(same, gone), "what a click once took away is no liver's border later"
    kept, params = ask()
    assert np.array_equal(kept, gone)
    assert "no clicks were sent" in params["warnings"][0]
    afresh, _ = ask(start="label")
    assert np.array_equal(afresh, drawn)


def test_foreground_and_background_belong_to_the_label_that_is_named(
    ask: Callable[..., Any], submitted: None, case: SyntheticCase
) -> None:
    point = _middle(_largest(structure_mask(case.planning_zyx, Structure.CRLM)))
    label, _ = ask(foreground=[point], background=[], start="label")
    assert label[tuple(point[::-1])] in (3, 4)
    label, _ = ask(foreground=[], background=[point], label="crlm")
    assert label[tuple(point[::-1])] in (1, 2)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"crlm": [[1000, 0, 0]]}, "lies beside the image"),
        ({"crlm": [[0, 0, 0]]}, "lies outside the liver"),
        ({"null": [[1, 2, 3]], "background": []}, "no label was chosen: choose one in the list"),
        ({"spleen": [[1, 2, 3]]}, "'spleen' is no label here; known are liver, crlm"),
        ({"crlm": "[[1, 2"}, "expected voxels as"),
        ({"crlm": {"x": 1}}, "expected voxels as"),
        ({"crlm": [[5, 5, 5]], "background": [[5, 5, 5]]}, "is marked as inside and as outside of crlm"),
        ({"start": "yesterday"}, "start='yesterday' is not offered"),
        ({"foreground": [[1, 2, 3]], "label": "spleen"}, "label='spleen' is no label here"),
    ],
)
def test_bad_clicks_are_refused_with_the_reason(
    ask: Callable[..., Any], submitted: None, request_: dict[str, Any], says: str
) -> None:
    with pytest.raises(HTTPException) as told:
        ask(**{"start": "label", **request_})
    assert told.value.status_code == 400
    assert says in told.value.detail


@pytest.fixture
def upload(case: SyntheticCase) -> Iterator[Callable[..., dict[str, Any]]]:
    """A label map with strokes as 3D Slicer sends it: segments numbered in their order, strokes last, over what is beneath."""
    made: list[str] = []

    def send(
        label: NDArray[np.uint8],
        inside: Sequence[Sequence[int]] = (),
        outside: Sequence[Sequence[int]] = (),
        names: Sequence[str] = (),
    ) -> dict[str, Any]:
        segments = [c.label_name for c in Compartment] if not names else list(names)
        painted = label.copy()
        for value, strokes in ((len(segments) + 1, outside), (len(segments) + 2, inside)):
            for z, y, x in strokes:
                painted[z, y, x] = value
        with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as file:
            made.append(file.name)
        sitk.WriteImage(case.geometry.image(painted), file.name)
        names = [*segments, "background_scribbles", "foreground_scribbles"]
        return {"label": file.name, "label_info": [{"name": n, "id": i} for i, n in enumerate(names, 1)], "roi": []}

    yield send
    for name in made:
        os.unlink(name)


def test_strokes_move_the_liver_and_the_answer_is_the_painted_segment(
    ask: Callable[..., Any], upload: Callable[..., Any], case: SyntheticCase, submitted: None
) -> None:
    whole = case.planning_zyx
    liver = whole > 0
    columns = np.flatnonzero(liver.any((0, 1)))
    cut = whole.copy()
    cut[:, :, columns[0] : columns[0] + 4] = 0
    missing = liver & (cut == 0)
    x, y, z = _middle(missing)
    stroke = [(z, y + d, x) for d in (-1, 0, 1) if missing[z, y + d, x]]
    answer, params = ask(STROKES, selected_label_name="liver", **upload(cut, inside=stroke))
    assert params["label_names"] == {"liver": 1}
    assert set(np.unique(answer)) == {0, 1}
    assert (answer > 0)[cut > 0].all()
    assert answer[z, y, x] == 1
    assert params["corrected"] == "the segments that were sent"
    plan, params = ask()
    assert np.array_equal(plan > 0, answer > 0), "SmartEdit's Update shows the whole plan after strokes"
    plan, _ = ask(STROKES, selected_label_name="liver", answer="plan", **upload(cut, inside=stroke))
    assert set(np.unique(plan)) >= {0, 1, 2}


def test_strokes_of_a_compartment_move_the_cut(
    ask: Callable[..., Any], upload: Callable[..., Any], case: SyntheticCase, submitted: None
) -> None:
    x, y, z = _middle(case.planning_zyx == Compartment.REMNANT)
    near_cut = (case.planning_zyx == Compartment.REMNANT) & (
        ndimage.distance_transform_edt(case.planning_zyx != Compartment.RESECTION) <= 2
    )
    z, y, x = np.argwhere(near_cut)[near_cut.sum() // 2]
    answer, _ = ask(STROKES, selected_label_name="resection", **upload(case.planning_zyx, inside=[(z, y, x)]))
    assert answer[z, y, x] == 1
    assert answer[case.planning_zyx == Compartment.RESECTION].all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "there are no strokes: paint inside with foreground_scribbles"),
        ({"label": "/etc/passwd"}, "no strokes were sent"),
        ({"label": None}, "no strokes were sent"),
        ({"label_info": "x"}, "label_info: expected the names"),
        ({"selected_label_name": "spleen"}, "expected the segment that is painted"),
    ],
)
def test_bad_strokes_are_refused_with_the_reason(
    ask: Callable[..., Any], upload: Callable[..., Any], case: SyntheticCase, submitted: None, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(HTTPException) as told:
        ask(STROKES, **{"selected_label_name": "liver", **upload(case.planning_zyx), **change})
    assert told.value.status_code == 400
    assert says in told.value.detail


def test_without_a_label_the_last_prediction_is_corrected(app: Any, cases: list[SyntheticCase]) -> None:
    other = cases[1]
    asked = {"image": other.case_id, "result_extension": ".nrrd"}
    first = app.infer({"model": "cascade", **asked})
    predicted = sitk.GetArrayFromImage(sitk.ReadImage(first["file"]))
    tumours = predicted >= Compartment.CRLM_IN_RESECTION
    point = _middle(_largest(tumours)) if tumours.any() else _middle(predicted > 0)
    found = app.infer({"model": CLICKS, "background" if tumours.any() else "crlm": [point], **asked})
    label = sitk.GetArrayFromImage(sitk.ReadImage(found["file"]))
    assert found["params"]["corrected"] == "the prediction"
    assert found["params"]["demo_models"]
    assert (label[tuple(point[::-1])] >= Compartment.CRLM_IN_RESECTION) != tumours.any()
    assert (
        app.service.current.of(
            {"flrplan_image_id": other.case_id}, Path(app.datastore().get_image_uri(other.case_id))
        ).probability
        is not None
    )
    for result in (first, found):
        os.unlink(result["file"])


def test_an_export_that_links_the_image_or_a_copy_of_it_in_its_place_leaves_the_corrections(
    app: Any, ask: Callable[..., Any], submitted: None, case: SyntheticCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Path(app.datastore().get_image_uri(case.case_id))
    point = _middle(_largest(structure_mask(case.planning_zyx, Structure.CRLM)))
    corrected, _ = ask(crlm=[point])
    link(image, tmp_path / "images" / image.name)
    after_export, params = ask()
    assert np.array_equal(after_export, corrected)
    assert [w for w in params["warnings"] if "replaced" in w] == []
    shutil.copyfile(image, tmp_path / "copy")
    (tmp_path / "copy").replace(image)
    assert np.array_equal(ask()[0], corrected)
    monkeypatch.setattr("flrplan.server.clicks.read_ct", None)
    assert np.array_equal(ask()[0], corrected), "where nothing changed, nothing is read"


def test_a_ct_that_is_replaced_between_two_clicks_is_what_the_second_one_sees(
    tmp_path: Path,
    make_app: Callable[..., Any],
    case: SyntheticCase,
    drawn: NDArray[np.uint8],
    write_image: Callable[..., Path],
) -> None:
    image = write_image(tmp_path / "studies" / "a patient.1.nii", case.hu_zyx, case.geometry)
    app = make_app(image.parent, {"device": "cpu"})
    label = write_image(tmp_path / "drawn.nii.gz", drawn, case.geometry)
    app.datastore().save_label("a patient.1", str(label), "final", {"label_info": COMPARTMENTS})
    lesion = _largest(structure_mask(case.planning_zyx, Structure.CRLM))
    x, y, z = _middle(lesion)

    def click() -> tuple[NDArray[np.uint8], dict[str, Any]]:
        found = app.infer({"model": CLICKS, "image": "a patient.1", "crlm": [[x, y, z]], "result_extension": ".nrrd"})
        answer = sitk.GetArrayFromImage(sitk.ReadImage(found["file"]))
        os.unlink(found["file"])
        return answer, found["params"]

    before, _ = click()
    assert before[z, y, x] in (3, 4)
    times = image.stat()
    dark = np.where(lesion, -60, case.hu_zyx).astype(case.hu_zyx.dtype)
    write_image(image, dark, case.geometry)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert image.stat().st_size == times.st_size
    after, params = click()
    assert "the image was replaced after your last answer" in params["warnings"][0]
    assert np.count_nonzero((after > 2) & lesion) > np.count_nonzero((before > 2) & lesion)
    image.unlink()
    with pytest.raises(HTTPException) as told:
        click()
    assert told.value.status_code == 400


def test_clicks_over_http_are_those_of_who_signed_in_and_bad_ones_say_why(
    served: Any, cases: list[SyntheticCase], read_image: Callable[..., Any], tmp_path: Path
) -> None:
    def click(who: tuple[str, str], **clicks: Any) -> requests.Response:
        params = json.dumps({"result_extension": ".nrrd", "client_id": "somebody", **clicks})
        path = f"/infer/clicks?image={cases[1].case_id}&output=image"
        return served.ask("POST", path, data={"params": params}, auth=who)  # type: ignore[no-any-return]

    def label(answer: requests.Response) -> NDArray[np.uint8]:
        assert answer.status_code == 200, answer.text
        file = tmp_path / "answer.nrrd"
        file.write_bytes(answer.content)
        return read_image(file)[0]  # type: ignore[no-any-return]

    before = label(click(ANNA))
    x, y, z = _middle((before == 1) | (before == 2))
    mine = label(click(ANNA, crlm=[[x, y, z]]))
    assert mine[z, y, x] in (3, 4)
    assert np.array_equal(label(click(BEN)), before), "anna's click is not ben's"
    assert np.array_equal(label(click(ANNA)), mine)
    for clicks, says in (
        ({"crlm": [[x, y, z]], "remnant": [[x, y, z]]}, "is marked as inside and as outside of crlm"),
        ({"crlm": [[x, y, before.shape[0]]]}, "lies beside the image"),
        ({"crlm": [[x, y, -1]]}, "lies beside the image"),
        ({"crlm": [[x + 0.5, y, z]]}, "whole numbers from 0; point 1 is"),
        ({"crlm": [["1", "2", "3"]]}, "whole numbers from 0; point 1 is"),
        ({"crlm": [[float("nan"), y, z]]}, "params is not plain JSON"),
    ):
        refused = click(ANNA, **clicks)
        assert (refused.status_code, says in refused.json()["detail"]) == (400, True), (says, refused.text[:300])
    assert click(ANNA, liver=np.argwhere(before == 0).tolist()).status_code == 413
    assert np.array_equal(label(click(ANNA)), mine), "what was refused changed nothing"


def test_ohif_is_told_the_task_and_the_compartments_of_its_answer() -> None:
    config = ohif_config("")
    assert r"/\/infer\/clicks(\?|$)/" in config
    assert '{"remnant": 1, "resection": 2, "crlm_in_resection": 3, "crlm_in_remnant": 4}' in config


def test_labels_that_are_clicked_beside_foreground_count_too() -> None:
    label = np.zeros((4, 5, 6), np.uint8)
    current = Current(CT(label.astype(np.int16), Geometry((6, 5, 4), (1.0, 1.0, 2.0)), "case", "case"), label, "a test", "")
    marks, _ = _marks({"foreground": [], "crlm": [[5, 4, 3]]}, None, current)
    assert marks[Structure.CRLM].inside.tolist() == [[3, 4, 5]]


def test_clicks_under_two_spellings_of_a_label_all_count() -> None:
    assert _points({"CRLM": [[1, 1, 1]], "crlm": [[2, 2, 2]]}) == {"crlm": [[1, 1, 1], [2, 2, 2]]}


def test_a_list_too_deep_to_be_read_is_told() -> None:
    with pytest.raises(LabelError, match="crlm: expected voxels"):
        _points({"crlm": "[" * 100_000})
