"""What is taken of an upload: nothing that climbs out, grows beyond bounds or is no CT, and no name of a person."""

from __future__ import annotations

import errno
import io
import os
import struct
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import SimpleITK as sitk

from flrplan.errors import ImageError, OutputError
from flrplan.files import space
from flrplan.image import read_ct
from flrplan.planner import upload as module
from flrplan.planner.upload import Upload, is_lone_zip, is_wanted, unpack

MakeUpload = Callable[..., Upload]


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def unpacked(upload: MakeUpload, content: bytes, name: str = "ct.zip") -> Upload:
    packed = upload({name: content}, "packed")
    assert is_lone_zip(packed)
    into = upload({})
    unpack(packed, into)
    return into


def test_no_name_of_a_person_reaches_the_disk_and_messages_have_it_back(upload: MakeUpload) -> None:
    made = upload({"DOE JOHN/IM 12.dcm": b"a", "DOE JOHN/IM 13.dcm": b"b", "DOE JOHN\\notes.txt": b"c", "../../DOE": b"d"})
    assert [p.relative_to(made.folder).as_posix() for p in made.files] == [
        "000/file-00000.dcm",
        "000/file-00001.dcm",  # slices that are called alike lie together, as reading a series expects
        "001/file-00002.other",
        "002/file-00003",
    ]
    assert [made.name_of(p) for p in made.files] == ["IM 12.dcm", "IM 13.dcm", "notes.txt", "DOE"]
    message = f"{made.folder}/000/file-00001.dcm: cut off; {made.folder}: also file-00003, file-00000.dcm and file-99999"
    assert made.in_words(message) == "IM 13.dcm: cut off; the upload: also DOE, IM 12.dcm and file-99999"


@pytest.mark.parametrize("name", ["", ".DS_Store", "a/Thumbs.db", "__MACOSX/a/IM1", "x/._IM1.dcm", "DICOMDIR", "a\\.hidden\\b"])
def test_what_systems_leave_in_folders_is_not_taken(name: str) -> None:
    assert not is_wanted(name)
    assert is_wanted("IM1")


def test_an_upload_is_bounded(upload: MakeUpload, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"larger than 1.0 MB, the most that is taken; upload the folder of one CT series"):
        upload({"a": b"x" * 600_000, "b": b"x" * 400_001})
    monkeypatch.setattr(module, "_MOST_FILES", 2)
    with pytest.raises(ImageError, match="more than 2 files"):
        upload({"a": b"", "b": b"", "c": b""}, "other")


def test_a_full_disk_is_told(upload: MakeUpload, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: usage(10))
    with pytest.raises(OutputError, match=r"an upload needs about 500 MB, but only 0 kB are free"):
        upload({"a": b"x"})
    monkeypatch.undo()

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        OutputError, match=r"cannot be kept \(No space left on device\); the administrator of this server must make room"
    ):
        upload({}, "other").write(Full(), b"x")


def test_a_zip_is_unpacked_without_junk(upload: MakeUpload) -> None:
    made = unpacked(
        upload, zipped(("a/IM1.dcm", b"one"), ("a/IM2.dcm", b"two"), ("__MACOSX/a/._IM1.dcm", b"x"), ("empty/", b""))
    )
    assert [p.read_bytes() for p in made.files] == [b"one", b"two"]
    assert [made.name_of(p) for p in made.files] == ["IM1.dcm", "IM2.dcm"]


@pytest.mark.parametrize(
    "path", ["../evil.dcm", "/etc/evil.dcm", "a/../../evil.dcm", "..\\evil.dcm", "C:\\evil.dcm", "\\evil.dcm"]
)
def test_a_zip_that_climbs_out_is_not_unpacked(upload: MakeUpload, tmp_path: Path, path: str) -> None:
    with pytest.raises(
        ImageError, match=r"ct.zip: this zip holds a path that leads out of it \(.*evil.dcm\); it was not unpacked"
    ):
        unpacked(upload, zipped(("IM1.dcm", b"one"), (path, b"x")))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / "packed" / "000" / "file-00000.other"]


def test_a_zip_with_a_link_is_not_unpacked(upload: MakeUpload) -> None:
    link = zipfile.ZipInfo("IM1.dcm")
    link.external_attr = 0o120777 << 16
    with pytest.raises(ImageError, match=r"this zip holds a link \(IM1.dcm\)"):
        unpacked(upload, zipped((link, b"/etc/passwd")))


def test_an_encrypted_zip_is_told(upload: MakeUpload) -> None:
    content = bytearray(zipped(("IM1.dcm", b"one")))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    with pytest.raises(ImageError, match=r"ct.zip: this zip is encrypted; unpack it with its password"):
        unpacked(upload, bytes(content))


def test_a_zip_that_grows_beyond_bounds_is_stopped_while_it_is_unpacked(upload: MakeUpload, tmp_path: Path) -> None:
    content = zipped(*((f"IM{n}.dcm", bytes(400_000)) for n in range(50)))
    assert len(content) < 50_000
    with pytest.raises(ImageError, match=r"larger than 1.0 MB"):
        unpacked(upload, content)
    assert sum(p.stat().st_size for p in (tmp_path / "upload").rglob("*") if p.is_file()) <= 1_000_000


def test_the_sizes_in_a_zips_headers_are_not_believed(upload: MakeUpload, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(zipped(("IM1.dcm", bytes(3_000_000))))
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 24, 10)  # says 10 bytes
    with pytest.raises(ImageError, match="this zip is damaged or of a kind that is not read"):
        unpacked(upload, bytes(content))
    monkeypatch.setattr(module, "_LONGEST_LIST_BYTES", 400)
    packed = upload({"ct.zip": zipped(*((f"IM{n}.dcm", b"") for n in range(50)))}, "long")
    with pytest.raises(ImageError, match="its list of files is too long"):
        unpack(packed, upload({}, "into"))


@pytest.mark.parametrize("broken", [lambda z: z[:200] + z[260:], lambda z: z[:40] + bytes(100) + z[140:]], ids=["cut", "zeros"])
def test_a_damaged_zip_is_told(upload: MakeUpload, broken: Callable[[bytes], bytes]) -> None:
    content = broken(zipped(("IM1.dcm", os.urandom(500)), ("IM2.dcm", os.urandom(500))))
    with pytest.raises(ImageError, match=r"ct.zip: this zip is damaged .*; pack it again, or upload the folder"):
        unpacked(upload, content)


def test_a_cut_off_zip_is_told(upload: MakeUpload) -> None:
    made = upload({"ct.zip": zipped(("ct.nii.gz", os.urandom(1000)))[:-100]})
    assert not is_lone_zip(made)
    with pytest.raises(ImageError, match=r"ct\.zip: this zip is cut off or damaged; pack it again"):
        made.choices()


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_an_image_that_unpacks_beyond_bounds_is_not_read(upload: MakeUpload, tmp_path: Path, ending: str) -> None:
    image = sitk.Image([200, 100, 50], sitk.sitkInt16)  # 2 MB of zeros, some kB packed
    sitk.WriteImage(image, str(tmp_path / f"ct{ending}"), useCompression=True)
    made = upload({f"DOE{ending}": (tmp_path / f"ct{ending}").read_bytes()})
    with pytest.raises(ImageError, match=r"DOE\S+: its header announces 1000000 voxels, which unpack to more than 1\.0 MB"):
        made.choices()


def test_a_series_that_unpacks_beyond_bounds_is_not_read(upload: MakeUpload, series: Path) -> None:
    files = {}
    for file in series.iterdir():
        slice_ = pydicom.dcmread(file)
        slice_.Rows = slice_.Columns = 1000  # as of a packed picture: here the pixels are fewer
        slice_.save_as(stream := io.BytesIO())
        files[file.name] = stream.getvalue()
    with pytest.raises(ImageError, match="the DICOM series: its header announces 12000000 voxels"):
        upload(files).choices()


def test_a_zip_in_a_zip_is_named(upload: MakeUpload) -> None:
    made = unpacked(upload, zipped(("inner.zip", zipped(("IM1.dcm", b"one")))))
    with pytest.raises(ImageError, match=r"no CT in the upload, but inner.zip, a zip beside or inside it; unpack it"):
        made.choices()


def test_what_is_no_ct_is_named_with_what_was_expected(upload: MakeUpload) -> None:
    with pytest.raises(
        ImageError, match=r"no CT in the upload \(report.pdf\); expected a DICOM folder, a zip of one, or one file"
    ):
        upload({"report.pdf": b"%PDF-1.7"}).choices()
    with pytest.raises(ImageError, match=r"no CT in the upload \(it is empty\)"):
        upload({}, "none").choices()
    with pytest.raises(ImageError, match=r"ct.mhd names the file that its voxels lie in.*save it as .mha or .nrrd"):
        upload({"ct.mhd": b"", "ct.raw": b""}, "detached").choices()


def test_the_cts_of_an_upload_are_its_series_and_image_files(upload: MakeUpload, series: Path, tmp_path: Path) -> None:
    files = {f"a/{p.name}": p.read_bytes() for p in sorted(series.iterdir())}
    made = upload({**files, "a/README": b"no slice"}, largest_bytes=10**8)
    (only,) = made.choices()
    assert (only.path, only.series, only.title) == (made.folder, None, f"Portal venous, {len(files)} slices")
    assert read_ct(only.path).array_zyx.shape[0] == len(files)

    def late(content: bytes) -> bytes:
        slice_ = pydicom.dcmread(io.BytesIO(content))
        slice_.SeriesInstanceUID, slice_.SeriesDescription, slice_.SOPInstanceUID = (
            "1.2.3",
            "Late",
            f"{slice_.SOPInstanceUID}.1",
        )
        stream = io.BytesIO()
        slice_.save_as(stream)
        return stream.getvalue()

    others = {name.replace("a/", "b/"): late(content) for name, content in list(files.items())[:9]}
    both = upload({**files, **others, "mask.nii.gz": b"x"}, "both", 10**8).choices()
    assert [choice.title for choice in both] == ["mask.nii.gz", f"Portal venous, {len(files)} slices", "Late, 9 slices"]
    assert read_ct(both[2].path, both[2].series).array_zyx.shape[0] == 9


def test_dicom_that_is_no_ct_is_told_by_what_reads_it(upload: MakeUpload, series: Path) -> None:
    def mr(path: Path) -> bytes:
        slice_ = pydicom.dcmread(path)
        slice_.Modality = "MR"
        stream = io.BytesIO()
        slice_.save_as(stream)
        return stream.getvalue()

    made = upload({p.name: mr(p) for p in sorted(series.iterdir())[:3]})
    (only,) = made.choices()
    with pytest.raises(ImageError) as caught:
        read_ct(only.path, only.series)
    assert made.in_words(str(caught.value)).startswith("the upload: no CT volume, expected one series of at least 2 CT slices")
    assert "modality MR, not CT" in str(caught.value)


def test_one_image_file_is_the_ct_whatever_its_name(upload: MakeUpload, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(sitk.GetArrayFromImage(sitk.Image([5, 4, 3], sitk.sitkInt16)))
    sitk.WriteImage(image, str(tmp_path / "DOE.nii.gz"))
    made = upload({"DOE.NII.GZ": (tmp_path / "DOE.nii.gz").read_bytes()})
    (only,) = made.choices()
    assert (only.path.name, only.title) == ("file-00000.nii.gz", "DOE.NII.GZ")
