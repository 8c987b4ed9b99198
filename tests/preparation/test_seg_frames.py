"""Overlapping segments, read from this repository's small writer and from highdicom's, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from flrplan.errors import GridError, ImageError, LabelError
from flrplan.image import Geometry
from flrplan.preparation.seg_frames import open_seg, seg_frames, segment_labels
from flrplan.preparation.segment_roles import SegmentRole, segment_role


def assembled(path: Path, geometry: Geometry) -> dict[str, np.ndarray]:
    seg = open_seg(path)
    labels = segment_labels(seg, str(path))
    result = {name: np.zeros(geometry.shape_zyx, bool) for name in labels.values()}
    for frame in seg_frames(seg, geometry, str(path)):
        result[labels[frame.segment]][frame.place] |= frame.pixels
    return result


def test_every_segment_comes_back_whole_where_segments_overlap(
    masks: Any, make_seg: Any, geometry: Geometry, tmp_path: Path
) -> None:
    found = assembled(make_seg(tmp_path / "seg.dcm", masks), geometry)
    assert found.keys() == masks.keys()
    for name, mask in masks.items():
        assert np.array_equal(found[name], mask), name


def test_a_seg_of_highdicom_comes_back_whole(masks: Any, hu: Any, make_ct: Any, geometry: Geometry, tmp_path: Path) -> None:
    who = {"PatientID": "p", "PatientName": "p^", "PatientBirthDate": "", "PatientSex": "", "StudyID": "1", "StudyDate": ""}
    when = {"StudyTime": "", "AccessionNumber": "", "ReferringPhysicianName": "", "PositionReferenceIndicator": ""}
    folder = make_ct(tmp_path / "ct", "1.2.3.4", hu, **who, **when, InstanceNumber=1)
    slices = sorted((pydicom.dcmread(p) for p in folder.iterdir()), key=lambda d: d.ImagePositionPatient[2])
    described = [
        hd.seg.SegmentDescription(
            n,
            name,
            codes.SCT.Organ,
            codes.SCT.Liver,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for n, name in enumerate(masks, 1)
    ]
    seg = hd.seg.Segmentation(
        slices,
        np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        hd.seg.SegmentationTypeValues.BINARY,
        described,
        generate_uid(),
        1,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "serial",
        omit_empty_frames=True,
    )
    seg.save_as(tmp_path / "seg.dcm")
    found = assembled(tmp_path / "seg.dcm", geometry)
    for name, mask in masks.items():
        assert np.array_equal(found[name], mask), name


def test_frames_whose_bits_do_not_end_on_a_byte(make_seg: Any, tmp_path: Path) -> None:
    shape = (3, 5, 7)  # 35 bits a frame
    rng = np.random.default_rng(3)
    masks = {"Liver": rng.random(shape) > 0.5, "Tumor_1": rng.random(shape) > 0.5}
    path = make_seg(tmp_path / "seg.dcm", masks, Rows=5, Columns=7)
    found = assembled(path, Geometry((7, 5, 3), (0.8, 0.9, 2.5), (-10.5, 20.25, -120.25)))
    for name, mask in masks.items():
        assert np.array_equal(found[name], mask), name


def test_a_frame_off_the_grid_is_refused(masks: Any, make_seg: Any, geometry: Geometry, tmp_path: Path) -> None:
    with pytest.raises(GridError, match=r"seg\.dcm is not on the grid of its CT"):
        assembled(make_seg(tmp_path / "seg.dcm", masks, shift_mm=1.0), geometry)


def test_a_frame_that_is_stored_twice_is_refused(masks: Any, make_seg: Any, geometry: Geometry, tmp_path: Path) -> None:
    path = make_seg(tmp_path / "seg.dcm", masks)
    seg = pydicom.dcmread(path)
    seg.PerFrameFunctionalGroupsSequence[1] = seg.PerFrameFunctionalGroupsSequence[0]
    seg.save_as(path)
    with pytest.raises(LabelError, match="segment 1 at slice 2 is stored twice"):
        assembled(path, geometry)


def test_what_is_no_binary_seg_is_refused(masks: Any, make_seg: Any, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="expected a BINARY DICOM SEG, found 'LABELMAP'"):
        open_seg(make_seg(tmp_path / "a.dcm", masks, SegmentationType="LABELMAP"))
    (tmp_path / "b.dcm").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"b\.dcm: the DICOM file is cut off or damaged"):
        open_seg(tmp_path / "b.dcm")


@pytest.mark.parametrize(
    ("label", "role"),
    [
        ("Liver", SegmentRole.LIVER),
        ("Liver Remnant", SegmentRole.REMNANT),
        ("Liver_Remnant", SegmentRole.REMNANT),
        ("liver-remnant ", SegmentRole.REMNANT),
        ("Tumor_1", SegmentRole.TUMOUR),
        ("Tumor 12", SegmentRole.TUMOUR),
        ("tumour3", SegmentRole.TUMOUR),
        ("Hepatic", SegmentRole.HEPATIC),
        ("Portal", SegmentRole.PORTAL),
        ("Tumor bed", SegmentRole.UNKNOWN),
    ],
)
def test_roles(label: str, role: SegmentRole) -> None:
    assert segment_role(label) is role
