from __future__ import annotations

import gzip
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.errors import GridError, ImageError, OutputError, SettingsError
from flrplan.evaluation.headers import header_geometry
from flrplan.image import CT, Geometry, read_ct, read_label_map, write_label_map
from flrplan.image.ct import _checked, read_grid
from flrplan.image.segmentation import read_segmentation
from flrplan.image.volume_file import announced_voxels, scalar_volume

SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]
AFFINE = np.array([[-0.8, 0, 0, 5], [0, -0.9, 0, 7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])
NAN, INF = float("nan"), float("inf")
Nifti = Callable[..., Path]


def in_memory(image: sitk.Image) -> CT:
    """What :func:`read_ct` makes of an image once it has read it."""
    volume = scalar_volume(image, "memory")
    return _checked(sitk.GetArrayFromImage(volume.image), volume.geometry, "a", "memory", volume.warnings)


@pytest.fixture
def nifti(tmp_path: Path, hu: Any) -> Nifti:
    """Writes a NIfTI with chosen forms, then patches header bytes ``{offset: (format, value)}``."""

    def write(patch: Any = None, array: Any = None, sform: Any = AFFINE, qform: Any = AFFINE, codes: Any = (1, 1)) -> Path:
        image = nibabel.Nifti1Image(hu.transpose(2, 1, 0) if array is None else array, AFFINE)
        image.set_qform(qform, codes[1])
        image.set_sform(sform, codes[0])
        image.header["pixdim"][1:4] = (0.8, 0.9, 2.5)
        path = tmp_path / "ct.nii"
        image.to_filename(path)
        data = bytearray(path.read_bytes())
        for offset, (kind, value) in (patch or {}).items():
            struct.pack_into(kind, data, offset, value)
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_comes_back_as_written(tmp_path: Path, hu: Any, geometry: Geometry, suffix: str) -> None:
    path = tmp_path / f"case.1{suffix}"
    sitk.WriteImage(geometry.image(hu), str(path))
    ct = read_ct(path)
    assert (ct.name, ct.source, ct.warnings) == ("case.1", str(path), ())
    assert ct.array_zyx.dtype == np.int16
    assert np.array_equal(ct.array_zyx, hu)
    assert ct.geometry.is_same_grid(geometry)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0.5, 0.01])
def test_every_format_cut_off_is_an_error(tmp_path: Path, hu: Any, geometry: Geometry, suffix: str, keep: float) -> None:
    path = tmp_path / f"case{suffix}"
    sitk.WriteImage(geometry.image(hu), str(path))
    file = next(tmp_path.glob("case.*raw"), path)  # a detached header keeps its voxels apart
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(ImageError, match=r"case\.\w+.*: (the file is cut off|this is not a NIfTI)"):
        read_ct(path)


def test_a_gzip_damaged_in_the_middle(tmp_path: Path, hu: Any, geometry: Geometry) -> None:
    path = tmp_path / "case.nii.gz"
    sitk.WriteImage(geometry.image(hu), str(path))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the checksum
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"cut off or damaged .*CRC"):
        read_ct(path)


def test_missing_unknown_and_false_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no.nii: no such file; check the path"):
        read_ct(tmp_path / "no.nii")
    for name in ("ct.txt", "ct.hdr", "ct"):
        (tmp_path / name).write_bytes(b"x" * 500)
        with pytest.raises(ImageError, match=r"expected a DICOM file or a name that ends in .nii.gz"):
            read_ct(tmp_path / name)
    (tmp_path / "text.nii").write_bytes(b"x" * 500)
    with pytest.raises(ImageError, match="not a NIfTI file, whatever its name says"):
        read_ct(tmp_path / "text.nii")
    with pytest.raises(SettingsError, match="only a DICOM folder has series"):
        read_ct(tmp_path / "text.nii", series="1.2")


@pytest.mark.parametrize("value", [0.0, -2.5, float("nan"), float("inf")])
@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0), (0, 0)])
def test_broken_nifti_spacing_that_itk_repairs_in_silence(nifti: Nifti, value: float, codes: Any) -> None:
    with pytest.raises(ImageError, match="expected a positive spacing, the NIfTI header has pixdim"):
        read_ct(nifti({88: ("<f", value)}, codes=codes))


@pytest.mark.parametrize("value", [0.1, 20.0])
def test_absurd_spacing(hu: Any, value: float) -> None:
    image = Geometry((24, 20, 12), (0.8, 0.9, value)).image(hu)
    with pytest.raises(ImageError, match=rf"memory: expected a spacing of 0.2..5 mm .* found 0.8 x 0.9 x {value:g} mm"):
        in_memory(image)


def test_thick_slices_may_lie_along_any_axis(hu: Any) -> None:
    assert in_memory(Geometry((24, 20, 12), (7.5, 0.9, 0.8)).image(hu)).geometry.spacing_mm[0] == 7.5
    with pytest.raises(ImageError, match="expected a spacing"):
        in_memory(Geometry((24, 20, 12), (7.5, 6, 0.8)).image(hu))


@pytest.mark.parametrize(("unit", "per_mm"), [(0, 1.0), (1, 0.001), (2, 1.0), (3, 1000.0), (10, 1.0)])
def test_units_are_converted(nifti: Nifti, unit: int, per_mm: float) -> None:
    scaled = AFFINE.copy()
    scaled[:3] *= per_mm
    pixdim = {76 + 4 * i: ("<f", s * per_mm) for i, s in enumerate((0.8, 0.9, 2.5), 1)}
    ct = read_ct(nifti({123: ("B", unit), **pixdim}, sform=scaled, qform=scaled))
    assert ct.geometry.spacing_mm == pytest.approx((0.8, 0.9, 2.5))
    assert ct.geometry.origin_mm == pytest.approx((-5, -7, 11), abs=1e-5)
    assert ct.warnings == ()


def test_a_wrong_unit_is_an_absurd_spacing(nifti: Nifti) -> None:
    with pytest.raises(ImageError, match=r"found 800 x 900 x 2500 mm; check the unit"):
        read_ct(nifti({123: ("B", 1)}))


def test_two_voxel_sizes_in_one_header(nifti: Nifti) -> None:
    with pytest.raises(ImageError, match=r"two voxel sizes, pixdim \[0.8, 0.9, 2.75\] mm and sform \[0.8, 0.9, 2.5\] mm"):
        read_ct(nifti({88: ("<f", 2.75)}, codes=(1, 0)))


def test_forms_that_disagree_are_a_warning_that_says_how_much(nifti: Nifti) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 3
    for codes, used in (((1, 1), "sform"), ((2, 1), "qform")):
        ct = read_ct(nifti(qform=moved, codes=codes))
        assert ct.warnings[0].startswith(f"the sform and the qform of the NIfTI header disagree by up to 3.00 mm; the {used}")
        assert ct.geometry.origin_mm[0] == pytest.approx(-5 if used == "sform" else -8)


def test_no_orientation_is_an_error(nifti: Nifti, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="states no orientation"):
        read_ct(nifti(codes=(0, 0)))


def test_sheared_nifti(nifti: Nifti) -> None:
    sheared = AFFINE.copy()
    sheared[:3, 2] = 2.5 * np.array([0.3, 0, np.sqrt(1 - 0.09)])
    with pytest.raises(ImageError, match="the voxel grid is sheared"):
        read_ct(nifti(sform=sheared, codes=(1, 0)))
    assert "disagree by up to" in read_ct(nifti(sform=sheared, codes=(1, 1))).warnings[0]


@pytest.mark.parametrize(("axis", "beside"), [(1, "0.01 mm at the end of the y"), (2, "0.01 mm at the end of the z")])
@pytest.mark.parametrize("dtype", ["<i2", "<f4"])
def test_a_rounded_sform_is_straightened_with_a_warning(nifti: Nifti, hu: Any, axis: int, beside: str, dtype: str) -> None:
    sheared = AFFINE.copy()  # 5e-4 to the side: 0.15 mm over 300 mm
    sheared[:3, axis] += 5e-4 * np.linalg.norm(AFFINE[:3, axis]) * AFFINE[:3, 0] / np.linalg.norm(AFFINE[:3, 0])
    array = np.ascontiguousarray(hu.T).astype(dtype)
    ct = read_ct(nifti(array=array, sform=sheared, codes=(1, 0)))
    assert np.array_equal(ct.array_zyx, hu)
    assert ct.warnings == (
        f"the axes of the voxel grid are 0.029 degrees off a right angle, {beside} axis; the grid was straightened",
    )
    assert np.allclose(ct.geometry.direction_matrix.T @ ct.geometry.direction_matrix, np.eye(3), atol=1e-12)
    assert ct.geometry.spacing_mm == pytest.approx((0.8, 0.9, 2.5), rel=1e-5)
    centre = np.array([[11.5, 9.5, 5.5]])
    assert np.allclose(ct.geometry.world_mm(centre)[0], (sheared @ [*centre[0], 1])[:3] * [-1, -1, 1], atol=1e-4)


def test_a_shear_of_more_than_half_a_voxel_is_told_in_degrees_and_mm(nifti: Nifti) -> None:
    sheared = AFFINE.copy()
    for lean, allowed in ((0.014, True), (0.015, False)):  # times 11 steps of 2.5 mm: 0.39 and 0.41 mm; half a voxel is 0.40 mm
        sheared[:3, 2] = 2.5 * np.array([lean, 0, np.sqrt(1 - lean**2)])
        if allowed:
            assert "0.802 degrees off a right angle" in read_ct(nifti(sform=sheared, codes=(1, 0))).warnings[0]
            continue
        with pytest.raises(
            ImageError, match=r"sheared .* 0.859 degrees off a right angle, 0.41 mm at the end of the z axis; up to 0.40"
        ):
            read_ct(nifti(sform=sheared, codes=(1, 0)))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_rounded_directions_of_other_formats(tmp_path: Path, hu: Any, suffix: str) -> None:
    image = Geometry((24, 20, 12), (0.8, 0.9, 2.5)).image(hu)
    for lean in (5e-4, 2e-3):
        image.SetDirection((1, 0, lean, 0, 1, 0, 0, 0, 1))
        sitk.WriteImage(image, str(tmp_path / f"ct{suffix}"))
        ct = read_ct(tmp_path / f"ct{suffix}")
        assert np.array_equal(ct.array_zyx, hu)
        assert f"{np.degrees(lean):.3f} degrees off a right angle" in ct.warnings[0]
        assert in_memory(sitk.ReadImage(str(tmp_path / f"ct{suffix}"))).warnings == ct.warnings
        write_label_map(tmp_path / "out.nii.gz", np.zeros(hu.shape, np.uint8), ct.geometry)  # ITK refuses a sheared NIfTI
    image.SetDirection((1, 0, 0.05, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / f"ct{suffix}"))
    with pytest.raises(
        ImageError, match=rf"ct{suffix}: the voxel grid is sheared .*2.8.. degrees off a right angle, 1.3[78] mm"
    ):
        read_ct(tmp_path / f"ct{suffix}")


def test_an_ending_in_upper_case(nifti: Nifti, tmp_path: Path, hu: Any) -> None:
    sheared = AFFINE.copy()
    sheared[0, 2] = 1e-3
    for sform in (AFFINE, sheared):
        path = tmp_path / "P1.NII.GZ"
        path.write_bytes(gzip.compress(nifti(sform=sform, codes=(1, 0)).read_bytes()))
        ct = read_ct(path)
        assert ct.name == "P1"
        assert np.array_equal(ct.array_zyx, hu)


@pytest.mark.parametrize("codes", [(1, 1), (1, 0)])
def test_a_sform_whose_axes_lie_in_one_plane(nifti: Nifti, codes: Any) -> None:
    flat = AFFINE.copy()
    flat[:2, 1] = -0.9, 0
    with pytest.raises(ImageError, match="axes of the NIfTI header's sform lie in one plane"):
        read_ct(nifti(sform=flat, codes=codes))


def test_nan_in_the_sform(nifti: Nifti) -> None:
    for offset in (280, 292):
        with pytest.raises(ImageError, match="qform or sform holds NaN"):
            read_ct(nifti({offset: ("<f", float("nan"))}))


@pytest.mark.parametrize(("slope", "inter", "dtype"), [(1.0, -24.0, np.int16), (2.0, 0.0, np.int16), (0.3, -10.0, np.float32)])
def test_scaling_is_applied(nifti: Nifti, hu: Any, slope: float, inter: float, dtype: Any) -> None:
    ct = read_ct(nifti({112: ("<f", slope), 116: ("<f", inter)}))
    assert ct.array_zyx.dtype == dtype
    assert np.allclose(ct.array_zyx, np.float32(slope) * hu + inter, atol=1e-4)


@pytest.mark.parametrize(("slope", "inter"), [(0.0, 0.0), (NAN, NAN), (NAN, 0.0)])
def test_a_slope_of_0_or_nan_means_no_scaling(nifti: Nifti, hu: Any, slope: float, inter: float) -> None:
    """0 by the NIfTI-1 standard, of scl_slope; NaN by nibabel, whose headers state it, and ITK."""
    assert np.array_equal(read_ct(nifti({112: ("<f", slope), 116: ("<f", inter)})).array_zyx, hu)


@pytest.mark.parametrize(
    ("slope", "inter"),
    [(0.0, 5.0), (0.0, NAN), (INF, 0.0), (-INF, 0.0), (1.0, NAN), (1.0, INF), (NAN, 5.0), (1e-40, 0.0)],
)
def test_ambiguous_scaling(nifti: Nifti, slope: float, inter: float) -> None:
    with pytest.raises(ImageError, match="is read as different HU by different programs"):
        read_ct(nifti({112: ("<f", slope), 116: ("<f", inter)}))


def test_dimensions(nifti: Nifti, hu: Any) -> None:
    xyz = hu.transpose(2, 1, 0)
    assert np.array_equal(read_ct(nifti(array=xyz[..., None])).array_zyx, hu)
    for array, message in (
        (np.stack([xyz, xyz], -1), r"expected one 3D volume, found size 24x20x12x2: several volumes"),
        (xyz[..., 0], r"found size 24x20: a 2D picture"),
        (xyz[..., :1], r"found a single slice \(size 24x20x1\)"),
        (xyz[:4, :4], r"at least 1000 voxels, found size 4x4x12"),
    ):
        with pytest.raises(ImageError, match=message):
            read_ct(nifti(array=np.ascontiguousarray(array)))


def test_a_trailing_axis_of_one_in_memory(hu: Any) -> None:
    image = sitk.JoinSeries([Geometry((24, 20, 12), (0.8, 0.9, 2.5)).image(hu)])
    assert np.array_equal(in_memory(image).array_zyx, hu)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: np.stack([a] * 3, -1), "one value per voxel, found 3"),
        (lambda a: (a > 0).astype(np.uint8), "found an 8-bit picture or a mask"),
        (lambda a: np.full_like(a, -1000), "every voxel is -1000; expected a CT"),
        (lambda a: a + 1024, r"found values 24 to 1223: this looks like a CT stored as HU \+ 1024"),
        (
            lambda a: np.where(a > 150, -2000, a + 1024),
            r"found values 24 to 1174 beside padding of -2000: this looks like a CT stored as",
        ),
        (
            lambda a: np.where(a > 190, -1000, np.where(a > 150, -3024, a + 1024)),
            r"found values 24 to 1174 beside padding of -3024 and -1000: this looks like a CT stored as HU \+ 1024",
        ),
        (lambda a: np.clip(a, -160, 240), "looks like a CT cut to a window, or an MR"),
        (lambda a: a / 300.0 + 3.5, "looks like a picture scaled to grey values"),
        (lambda a: a / 300.0, "looks like normalised intensities"),
        (lambda a: a - 1024, "only 0 % of the voxels lie in -150..250 HU"),
        (lambda a: np.where(a > 150, np.nan, a), r"\d+ of 5760 voxels are NaN or infinite"),
        (lambda a: np.where(a > 150, np.inf, a), r"\d+ of 5760 voxels are NaN or infinite"),
        (lambda a: a + 1j, "found complex numbers"),
    ],
)
def test_values_that_are_not_hu(hu: Any, change: Callable[..., Any], message: str) -> None:
    array = change(hu)
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    with pytest.raises(ImageError, match=f"memory: .*{message}"):
        in_memory(image)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nan_in_a_file_of_any_format(tmp_path: Path, hu: Any, geometry: Geometry, suffix: str) -> None:
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(geometry.image(np.where(hu > 150, np.nan, hu).astype(np.float32)), str(path))
    with pytest.raises(ImageError, match=rf"ct{suffix}: {np.count_nonzero(hu > 150)} of 5760 voxels are NaN or infinite"):
        read_ct(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_nan_in_a_nifti_of_any_byte_order(tmp_path: Path, hu: Any, order: str) -> None:
    array = hu.transpose(2, 1, 0).astype(f"{order}f4")
    image = nibabel.Nifti1Image(array, AFFINE, nibabel.Nifti1Header(endianness=order))
    image.to_filename(tmp_path / "ct.nii.gz")
    assert np.array_equal(read_ct(tmp_path / "ct.nii.gz").array_zyx, hu)
    array[0, 0, 0] = np.nan
    image.to_filename(tmp_path / "ct.nii.gz")
    with pytest.raises(ImageError, match="1 of 5760 voxels are NaN or infinite"):
        read_ct(tmp_path / "ct.nii.gz")


def test_a_broken_offset_of_the_voxels(nifti: Nifti) -> None:
    for offset in (np.nan, -1.0):
        with pytest.raises(ImageError, match="vox_offset is broken"):
            read_ct(nifti({108: ("<f", offset)}))


def test_types(hu: Any) -> None:
    for dtype in (np.int32, np.int64, np.float32, np.float64):
        ct = in_memory(sitk.GetImageFromArray(hu.astype(dtype)))
        assert ct.array_zyx.dtype == np.int16
        assert np.array_equal(ct.array_zyx, hu)
    assert in_memory(sitk.GetImageFromArray(hu + 0.25)).array_zyx.dtype == np.float32
    high = hu.astype(np.int32)
    high[0, 5, 5] = 40000  # metal on an extended scale
    assert in_memory(sitk.GetImageFromArray(high)).array_zyx.max() == 40000


@pytest.mark.parametrize(
    ("suffix", "field", "new", "message"),
    [
        (".mha", b"ElementSpacing", b"Comment = x", "states no spacing"),
        (".mha", b"ElementSpacing", b"ElementSpacing = nan 0.9 2.5", "cut off, damaged"),
        (".mha", b"ElementSpacing", b"ElementSpacing = 0 0.9 2.5", "cut off, damaged"),
        (".nrrd", b"space directions", b"spacings: 0.8 nan 2.5", "cut off, damaged|expected a positive spacing"),
        (".mha", b"ElementSpacing", b"ElementSpacing = -0.8 0.9 2.5", "expected a positive spacing, found ElementSpacing -0.8"),
        (".mha", b"Offset", b"Offset = nan 0 0", "expected a finite origin, found Offset nan"),
        (".mha", b"TransformMatrix", b"TransformMatrix = 1 0 0 1 0 0 0 0 1", "the axes of its grid lie in one plane"),
        (".nrrd", b"space directions", b"space directions: (1,0,0) (1,0,0) (0,0,1)", "the axes of its grid lie in one plane"),
        (".nrrd", b"space directions", b"space directions: (0.8,0,0) (0,0.9,0) none", "an axis of the image has no direction"),
        (".nrrd", b"space directions", b"# x", "states no spacing"),
        (".nrrd", b"space directions", b"space directions: (0,0,0) (0,0.9,0) (0,0,2.5)", "cut off, damaged"),
        (".nrrd", b"space directions", b"space directions: (0.8,0,0.2) (0,0.9,0) (0,0,2.5)", "not orthonormal"),
    ],
)
def test_text_headers(tmp_path: Path, hu: Any, suffix: str, field: bytes, new: bytes, message: str) -> None:
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(Geometry((24, 20, 12), (0.8, 0.9, 2.5)).image(hu), str(path))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(new if line.startswith(field) else line for line in lines))
    with pytest.raises(ImageError, match=rf"ct{suffix}: .*{message}"):
        read_ct(path)


@pytest.mark.parametrize("mask", [False, True])
def test_a_masked_array_is_refused(hu: Any, geometry: Geometry, mask: bool) -> None:
    """Its mask would be dropped in silence; the voxels below it would count."""
    array = np.ma.MaskedArray(hu, mask=mask)
    said = f"expected a plain array, found a masked one \\(numpy.ma, {5760 * mask} of 5760 voxels masked"
    for use in (lambda: CT(array, geometry, "a", "memory"), lambda: geometry.image(array)):
        with pytest.raises(ImageError, match=said):
            use()


def test_a_ct_holds_an_array_of_its_grid(hu: Any, geometry: Geometry) -> None:
    with pytest.raises(GridError, match=r"shape \(11, 20, 24\) on a grid of \(12, 20, 24\)"):
        CT(hu[1:], geometry, "a", "memory")


def test_public_cts(public_data: Path) -> None:
    ct = read_ct(public_data / "totalseg" / "example_ct.nii.gz")
    assert ct.geometry.size_xyz == (122, 101, 112)
    assert ct.geometry.spacing_mm == pytest.approx((3, 3, 3))
    assert read_ct(public_data / "dcmqi" / "ct-3slice").array_zyx.shape == (3, 512, 512)


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="file names of this system are Unicode")
def test_a_name_that_is_not_utf8_is_an_error_wherever_itk_would_end_the_process(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/M\xfcller"))
    folder.mkdir()
    geometry = Geometry((4, 4, 4), (1.0, 1.0, 1.0))
    for ending in ("nii.gz", "nrrd"):
        sitk.WriteImage(geometry.image(np.zeros((4, 4, 4), np.int16)), str(tmp_path / f"ct.{ending}"))
        (tmp_path / f"ct.{ending}").rename(folder / f"ct.{ending}")
    readers: tuple[Callable[[Path], Any], ...] = (
        read_ct, read_grid, announced_voxels, header_geometry, read_segmentation, read_label_map,
    )  # fmt: skip
    for read in readers:
        for ending in ("nii.gz", "nrrd"):
            with pytest.raises(
                ImageError, match=r"M\\udcfcller/ct.*: the name of this file, or of a folder above it, is not UTF-8"
            ):
                read(folder / f"ct.{ending}")
    with pytest.raises(ImageError, match="is not UTF-8; rename it"):
        read_ct(folder)  # a DICOM folder: its records could not be written
    with pytest.raises(OutputError, match="cannot be written: its name is not UTF-8"):
        write_label_map(folder / "map.nii.gz", np.zeros((4, 4, 4), np.uint8), geometry)
