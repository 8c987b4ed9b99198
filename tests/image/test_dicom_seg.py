from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixel_data_handlers.numpy_handler import pack_bits
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from flrplan.errors import GridError, LabelError
from flrplan.image import Geometry
from flrplan.image.dicom_seg import read_dicom_layers, with_empty_compartments

SHAPE = (6, 5, 7)
AXIAL = Geometry((7, 5, 6), (0.8, 0.9, 7.5), (-12.0, 5.0, 100.0))
UPSIDE_DOWN = Geometry((7, 5, 6), (0.8, 0.9, 7.5), (-12.0, 5.0, 100.0), (1, 0, 0, 0, 1, 0, 0, 0, -1))
OBLIQUE = Geometry((7, 5, 6), (0.8, 0.9, 7.5), (-12.0, 5.0, 100.0), (0.6, 0.0, 0.8, 0.0, -1.0, 0.0, 0.8, 0.0, -0.6))


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def make_seg(masks: dict[str, np.ndarray], geometry: Geometry, first: tuple[int, int] = (0, 0)) -> Dataset:
    """A BINARY SEG as dcmqi writes it: only slices with voxels, one frame per segment and slice; through bytes and back.

    ``first``: the (y, x) from which on the frames are stored.
    """
    seg = _item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", SOPInstanceUID=generate_uid(), Modality="SEG", SegmentationType="BINARY"
    )
    seg.SegmentSequence = [_item(SegmentNumber=n, SegmentLabel=name) for n, name in enumerate(masks, 1)]
    direction = geometry.direction_matrix
    seg.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[*direction[:, 0], *direction[:, 1]])],
            PixelMeasuresSequence=[_item(PixelSpacing=[geometry.spacing_mm[1], geometry.spacing_mm[0]])],
        )
    ]
    groups, frames = [], []
    for number, mask in enumerate(masks.values(), 1):
        for z in np.flatnonzero(mask.any(axis=(1, 2))):
            position = geometry.world_mm(np.array([[first[1], first[0], z]], float))[0]
            groups.append(
                _item(
                    PlanePositionSequence=[_item(ImagePositionPatient=[round(float(p), 6) for p in position])],
                    SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
                )
            )
            frames.append(mask[z, first[0] :, first[1] :])
    seg.PerFrameFunctionalGroupsSequence = groups
    seg.NumberOfFrames, seg.Rows, seg.Columns = len(frames), *frames[0].shape
    seg.SamplesPerPixel = seg.BitsAllocated = seg.BitsStored = 1
    seg.HighBit = seg.PixelRepresentation = 0
    seg.PhotometricInterpretation = "MONOCHROME2"
    seg.PixelData = pack_bits(np.stack(frames).astype(np.uint8).ravel())
    seg.file_meta = FileMetaDataset()
    seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    seg.is_little_endian, seg.is_implicit_VR = True, False
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, seg, write_like_original=False)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


@pytest.fixture
def liver() -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[2, 1:4, 2:5] = True
    mask[4, 2, 3] = True  # slice 3 has no voxels and is not stored
    return mask


@pytest.mark.parametrize("geometry", [AXIAL, UPSIDE_DOWN, OBLIQUE])
def test_a_cropped_seg_returns_to_the_grid_of_its_ct(liver: np.ndarray, geometry: Geometry) -> None:
    crlm = np.zeros(SHAPE, bool)
    crlm[2, 0, 0] = True
    [(label, names)] = read_dicom_layers(make_seg({"liver": liver, "crlm": crlm}, geometry), geometry, "a SEG")
    assert names == {"liver": 1, "crlm": 2}
    assert label.dtype == np.uint8
    assert np.array_equal(label, liver * 1 + crlm * 2)


def test_one_frame_and_frames_cropped_in_the_plane(liver: np.ndarray) -> None:
    liver[4] = False
    [(label, _)] = read_dicom_layers(make_seg({"liver": liver}, AXIAL, first=(1, 2)), AXIAL, "a SEG")
    assert np.array_equal(label, liver)


@pytest.mark.parametrize(
    "other",
    [
        Geometry((7, 5, 6), (0.8, 0.9, 5.0), (-12.0, 5.0, 100.0)),  # slice 2 at 110 mm: 1.33 slices of 7.5 mm
        Geometry((7, 5, 6), (0.8, 0.9, 7.5), (-12.3, 5.0, 100.0)),  # 0.3 mm of 0.8
        Geometry((7, 5, 6), (0.85, 0.9, 7.5), (-12.0, 5.0, 100.0)),
        Geometry((7, 5, 6), (0.8, 0.9, 7.5), (-12.0, 5.0, 130.0)),  # slice 4 would be slice 8 of 6
        OBLIQUE,
    ],
)
def test_a_seg_of_another_grid_is_an_error(liver: np.ndarray, other: Geometry) -> None:
    with pytest.raises(GridError, match=r"a SEG is not on the grid of its CT"):
        read_dicom_layers(make_seg({"liver": liver}, other), AXIAL, "a SEG")


def test_two_segments_of_one_name_are_an_error(liver: np.ndarray) -> None:
    seg = make_seg({"liver": liver, "crlm": np.roll(liver, 1, 0)}, AXIAL)
    seg.SegmentSequence[1].SegmentLabel = "liver"
    with pytest.raises(LabelError, match="two segments are called 'liver'"):
        read_dicom_layers(seg, AXIAL, "a SEG")


def test_a_broken_seg_is_an_error(liver: np.ndarray) -> None:
    seg = make_seg({"liver": liver}, AXIAL)
    del seg.PerFrameFunctionalGroupsSequence
    with pytest.raises(LabelError, match=r"a SEG: this DICOM SEG is incomplete or cannot be decoded: .*PerFrame"):
        read_dicom_layers(seg, AXIAL, "a SEG")


def test_what_is_no_binary_seg_is_an_error(liver: np.ndarray) -> None:
    seg = make_seg({"liver": liver}, AXIAL)
    seg.SegmentationType = "FRACTIONAL"
    with pytest.raises(LabelError, match="expected a BINARY DICOM SEG, found 'FRACTIONAL'"):
        read_dicom_layers(seg, AXIAL, "a SEG")


def test_overlapping_segments_are_read_in_layers() -> None:
    """A liver drawn whole, a tumour in it, a remnant beside the tumour: the two small ones share the second layer."""
    masks = {name: np.zeros(SHAPE, bool) for name in ("liver", "crlm", "flr")}
    masks["liver"][1:4], masks["crlm"][2, 1, 1], masks["flr"][2, 3:] = True, True, True
    layers = read_dicom_layers(make_seg(masks, AXIAL), AXIAL, "x")
    assert [names for _, names in layers] == [{"liver": 1}, {"crlm": 2, "flr": 3}]
    for label, names in layers:
        for name, number in names.items():
            assert np.array_equal(label == number, masks[name]), name


def test_a_plan_whose_empty_compartments_a_seg_left_out_is_still_a_plan() -> None:
    label = np.zeros(SHAPE, np.uint8)
    (_, names), *_ = with_empty_compartments([(label, {"Remnant": 1, "resection": 3})])
    assert names == {"Remnant": 1, "resection": 3, "crlm_in_resection": 2, "crlm_in_remnant": 4}
    assert with_empty_compartments([(label, {"remnant": 1})]) == [(label, {"remnant": 1})], (
        "a remnant alone states nothing else"
    )
