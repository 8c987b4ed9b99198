"""What a DICOM folder holds besides the slices: files that were lost on the way, junk, and headers that an anonymiser emptied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from flrplan.errors import ImageError
from flrplan.files import files_below, is_junk
from flrplan.image import read_ct
from flrplan.image.dicom_files import is_dicom

Write = Callable[..., Path]


@pytest.fixture
def plain_names(tmp_path: Path, hu: Any, write_slice: Write) -> Path:
    """Slices ``IM00`` to ``IM11`` without an ending."""
    for z, plane in enumerate(hu):
        write_slice(tmp_path / f"IM{z:02d}", plane, z=2.5 * z)
    return tmp_path


@pytest.mark.parametrize("content", [b"", b"HTTP/1.1 503 Service Unavailable"])
@pytest.mark.parametrize("ending", ["", ".dcm", ".IMA"])
def test_files_called_like_the_slices_that_are_none_are_an_error(plain_names: Path, content: bytes, ending: str) -> None:
    for z in range(5):
        (plain_names / f"IM{z:02d}").rename(plain_names / f"IM{z:02d}{ending}")
    for z in range(5, 12):
        (plain_names / f"IM{z:02d}").write_bytes(content)
    reason = "empty" if not content else "no DICOM"
    text = (
        rf"7 files called like the slices cannot be read as DICOM \({reason}\): IM05, IM06, IM07, IM08, IM09 and 2 more; .*copy"
    )
    with pytest.raises(ImageError, match=text):
        read_ct(plain_names)


@pytest.mark.parametrize("how", ["link to nothing", "unreadable"])
def test_a_slice_that_cannot_be_opened_is_an_error(plain_names: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    last = plain_names / "IM11"
    if how == "link to nothing":
        last.unlink()
        last.symlink_to(plain_names / "gone")
    else:
        real = Path.open

        def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:  # root, who runs tests in containers, may read anything
            if path == last:
                raise PermissionError(13, "Permission denied")
            return real(path, *args, **kwargs)

        monkeypatch.setattr(Path, "open", refuse)
    reason = "No such file or directory" if how == "link to nothing" else "Permission denied"
    with pytest.raises(
        ImageError, match=rf"1 files called like the slices cannot be read as DICOM \(cannot be read: {reason}\): IM11"
    ):
        read_ct(plain_names)


def test_other_files_that_might_be_slices_are_named(plain_names: Path, hu: Any) -> None:
    (plain_names / "LOST").write_bytes(b"")
    (plain_names / "README").write_text("read me")
    shutil.copy(plain_names / "IM03", plain_names / ".IM12.part")
    (plain_names / "report.pdf").write_text("a text that nobody takes for a slice")
    ct = read_ct(plain_names)
    assert np.array_equal(ct.array_zyx, hu)
    assert ct.warnings == (
        "3 files of the folder are not used (empty, hidden, no DICOM): .IM12.part, LOST, README; is a slice among them?",
    )


def test_junk_of_systems_is_no_part_of_a_series(tmp_path: Path, hu: Any, write_series: Write) -> None:
    write_series(tmp_path / "P1")
    for file in list((tmp_path / "P1").iterdir()):
        (tmp_path / "P1" / f"._{file.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    (tmp_path / "__MACOSX").mkdir()
    shutil.copy(tmp_path / "P1" / "99.dcm", tmp_path / "__MACOSX" / "99.dcm")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "DICOMDIR"):
        (tmp_path / "P1" / name).write_bytes(b"\0" * 128 + b"DICM")
    ct = read_ct(tmp_path)
    assert np.array_equal(ct.array_zyx, hu)
    assert [w for w in ct.warnings if "hidden" not in w] == []
    assert not is_dicom(tmp_path / "P1" / "._99.dcm")
    assert [is_junk(Path(n)) for n in ("__MACOSX", "Thumbs.db", "IM1.dcm:Zone.Identifier", "IM1", "dicomdir2")] == [
        True
    ] * 3 + [False] * 2
    (tmp_path / "dicomdir").mkdir()
    assert not is_junk(tmp_path / "dicomdir")  # people call folders so


def test_a_directory_record_under_another_name_is_no_image(
    tmp_path: Path, hu: Any, write_series: Write, write_slice: Write
) -> None:
    write_series(tmp_path)
    write_slice(tmp_path / "index.dcm", hu[0], SOPClassUID="1.2.840.10008.1.3.10", Modality=None, SeriesInstanceUID=None)
    assert read_ct(tmp_path).warnings == ()


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path, hu: Any, write_series: Write) -> None:
    write_series(tmp_path / "store" / "a")
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "series").symlink_to(tmp_path / "store" / "a", target_is_directory=True)
    (tmp_path / "case" / "again").symlink_to(tmp_path / "case", target_is_directory=True)
    assert len(files_below(tmp_path / "case")) == 12
    assert np.array_equal(read_ct(tmp_path / "case").array_zyx, hu)


def test_a_folder_that_cannot_be_read_is_an_error(plain_names: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImageError, match=r"the folder cannot be read .Permission denied., so files may be missing"):
        read_ct(plain_names)


@pytest.mark.parametrize("uid", [None, "", "  "])
def test_slices_without_a_series_uid_are_one_series(tmp_path: Path, hu: Any, write_series: Write, uid: str | None) -> None:
    folder = write_series(tmp_path / "P1", SeriesInstanceUID=uid, StudyInstanceUID=uid)
    for ct in (read_ct(folder), read_ct(folder / "95.dcm")):
        assert np.array_equal(ct.array_zyx, hu)
        assert ct.warnings == (
            "the slices state no StudyInstanceUID, SeriesInstanceUID; all CT images of the folder that state none are taken as one "
            "series, and no DICOM SEG or SR of this CT can be written without it",
        )


def test_slices_that_lost_their_series_uid_are_not_dropped(tmp_path: Path, hu: Any, write_slice: Write) -> None:
    def write(lost: int) -> None:
        for z, plane in enumerate(hu):
            write_slice(tmp_path / f"{z:02d}.dcm", plane, z=2.5 * z, SeriesInstanceUID="1.2.2" if z < 12 - lost else None)

    write(lost=4)
    with pytest.raises(
        ImageError, match=r"2 CT series, expected one; .*lost their SeriesInstanceUID(.|\n)*8 CT slices\n  \(no UID\).*4 CT"
    ):
        read_ct(tmp_path)
    write(lost=1)
    ct = read_ct(tmp_path)
    assert len(ct.array_zyx) == 11
    assert ct.warnings == ("1 CT slices of other series in the folder are not used: 11.dcm; do they belong to it?",)


def test_a_uid_for_each_slice_is_one_line_with_the_remedy(tmp_path: Path, hu: Any, write_slice: Write) -> None:
    for z, plane in enumerate(hu):
        write_slice(tmp_path / f"{z}.dcm", plane, z=2.5 * z, SeriesInstanceUID=f"1.2.2.{z}")
    text = "12 CT slices state 12 different SeriesInstanceUIDs, expected one .*anonymise the series again"
    with pytest.raises(ImageError, match=text) as caught:
        read_ct(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tags",
    [
        {"SOPClassUID": None},  # the file meta information has it
        {"Modality": None},
        {"Modality": "", "SOPClassUID": None, "SOPInstanceUID": None},
        {"SOPInstanceUID": ""},
        {"RescaleSlope": None},
    ],
)
def test_what_the_file_meta_and_the_class_say_counts(
    tmp_path: Path, hu: Any, write_series: Write, tags: dict[str, Any]
) -> None:
    ct = read_ct(write_series(tmp_path, **tags))
    assert np.array_equal(ct.array_zyx, hu)
    assert ct.warnings == ()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("lacking", ["nothing", "preamble", "preamble and mark", "meta header"])
def test_every_coding_with_and_without_a_meta_header(
    tmp_path: Path, hu: Any, write_series: Write, syntax: pydicom.uid.UID, lacking: str
) -> None:
    for path in write_series(tmp_path / "as_written").iterdir():
        data = pydicom.dcmread(path)
        data.is_little_endian, data.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
        data.file_meta.TransferSyntaxUID = syntax
        if syntax is ExplicitVRBigEndian:
            data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()
        out = tmp_path / "dcm" / path.stem  # no ending
        out.parent.mkdir(exist_ok=True)
        data.save_as(out, write_like_original=False)
        whole = out.read_bytes()
        meta = 144 + int.from_bytes(whole[140:144], "little")
        out.write_bytes(whole[{"nothing": 0, "preamble": 128, "preamble and mark": 132, "meta header": meta}[lacking] :])
    assert np.array_equal(read_ct(tmp_path / "dcm").array_zyx, hu)


def test_a_header_cut_off_before_the_series_is_no_other_series(plain_names: Path) -> None:
    last = plain_names / "IM11"
    for end in (300, 340, 420, 500):
        whole = last.read_bytes()
        last.write_bytes(whole[:end])
        with pytest.raises(ImageError, match=r"IM11: .*cut off"):
            read_ct(plain_names)
        last.write_bytes(whole)


def test_copies_are_used_once_and_named(tmp_path: Path, hu: Any, write_series: Write, write_slice: Write) -> None:
    write_series(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    ct = read_ct(tmp_path)
    assert np.array_equal(ct.array_zyx, hu)
    assert ct.warnings == (
        "12 files are copies of other slices and are not used: 88.dcm, 89.dcm, 90.dcm, 91.dcm, 92.dcm and 7 more",
    )
    write_slice(tmp_path / "b" / "99.dcm", hu[3], z=100)  # another slice at its place
    with pytest.raises(ImageError, match=r"1 slices lie where another one lies, such as 99.dcm and 99.dcm"):
        read_ct(tmp_path)


def test_slices_of_two_patients_under_one_series_uid(tmp_path: Path, hu: Any, write_slice: Write) -> None:
    for z, plane in enumerate(hu):
        write_slice(tmp_path / f"{z}.dcm", plane, z=2.5 * z, PatientID="A" if z < 6 else "B")
    with pytest.raises(ImageError, match=r"series 1.2.2 holds slices of 2 patients \(PatientID 'A', 'B'\)"):
        read_ct(tmp_path)


def test_a_folder_that_holds_only_a_seg(tmp_path: Path, hu: Any, write_slice: Write) -> None:
    write_slice(tmp_path / "seg.dcm", hu[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG", NumberOfFrames=3)
    with pytest.raises(ImageError, match=r"no CT volume(.|\n)*0 CT slices; 1 not used: modality SEG, not CT"):
        read_ct(tmp_path)


def test_a_listing_of_many_series_stays_short(tmp_path: Path, hu: Any, write_slice: Write) -> None:
    for n in range(30):
        for z in range(2):
            write_slice(tmp_path / f"{n}_{z}.dcm", hu[z, :4, :4], z=z, SeriesInstanceUID=f"1.2.2.{n}")
    with pytest.raises(ImageError, match=r"30 CT series, expected one(.|\n)*\.\.\. and 10 more$"):
        read_ct(tmp_path)
