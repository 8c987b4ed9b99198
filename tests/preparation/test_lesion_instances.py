"""Tumours told apart: of the SEG, and of refined labels by the nearest original tumour."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.errors import LabelError, SettingsError
from flrplan.image import Geometry
from flrplan.metrics.region import Region
from flrplan.preparation import Prepared, PrepareSettings, SourceKind, find_tcia_cases, prepare, read_layout
from flrplan.preparation.folder import image_sources, with_labels, with_original_tumours
from flrplan.preparation.lesion_instances import nearest_instances, tumour_numbers
from flrplan.preparation.listing import listing
from flrplan.preparation.sources import InstanceSource
from flrplan.workfolder import layer_paths, read_instances

CASE = "CRLM-CT-1001"
SPACING = (2.5, 0.9, 0.8)
SHAPE = (8, 16, 16)
LAYOUT = Path(__file__).resolve().parents[2] / "benchmark/layouts/refined.yaml"


def line(y: int, *xs: int, z: int = 3) -> Region:
    mask = np.zeros(SHAPE, bool)
    mask[z, y, list(xs)] = True
    return Region.of(mask, SPACING)


def voxels(region: Region) -> list[tuple[int, int, int]]:
    return [tuple(map(int, v + np.array(region.start_zyx))) for v in np.argwhere(region.crop_zyx)]


def divided(crlm: Region, original: dict[int, Region], distance: float = 10.0) -> tuple[dict[int, Any], list[str]]:
    found, notes = nearest_instances(crlm, original, distance)
    return {n: [v[2] for v in voxels(r)] for n, r in found.items()}, notes


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({2: "Tumor_3", 5: "tumour 1"}, {2: 3, 5: 1}),
        ({2: "Tumor", 5: "Tumor_1"}, {2: 1, 5: 2}),  # one without a number
        ({2: "Tumor_1", 5: "Tumor_1"}, {2: 1, 5: 2}),  # one number twice
        ({2: "Tumor_0", 5: "Tumor_400"}, {2: 1, 5: 2}),  # no label value
    ],
)
def test_numbers_are_those_of_the_labels_where_they_can_be(labels: dict[int, str], expected: dict[int, int]) -> None:
    assert tumour_numbers(labels) == expected


def test_each_voxel_goes_to_the_nearest_tumour_and_a_tie_to_the_lower_number() -> None:
    original = {2: line(5, 2, 3), 4: line(5, 9)}  # between 3 and 9, voxel 6 is 3 steps from both
    assert divided(line(5, *range(2, 11)), original) == ({2: [2, 3, 4, 5, 6], 4: [7, 8, 9, 10]}, [])


def test_the_distance_is_in_mm_not_in_voxels() -> None:
    # One slice up is 2.5 mm, two columns aside 1.6 mm.
    above, aside = line(5, 5, z=4), line(5, 7)
    assert list(divided(line(5, 5), {1: above, 2: aside})[0]) == [2]


def test_a_voxel_in_two_overlapping_tumours_stays_in_both() -> None:
    found, _ = divided(line(5, *range(2, 8)), {1: line(5, 2, 3, 4), 2: line(5, 4, 5)})
    assert found == {1: [2, 3, 4], 2: [4, 5, 6, 7]}


def test_a_piece_far_from_every_tumour_is_a_lesion_of_its_own_and_a_near_one_belongs() -> None:
    original = {1: line(5, 1), 3: line(5, 2)}
    crlm = line(5, 1, 6, 14, 15)  # pieces 0, 4 x 0.8 = 3.2 and 9.6 mm from a tumour
    assert divided(crlm, original, 10.0) == ({1: [1], 3: [6, 14, 15]}, [])
    found, notes = divided(crlm, original, 3.2)  # exactly as far is not farther
    assert found == {1: [1], 3: [6], 4: [14, 15]}
    assert notes == ["1 pieces farther than 3.2 mm from every original tumour are lesions of their own"]
    found, notes = divided(crlm, original, 3.1)
    assert found == {1: [1], 4: [6], 5: [14, 15]}
    assert notes[0] == "original tumours without a voxel left: 3"


def test_a_piece_that_touches_a_tumour_belongs_to_its_last_voxel() -> None:
    assert divided(line(5, *range(1, 15)), {1: line(5, 1)}, 2.0)[0] == {1: list(range(1, 15))}


def test_nothing_refined_and_nothing_original() -> None:
    empty = Region.of(np.zeros(SHAPE, bool), SPACING)
    assert nearest_instances(empty, {}, 10.0) == ({}, [])
    assert nearest_instances(empty, {1: line(5, 1)}, 10.0) == ({}, ["none of the 1 original tumours is left"])
    assert divided(line(5, 1, 4), {})[0] == {1: [1], 2: [4]}  # every piece is far from nothing
    many = {255: line(5, 1)}
    with pytest.raises(LabelError, match="up to number 256; expected at most 255"):
        nearest_instances(line(5, 1, 15), many, 5.0)
    with pytest.raises(SettingsError, match="0 mm or more, got nan"):
        InstanceSource((), max_distance_mm=float("nan"))


def row_of(out: Path) -> dict[str, str]:
    with (out / "dataset.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    return row


def lesions_in(out: Path, grid: Geometry) -> dict[int, Region]:
    return read_instances(layer_paths(out / "instances" / CASE), grid, "ct")


def refine(labels: Path, masks: dict[str, Any], grid: Geometry, **names: str) -> Path:
    labels.mkdir(exist_ok=True)
    for structure, mask in {"liver": "Liver", "flr": "Liver Remnant", **names}.items():
        sitk.WriteImage(grid.image(masks[mask]), str(labels / f"{CASE}_{structure}.nii.gz"))
    return labels


def refined(images: Any, labels: Path, out: Path, folder: Path | None = None, distance: float = 10.0) -> Prepared:
    sources = with_labels(with_original_tumours(images, folder, distance), labels, read_layout(LAYOUT), folder).cases
    return prepare(sources, PrepareSettings(out, SourceKind.REFINED, progress=False))


def test_overlapping_tumours_of_a_download_are_kept_apart(tree: Any, masks: Any, geometry: Geometry, tmp_path: Path) -> None:
    tree.add(CASE)
    out = tmp_path / "W"
    prepare(find_tcia_cases(tree.save()), PrepareSettings(out, SourceKind.TCIA, progress=False))
    found = lesions_in(out, geometry)
    for number in (1, 2, 3):
        expected = Region.of(masks[f"Tumor_{number}"], geometry.spacing_zyx_mm)
        assert voxels(found[number]) == voxels(expected)
    # 1 and 2 share a voxel, so the second has a layer of its own; 3 lies beside 1
    layers = [sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in layer_paths(out / "instances" / CASE)]
    assert [np.unique(layer).tolist() for layer in layers] == [[0, 1, 3], [0, 2]]
    row = row_of(out)
    assert (row["tumours"], row["tumours_counted_as"], row["instance_sources"]) == ("3", "segments", "")


def test_refined_labels_are_divided_among_the_tumours_of_the_seg_or_of_a_work_folder(
    tree: Any, masks: Any, geometry: Geometry, tmp_path: Path
) -> None:
    tree.add(CASE)
    images = find_tcia_cases(tree.save())
    prepare(images, PrepareSettings(tmp_path / "W", SourceKind.TCIA, progress=False))
    # The refined CRLM: the first two tumours as one mask, a column more at the side of the second; the third is gone.
    masks["refined"] = masks["Tumor_1"] | masks["Tumor_2"]
    masks["refined"][3, 6:8, 9] = True
    labels = refine(tmp_path / "zenodo", masks, geometry, crlm="refined")
    assert "tumours told apart by" in listing(with_original_tumours(images, None, 10.0))
    assert refined(images, labels, tmp_path / "R1").ready == (CASE,)
    folder = tmp_path / "W/images"
    assert refined(image_sources(folder), labels, tmp_path / "R2", folder).ready == (CASE,)
    for out, source in ((tmp_path / "R1", "1-1.dcm"), (tmp_path / "R2", "layer2.nii.gz")):
        found = lesions_in(out, geometry)
        assert voxels(found[1]) == voxels(Region.of(masks["Tumor_1"], geometry.spacing_zyx_mm))
        assert found[2].voxels == 6 + 2
        assert set(found) == {1, 2}
        row = row_of(out)
        assert (row["tumours"], row["tumours_counted_as"]) == ("2", "nearest segments")
        assert row["instance_sources"].endswith(source)
        assert row["notes"].endswith("original tumours without a voxel left: 3")
        hashes = row["instance_sha256"].split(";")
        assert [len(h) for h in hashes] == [64] * len(row["instance_sources"].split(";"))


def test_the_distance_and_the_original_labels_belong_to_the_request(
    tree: Any, masks: Any, geometry: Geometry, tmp_path: Path
) -> None:
    tree.add(CASE)
    images = find_tcia_cases(tree.save())
    labels = refine(tmp_path / "zenodo", masks, geometry, crlm="Tumor_3")
    assert refined(images, labels, tmp_path / "R").kept == ()
    assert refined(images, labels, tmp_path / "R").kept == (CASE,)
    assert refined(images, labels, tmp_path / "R", distance=5.0).kept == ()
    seg = tree.folder(CASE, "SEG") / "1-1.dcm"
    seg.touch()
    assert refined(images, labels, tmp_path / "R", distance=5.0).kept == ()


def test_original_tumours_that_cannot_be_read_leave_components_and_a_note(
    tree: Any, masks: Any, geometry: Geometry, tmp_path: Path
) -> None:
    tree.add(CASE)
    images = find_tcia_cases(tree.save())
    labels = refine(tmp_path / "zenodo", masks, geometry, crlm="Tumor_1")
    refined(images, labels, tmp_path / "R")
    assert layer_paths(tmp_path / "R/instances" / CASE)
    seg = tree.folder(CASE, "SEG") / "1-1.dcm"
    seg.write_bytes(seg.read_bytes()[:400])
    assert refined(images, labels, tmp_path / "R").ready == (CASE,)
    assert not (tmp_path / "R/instances" / CASE).exists()
    row = row_of(tmp_path / "R")
    assert (row["tumours"], row["tumours_counted_as"]) == ("1", "pieces")
    assert "lesions are connected pieces, as the original tumours cannot be used" in row["notes"]
    assert str(seg) in row["notes"]
