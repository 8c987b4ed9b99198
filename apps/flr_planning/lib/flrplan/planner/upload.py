"""What a person uploads: files of a form or a zip, bounded while they come in, and the CTs among them.

No name that a person gave reaches the file system: files are numbered, and their names are kept beside them for messages. So no path can
climb out of the folder, and no patient's name stands in one.
"""

from __future__ import annotations

import io
import math
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from flrplan.errors import ImageError, OutputError
from flrplan.files import is_junk, require_room
from flrplan.files.space import size
from flrplan.image.dicom_files import called, ct_volumes, is_dicom
from flrplan.image.volume_file import IMAGE_SUFFIXES, announced_voxels, image_suffix

_DETACHED = (".mhd", ".nhdr")
"""Headers whose voxels lie in a file that they name."""
EXPECTED = f"a DICOM folder, a zip of one, or one file ({', '.join(s for s in IMAGE_SUFFIXES if s not in _DETACHED)})"
_MOST_FILES = 20_000
_KEPT_FREE_BYTES = 500_000_000
_LOOK_EVERY_BYTES = 1 << 26
_COPIED_AT_ONCE = 1 << 20
_BYTES_OF_VOXEL = 2
"""Of HU."""
_LONGEST_LIST_BYTES = 1 << 24
"""Of a zip's directory of 46 bytes and a name for each file: room for 20,000 files with names of 700 letters."""
_OUR_NAME = re.compile(r"(?:\d{3}/)?(file-\d{5})(?:\.nii\.gz|\.\w+)?")
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, OverflowError)


@dataclass(frozen=True)
class Choice:
    """One CT of an upload: its file or folder, the series of a folder that holds several, and how it is called for a person."""

    path: Path
    series: str | None
    title: str


class Upload:
    """Files that come in, in a folder of their own, which is made. ``largest_bytes``: of all of them together."""

    def __init__(self, folder: Path, largest_bytes: int) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self._largest_bytes = largest_bytes
        self._bytes = 0
        self._names: dict[str, str] = {}
        self._kinds: dict[tuple[Path, str], str] = {}
        with _written():
            folder.mkdir()

    @contextmanager
    def new_file(self, name: str) -> Iterator[IO[bytes]]:
        """A file for what a person calls ``name``, open for :meth:`write`. Raises: ImageError where there are too many."""
        given = PurePosixPath(name.replace("\\", "/"))
        if len(self.files) == _MOST_FILES:
            raise ImageError(f"the upload holds more than {_MOST_FILES} files; upload the folder of one CT series")
        # Reading a series looks at which files are called alike, so those lie in one folder here as well.
        kind = self._kinds.setdefault(called(Path(given)), f"{len(self._kinds) % 1000:03d}")
        stem = f"file-{len(self.files):05d}"
        path = self.folder / kind / (stem + _ending(given))
        self._names[stem] = given.name
        with _written():
            path.parent.mkdir(exist_ok=True)
            with path.open("xb") as file:
                self.files.append(path)
                yield file

    def write(self, file: IO[bytes], data: bytes) -> None:
        """Raises: ImageError where the upload becomes too large, OutputError where the disk has no room left."""
        before, self._bytes = self._bytes, self._bytes + len(data)
        if self._bytes > self._largest_bytes:
            raise too_large(self._largest_bytes)
        if before == 0 or before // _LOOK_EVERY_BYTES < self._bytes // _LOOK_EVERY_BYTES:
            require_room(self.folder, _KEPT_FREE_BYTES, "an upload")
        with _written():
            file.write(data)

    def in_words(self, message: str) -> str:
        """A message with the person's own names of files, and without the folder."""
        message = message.replace(f"{self.folder}/", "").replace(str(self.folder), "the upload")
        return _OUR_NAME.sub(lambda found: self._names.get(found[1], found[0]), message)

    def name_of(self, path: Path) -> str:
        """What the person calls a file."""
        return self._names[path.name.partition(".")[0]]

    def choices(self) -> list[Choice]:
        """The CTs of the upload, by header: image files, and series of two or more CT slices.

        Raises: ImageError where there is none, with what was found, for DICOM files that cannot be read, and for an image that would be larger
        than the upload may be.
        """
        volumes = [p for p in self.files if image_suffix(p)]
        if detached := [p for p in volumes if image_suffix(p) in _DETACHED]:
            raise ImageError(
                f"{self.name_of(detached[0])} names the file that its voxels lie in, which an upload does not keep; save it as .mha or .nrrd, "
                "which hold both"
            )
        for path in volumes:
            self._require_bounded(self.name_of(path), announced_voxels(path))
        has_dicom = any(not image_suffix(p) and is_dicom(p) for p in self.files)
        series = ct_volumes(self.folder) if has_dicom else []
        found = [Choice(p, None, self.name_of(p)) for p in volumes]
        for one in series:
            sides = [one.slices[0].text(keyword) for keyword in ("Rows", "Columns")]
            if all(side.isdecimal() for side in sides):  # else reading it says what is wrong
                self._require_bounded("the DICOM series", math.prod(map(int, sides)) * len(one.slices))
            title = f"{one.slices[0].text('SeriesDescription') or 'CT without a description'}, {len(one.slices)} slices"
            found.append(Choice(self.folder, one.uid if len(series) + len(volumes) > 1 else None, title))
        if found or has_dicom:
            return found or [Choice(self.folder, None, "")]  # reading it says what the DICOM files are
        broken = [n for p in self.files if (n := self.name_of(p)).lower().endswith(".zip") and not zipfile.is_zipfile(p)]
        if broken:
            raise ImageError(f"{broken[0]}: this zip is cut off or damaged; pack it again, or upload the folder")
        zips = [self.name_of(p) for p in self.files if zipfile.is_zipfile(p)]
        if zips:
            raise ImageError(
                f"no CT in the upload, but {zips[0]}, a zip beside or inside it; unpack it, and upload the folder of the CT"
            )
        names = ", ".join(self.name_of(p) for p in self.files[:3]) + (" and others" if len(self.files) > 3 else "")
        raise ImageError(f"no CT in the upload ({names or 'it is empty'}); expected {EXPECTED}")

    def _require_bounded(self, name: str, voxels: int) -> None:
        """A compressed image unpacks to a thousand times its size, in memory: what its header announces is bounded as well."""
        if voxels * _BYTES_OF_VOXEL > self._largest_bytes:
            raise ImageError(
                f"{name}: its header announces {voxels} voxels, which unpack to more than {size(self._largest_bytes)}, the most that is taken; "
                "upload one CT"
            )


def too_large(largest_bytes: int) -> ImageError:
    """The error of an upload beyond bounds."""
    return ImageError(
        f"the upload is larger than {size(largest_bytes)}, the most that is taken; upload the folder of one CT series"
    )


def is_wanted(name: str) -> bool:
    """False for what systems leave in folders and archives, and for a part of a form that holds no file."""
    return bool(name) and not any(is_junk(Path(part)) for part in PurePosixPath(name.replace("\\", "/")).parts)


def is_lone_zip(upload: Upload) -> bool:
    """Whether the upload is one zip and nothing else."""
    return len(upload.files) == 1 and zipfile.is_zipfile(upload.files[0])


def unpack(upload: Upload, into: Upload) -> None:
    """The files of a lone zip, counted while they are unpacked: what its headers say of sizes is not believed.

    Raises: ImageError for a zip that is damaged, encrypted, or holds links or paths that climb out; what :meth:`Upload.write` raises.
    """
    name = upload.name_of(upload.files[0])
    try:
        with _ShortReads(io.FileIO(upload.files[0])) as stream, zipfile.ZipFile(stream) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                _require_harmless(member, name)
            for member in members:
                if not is_wanted(member.filename):
                    continue
                with archive.open(member) as packed, into.new_file(member.filename) as file:
                    while data := packed.read(_COPIED_AT_ONCE):
                        into.write(file, data)
    except (ImageError, OutputError):
        raise
    except _BROKEN_ZIP as error:
        raise ImageError(
            f"{name}: this zip is damaged or of a kind that is not read ({error}); pack it again, or upload the folder"
        ) from error


class _ShortReads(io.BufferedReader):
    """A file that is never read in one piece that fills the memory: zipfile takes the directory's length from the file's own header."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LONGEST_LIST_BYTES:
            raise zipfile.BadZipFile("its list of files is too long")
        return super().read(size)


def _require_harmless(member: zipfile.ZipInfo, name: str) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member.filename):
        raise ImageError(
            f"{name}: this zip holds a path that leads out of it ({member.filename}); it was not unpacked. Pack the folder again"
        )
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ImageError(
            f"{name}: this zip holds a link ({member.filename}) where a file was expected; pack the files themselves"
        )
    if member.flag_bits & 1:
        raise ImageError(f"{name}: this zip is encrypted; unpack it with its password, and upload the folder")


def _ending(name: PurePosixPath) -> str:
    """What reading looks at: the ending of an image or DICOM file, none where there is none, else that there is one."""
    path = Path(name.name)
    if suffix := image_suffix(path):
        return suffix
    ending = path.suffix.lower()
    if ending in (".dcm", ".ima", ".dicom"):
        return ending
    return "" if not ending or ending[1:].isdecimal() else ".other"


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"the upload cannot be kept ({error.strerror or error}); the administrator of this server must make room"
        ) from error
