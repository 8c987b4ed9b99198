"""What one case is made of, before anything is read: its CT, its labels, or why it cannot be prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from flrplan.anatomy import Structure
from flrplan.errors import SettingsError
from flrplan.files import files_below
from flrplan.image.dicom_files import is_dicom
from flrplan.image.volume_file import image_suffix


class SourceKind(StrEnum):
    """Where labels come from; a work folder holds cases of one kind."""

    TCIA = "tcia"
    REFINED = "refined"
    FOLDER = "folder"


class ProblemKind(StrEnum):
    """Missing: a file is not there (a download can lack one). Broken: it is there and cannot be used."""

    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True)
class Problem:
    """Why a case is left out."""

    case_id: str
    kind: ProblemKind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.case_id}: {self.reason}"


@dataclass(frozen=True)
class SegLabel:
    """All structures in one DICOM SEG with overlapping segments."""

    path: Path


@dataclass(frozen=True)
class MaskFile:
    """One structure in one file: every voxel that is not 0, or those of ``values``. ``pattern``: what it was found by."""

    path: Path
    values: tuple[int, ...] | None = None
    pattern: str = ""


@dataclass(frozen=True)
class FileLabels:
    """A file per structure; what has none is taken from the planning map (values 0..4), if there is one."""

    masks: Mapping[Structure, MaskFile] = field(default_factory=dict)
    planning_map: MaskFile | None = None


MAX_LESION_DISTANCE_MM = 10.0
"""A piece of a refined CRLM farther than this from every original tumour is a lesion of its own. More than the data set's widest
slice spacing (7.5 mm), so that a piece in the next slice still belongs to its tumour."""


@dataclass(frozen=True)
class InstanceSource:
    """Original labels whose tumours divide the CRLM of labels that do not tell lesions apart: one SEG, or layers of a work folder."""

    files: tuple[Path, ...]
    is_layers: bool = False
    max_distance_mm: float = MAX_LESION_DISTANCE_MM

    def __post_init__(self) -> None:
        if not self.max_distance_mm >= 0:
            raise SettingsError(f"the distance of a lesion of its own must be 0 mm or more, got {self.max_distance_mm}")


@dataclass(frozen=True)
class CaseSource:
    """One case. ``series``: SeriesInstanceUID of the CT; ``images_expected``: slices that the download announces.

    ``instances``: where lesions are told apart if ``labels`` does not; a SEG tells them itself.
    """

    case_id: str
    image: Path | None = None
    labels: SegLabel | FileLabels | None = None
    series: str | None = None
    images_expected: int | None = None
    problem: Problem | None = None
    instances: InstanceSource | None = None

    def image_files(self) -> list[Path]:
        """The file of the CT, or every DICOM file below its folder, sorted."""
        if self.image is None:
            return []
        if self.image.is_dir():
            return [p for p in files_below(self.image) if p.is_file() and image_suffix(p) is None and is_dicom(p)]
        return [self.image]

    def label_files(self) -> list[Path]:
        """Every label file once, in the order of the structures."""
        if isinstance(self.labels, SegLabel):
            return [self.labels.path]
        if self.labels is None:
            return []
        held = [self.labels.masks[s].path for s in Structure if s in self.labels.masks]
        held += [self.labels.planning_map.path] if self.labels.planning_map is not None else []
        return list(dict.fromkeys(held))

    def instance_files(self) -> list[Path]:
        """The files that ``instances`` names."""
        return [] if self.instances is None else list(self.instances.files)


def left_out(case_id: str, kind: ProblemKind, reason: str) -> CaseSource:
    """A case that cannot be prepared, with the reason."""
    return CaseSource(case_id, problem=Problem(case_id, kind, reason))
