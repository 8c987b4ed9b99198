"""Segmentations as 3D Slicer writes them: cropped, layered, named in the header; on the grid of their CT again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Mask, Structure
from flrplan.errors import GridError, ImageError, LabelError
from flrplan.image import CT, Geometry, read_mask
from flrplan.image.segmentation import read_segmentation

Drawn = dict[str, Mask]


@pytest.fixture
def drawn(geometry: Geometry) -> Drawn:
    """A liver drawn whole, a tumour and a remnant in it, well inside the image."""
    masks = {name: np.zeros(geometry.shape_zyx, bool) for name in ("Liver", "CRLM", "flr")}
    masks["Liver"][2:9, 4:14, 5:20] = True
    masks["CRLM"][4:6, 6:9, 7:10] = True
    masks["flr"][2:9, 4:14, 12:20] = True
    return masks


def test_a_cropped_segmentation_in_layers_is_what_was_drawn(
    drawn: Drawn, geometry: Geometry, write_slicer: Callable[..., Path], tmp_path: Path
) -> None:
    held = read_segmentation(write_slicer(tmp_path / "drawn.seg.nrrd", geometry, drawn))
    assert held.geometry.size_xyz == (15, 10, 7)
    assert held.names == ({"Liver": 1}, {"CRLM": 1, "flr": 2}), "the tumour and the remnant share the second layer"
    label = held.label(geometry, "CT", {})
    assert {s.value: np.count_nonzero(m) for s, m in label.masks.items()} == {"liver": 1050, "crlm": 18, "flr": 560}
    for name, mask in drawn.items():
        assert np.array_equal(label.masks[Structure(name.lower())], mask)
    ct = CT(np.zeros(geometry.shape_zyx, np.int16), geometry, "a", "the CT")
    assert np.array_equal(read_mask(tmp_path / "drawn.seg.nrrd", ct, Structure.CRLM), drawn["CRLM"])


def test_segments_that_do_not_overlap_share_a_layer(
    drawn: Drawn, geometry: Geometry, write_slicer: Callable[..., Path], tmp_path: Path
) -> None:
    drawn = {"crlm": drawn["CRLM"], "LIVER": drawn["Liver"] & ~drawn["CRLM"], "background": ~drawn["Liver"]}
    held = read_segmentation(write_slicer(tmp_path / "one.seg.nrrd", geometry, drawn))
    assert held.names == ({"crlm": 1, "LIVER": 2},), "MONAI Label's own segments are no part of the label"
    label = held.label(geometry, "CT", {})
    assert np.array_equal(label.masks[Structure.LIVER], drawn["crlm"] | drawn["LIVER"])


def test_it_is_written_on_the_grid_of_the_image_with_all_it_says(
    drawn: Drawn, geometry: Geometry, write_slicer: Callable[..., Path], tmp_path: Path
) -> None:
    cropped = read_segmentation(write_slicer(tmp_path / "a.seg.nrrd", geometry, drawn))
    cropped.on(geometry, "CT").write(tmp_path / "b.seg.nrrd")
    whole = read_segmentation(tmp_path / "b.seg.nrrd")
    assert whole.geometry.is_same_grid(geometry)
    assert whole.names == cropped.names
    assert whole.header["Segment1_Color"] == cropped.header["Segment1_Color"]
    assert whole.header["Segment0_Extent"] == "0 23 0 19 0 11"
    assert whole.header["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"
    assert np.array_equal(whole.label(geometry, "CT", {}).masks[Structure.CRLM], drawn["CRLM"])


@pytest.mark.parametrize("order", ["x", "z", "xz", "swap"])
def test_axes_that_a_viewer_turned_are_turned_back(
    drawn: Drawn, geometry: Geometry, write_slicer: Callable[..., Path], tmp_path: Path, order: str
) -> None:
    """3D Slicer makes the axes of an image right-handed; the voxels are the same ones."""
    image = geometry.image(drawn["Liver"].astype(np.uint8))
    turned = sitk.PermuteAxes(image, (2, 0, 1)) if order == "swap" else sitk.Flip(image, ["x" in order, False, "z" in order])
    other = Geometry.of(turned)
    assert not other.is_same_grid(geometry)
    sitk.WriteImage(turned, str(tmp_path / "label.nii.gz"))
    plain = read_segmentation(tmp_path / "label.nii.gz").label(geometry, "CT", {"liver": 1})
    mask = sitk.GetArrayFromImage(turned) > 0
    cropped = read_segmentation(write_slicer(tmp_path / "label.seg.nrrd", other, {"liver": mask})).label(geometry, "CT", {})
    for label in (plain, cropped):
        assert np.array_equal(label.masks[Structure.LIVER], drawn["Liver"])


def test_voxels_that_are_none_of_the_image_are_refused(
    drawn: Drawn, geometry: Geometry, write_slicer: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.seg.nrrd"
    moved = Geometry(
        geometry.size_xyz, geometry.spacing_mm, (geometry.origin_mm[0] + 0.3, *geometry.origin_mm[1:]), geometry.direction
    )
    with pytest.raises(GridError, match=r"a\.seg\.nrrd is not on the grid of CT"):
        read_segmentation(write_slicer(path, moved, drawn)).on(geometry, "CT")
    finer = Geometry(geometry.size_xyz, (0.4, 0.45, 2.5), geometry.origin_mm, geometry.direction)
    with pytest.raises(GridError, match="is not on the grid of CT"):
        read_segmentation(write_slicer(path, finer, drawn)).on(geometry, "CT")
    shorter = geometry.crop((slice(0, 8), slice(0, 20), slice(0, 24)))
    with pytest.raises(GridError, match=r"150 drawn voxels lie beside CT; was it drawn on another image\?"):
        read_segmentation(write_slicer(path, geometry, {"liver": drawn["Liver"]})).on(shorter, "CT")
    sitk.WriteImage(shorter.image(np.ones(shorter.shape_zyx, np.uint8)), str(tmp_path / "crop.nii.gz"))
    with pytest.raises(GridError, match="is not on the grid of CT"):  # a plain label map says nothing of what it leaves out
        read_segmentation(tmp_path / "crop.nii.gz").on(geometry, "CT")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"Segment1_Layer": "7"}, "the header puts 'CRLM' into layer 7, and there are 2; save it again"),
        ({"Segment1_Layer": "-1"}, "the header puts 'CRLM' into layer -1"),
        ({"Segment0_LabelValue": "one"}, "names segments without their values .*'one'"),
        ({"Segment0_Name": "spleen"}, r"unknown label names \['spleen'\]; known are liver, .* Rename or delete these segments"),
        ({"Segment0_Name": "flr"}, "are not all called differently"),
        ({"Segment0_Name": "FLR"}, "two of its labels .* are called the same"),
        ({"Segment2_LabelValue": "9"}, r"voxels of value \[2\] have no name; named are"),
        ({"Segment2_LabelValue": "1"}, "an index of its own"),
        (
            {f"Segment{n}_{key}": None for n in range(3) for key in ("ID", "Name")},
            "its header names none; save the segmentation",
        ),
    ],
)
def test_a_header_that_contradicts_itself_is_an_error(
    drawn: Drawn,
    geometry: Geometry,
    write_slicer: Callable[..., Path],
    tmp_path: Path,
    header: dict[str, str | None],
    message: str,
) -> None:
    path = write_slicer(tmp_path / "a.seg.nrrd", geometry, drawn, header)
    with pytest.raises(LabelError, match=message):
        read_segmentation(path).label(geometry, "CT", {})


def test_a_damaged_segmentation_and_a_colour_picture_are_told(
    drawn: Drawn, geometry: Geometry, write_slicer: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_slicer(tmp_path / "a.seg.nrrd", geometry, drawn)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ImageError, match=r"a\.seg\.nrrd: the file is cut off, damaged"):
        read_segmentation(path)
    red = geometry.image(drawn["Liver"].astype(np.uint8))
    sitk.WriteImage(sitk.Compose(red, red, red), str(tmp_path / "rgb.nrrd"))
    with pytest.raises(ImageError, match=r"found 3 \(a colour picture"):
        read_segmentation(tmp_path / "rgb.nrrd")
