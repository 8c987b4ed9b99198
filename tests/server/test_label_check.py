"""Labels as clients submit them: stored as drawn on the grid of the image, or refused with the reason and kept aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flrplan.anatomy import Compartment, Mask, PlanningLabel, Structure, decode_label, structure_mask, to_label_map
from flrplan.cohort import SyntheticCase
from flrplan.errors import LabelError, SettingsError
from flrplan.image import Geometry, read_ct, read_grid
from flrplan.image.segmentation import read_segmentation
from flrplan.server import label_check
from flrplan.server.annotations import given_masks
from flrplan.server.client_error import ClientError
from flrplan.server.label_check import last_summary
from flrplan.server.label_table import names_in_setting
from flrplan.server.options import Inputs
from flrplan.server.settings import AppSettings
from flrplan.server.studies import PlanningLocalDatastore, open_studies

PLANNED = (Structure.LIVER, Structure.CRLM, Structure.FLR)


@pytest.fixture
def datastore(tmp_path: Path, make_studies: Callable[[Path], Path]) -> PlanningLocalDatastore:
    return PlanningLocalDatastore(str(make_studies(tmp_path / "studies")))


@pytest.fixture
def drawn(case: SyntheticCase) -> dict[str, Mask]:
    return {s.value: structure_mask(case.planning_zyx, s) for s in PLANNED}


def test_what_slicer_draws_in_layers_is_stored_on_the_grid_of_the_image(
    datastore: PlanningLocalDatastore,
    case: SyntheticCase,
    drawn: dict[str, Mask],
    write_slicer: Callable[..., Path],
    tmp_path: Path,
) -> None:
    file = write_slicer(
        tmp_path / "up.seg.nrrd", case.geometry, {"Liver": drawn["liver"], "CRLM": drawn["crlm"], "FLR": drawn["flr"]}
    )
    sent = {
        "label_info": [{"name": n, "idx": i} for i, n in enumerate(("Liver", "CRLM", "FLR"), 1)]
    }  # not the values in the file
    datastore.save_label(case.case_id, str(file), "final", sent)
    stored = read_segmentation(Path(datastore.get_label_uri(case.case_id, "final")))
    assert stored.geometry.is_same_grid(case.geometry)
    given = given_masks(datastore, case.case_id, read_ct(Path(datastore.get_image_uri(case.case_id))), Inputs.LABELS)
    for structure, mask in given.items():
        assert np.array_equal(mask, drawn[structure.value])
    info = datastore.get_label_info(case.case_id, "final")
    assert [e["name"] for e in info["label_info"]] == ["liver", "crlm", "flr"]
    ml = case.geometry.voxel_volume_ml
    summary = last_summary(case.case_id)
    assert summary == info["flrplan"]
    assert summary["volumes"]["crlm_ml"] == pytest.approx(drawn["crlm"].sum() * ml, abs=1e-3)
    remnant, parenchyma = (drawn["flr"] & ~drawn["crlm"]).sum(), (drawn["liver"] & ~drawn["crlm"]).sum()
    assert summary["volumes"]["flr_fraction"] == pytest.approx(remnant / parenchyma, abs=1e-4)
    assert summary["warnings"] == []
    assert last_summary("another") == {}


def test_a_good_file_is_stored_byte_by_byte_and_says_what_it_lacks(
    datastore: PlanningLocalDatastore,
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    tmp_path: Path,
    write_image: Callable[..., Path],
) -> None:
    label = liver.astype(np.uint8)
    label[0, 0, 0] = 2  # a tumour in the corner of the image
    file = write_image(tmp_path / "up.nii.gz", label, case.geometry)
    names = [{"name": n, "idx": i} for i, n in enumerate(("Liver", "flr", "lrs", "background"), 1)]
    datastore.save_label(case.case_id, str(file), "final", {"label_info": names})
    assert Path(datastore.get_label_uri(case.case_id, "final")).read_bytes() == file.read_bytes()
    assert last_summary(case.case_id)["warnings"] == [
        "lrs is named and has no voxels: it says that there is none",
        "nothing is said of crlm: not drawn, and not named either",
    ]
    crlm = [{"name": "crlm", "idx": 2}, {"name": "liver", "idx": 7}]
    file = write_image(tmp_path / "up.nii.gz", np.where(label == 1, 7, label), case.geometry)
    datastore.save_label(case.case_id, str(file), "final", {"label_info": crlm})
    assert last_summary(case.case_id)["warnings"] == ["nothing is said of flr: not drawn, and not named either"]


Bad = tuple[dict[str, int] | None, str]


@pytest.mark.parametrize(
    ("kind", "names", "message"),
    [
        ("good", {"spleen": 1}, r"unknown label names \['spleen'\]; known are liver.* Rename or delete these segments\."),
        ("good", {"remnant": 1}, "the compartments remnant alone do not state any structure"),
        ("good", {"liver": 2}, r"voxels of value \[1\] have no name"),
        ("good", None, "no label names came with it; send label_info"),
        ("good", {"liver": 1, "crlm": 1}, "an index of its own"),
        ("short", {"liver": 1}, "is not on the grid of image synth"),
        ("nothing drawn", {"liver": 1}, "has no voxels; draw at least one structure"),
        ("fractions", {"liver": 1}, "expected whole numbers as labels"),
        ("junk", {"liver": 1}, "the label of synth-11-0000: "),
        ("0 bytes", {"liver": 1}, "the label of synth-11-0000: "),
        ("crlm and flr", {"liver": 1, "crlm": 2, "flr": 3}, "does not say on which side of the cut the tumour lies"),
    ],
)
def test_what_an_inference_would_refuse_is_refused_and_kept_aside(
    datastore: PlanningLocalDatastore,
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    tmp_path: Path,
    write_image: Callable[..., Path],
    kind: str,
    names: dict[str, int] | None,
    message: str,
) -> None:
    before = write_image(tmp_path / "before.nii.gz", liver * np.uint8(1), case.geometry)
    datastore.save_label(case.case_id, str(before), "final", {"label_info": [{"name": "liver", "idx": 1}]})
    label, grid = liver.astype(np.float32 if kind == "fractions" else np.uint8), case.geometry
    if kind == "short":
        label, grid = (
            label[:, :, :-1],
            grid.crop((slice(0, label.shape[0]), slice(0, label.shape[1]), slice(0, label.shape[2] - 1))),
        )
    label *= {"nothing drawn": 0, "fractions": 0.5}.get(kind, 1)  # type: ignore[arg-type]
    if kind == "crlm and flr":
        label[0, 0, :2] = 2, 3
    file = write_image(tmp_path / "up.nii.gz", label, grid)
    if kind in ("junk", "0 bytes"):
        file.write_bytes(b"not an image" * (kind == "junk"))
    info = {} if names is None else {"label_info": [{"name": n, "idx": i} for n, i in names.items()]}
    with pytest.raises(ClientError, match=message) as refused:
        datastore.save_label(case.case_id, str(file), "final", info)
    assert refused.value.status_code == 400
    assert "Nothing was stored; the label before, if any, is untouched." in refused.value.detail
    assert Path(datastore.get_label_uri(case.case_id, "final")).read_bytes() == before.read_bytes()
    assert len(list((tmp_path / "studies" / "labels").rglob("*.nii.gz"))) == 1
    kept = Path(refused.value.detail.split("The upload is kept as ")[1].rstrip("."))
    assert kept.is_relative_to(tmp_path / "studies" / "refused")
    assert kept.read_bytes() == file.read_bytes()
    assert json.loads((kept.parent / "why.json").read_text())["info"] == info
    assert last_summary(case.case_id) == {}


def test_whatever_goes_wrong_in_the_check_the_upload_is_kept(
    datastore: PlanningLocalDatastore,
    case: SyntheticCase,
    tmp_path: Path,
    write_image: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(path: Path) -> None:
        raise MemoryError("no room for it")

    monkeypatch.setattr(label_check, "read_segmentation", fail)
    file = write_image(tmp_path / "up.nii.gz", case.planning_zyx, case.geometry)
    with pytest.raises(ClientError, match=r"could not be read \(MemoryError: no room for it\)\. Nothing was stored") as refused:
        datastore.save_label(case.case_id, str(file), "final", {})
    assert Path(refused.value.detail.split("kept as ")[1].rstrip(".")).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("info", [[1], {"label_info": 5}, {"label_info": "liver"}, {"label_info": [["liver", 1]]}])
def test_params_that_are_no_label_info_are_told(
    datastore: PlanningLocalDatastore, case: SyntheticCase, tmp_path: Path, write_image: Callable[..., Path], info: Any
) -> None:
    file = write_image(tmp_path / "up.nii.gz", case.planning_zyx, case.geometry)
    with pytest.raises(ClientError, match=r"expected params like|needs a name and an idx"):
        datastore.save_label(case.case_id, str(file), "final", info)


def test_a_label_of_an_unknown_image_is_kept_too(
    datastore: PlanningLocalDatastore, case: SyntheticCase, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    file = write_image(tmp_path / "up.nii.gz", case.planning_zyx, case.geometry)
    with pytest.raises(
        ClientError, match=r"no image 'nobody' in this server's studies; ask /datastore/ for the ids\. Nothing was stored"
    ):
        datastore.save_label("nobody", str(file), "final", {})
    assert len(list((tmp_path / "studies" / "refused").glob("*/label.nii.gz"))) == 1


def test_layers_become_one_label_map_where_one_can_say_the_same(case: SyntheticCase, drawn: dict[str, Mask]) -> None:
    label = PlanningLabel({s: drawn[s.value] for s in PLANNED})
    array, names = to_label_map(label, "x")
    assert np.array_equal(array, case.planning_zyx)
    assert names == {c.label_name: int(c) for c in Compartment}
    two = PlanningLabel({s: drawn[s.value] for s in PLANNED[:2]})
    array, names = to_label_map(two, "x")
    assert np.array_equal(decode_label(array, names, "x").masks[Structure.LIVER], drawn["liver"])
    outside = PlanningLabel({Structure.LIVER: drawn["liver"], Structure.CRLM: ~drawn["liver"]})
    with pytest.raises(LabelError, match="x: its segments overlap in a way that one label map cannot say"):
        to_label_map(outside, "x")


def test_a_grid_is_read_from_the_header_alone(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    grid = Geometry((5, 4, 3), (0.7, 0.8, 2.5), (1.0, 2.0, 3.0))
    path = write_image(tmp_path / "ct.nrrd", np.zeros(grid.shape_zyx, np.int16), grid)
    assert read_grid(path).is_same_grid(grid)
    path.write_bytes(path.read_bytes()[:-8])
    assert read_grid(path).is_same_grid(grid), "the voxels are not read"


def test_a_file_that_was_copied_into_the_labels_is_used_where_its_names_are_known(
    tmp_path: Path,
    make_studies: Callable[[Path], Path],
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    write_image: Callable[..., Path],
    write_slicer: Callable[..., Path],
) -> None:
    studies = make_studies(tmp_path / "studies")
    ct = read_ct(studies / f"{case.case_id}.nii.gz")
    copied = write_image(studies / "labels" / "final" / f"{case.case_id}.nii.gz", liver * np.uint8(3), case.geometry)
    with pytest.raises(
        LabelError, match=rf"no label names came with it.*curl -X PUT 'SERVER/datastore/label\?image={case.case_id}&tag"
    ):
        open_studies(str(studies)).final_label(case.case_id, ct)
    named = open_studies(str(studies), names_in_setting("Liver=3, crlm=5")).final_label(case.case_id, ct)
    assert named is not None
    assert np.array_equal(named.masks[Structure.LIVER], liver)
    assert not named.masks[Structure.CRLM].any()
    copied.unlink()
    write_slicer(copied.with_name(f"{case.case_id}.seg.nrrd"), case.geometry, {"liver": liver})
    own = open_studies(str(studies)).final_label(case.case_id, ct)
    assert own is not None
    assert np.array_equal(own.masks[Structure.LIVER], liver), "its header names it"


@pytest.mark.parametrize("text", ["liver", "liver=x", "spleen=1", "liver=0", "liver=1,crlm=1"])
def test_label_names_that_say_nothing_stop_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match=r"label_names: expected NAME=VALUE"):
        AppSettings.from_conf({"label_names": text})
