"""Cases of any folder, and of refined labels beside CTs from elsewhere: images and label files brought together."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from flrplan.image import CHANNEL, case_name, find_cases
from flrplan.preparation.layout import FOLDER_LAYOUT, Layout, find_label_files
from flrplan.preparation.sources import CaseSource, InstanceSource, ProblemKind, SegLabel, left_out
from flrplan.preparation.without_image import cases_without_image, missing_image
from flrplan.workfolder import WorkFolder, layer_paths
from flrplan.workfolder.cases import require_no_nnunet_data


@dataclass(frozen=True)
class FoundCases:
    """Sources, also of cases that cannot be prepared, and label files that the layout gives to nobody."""

    cases: tuple[CaseSource, ...]
    unused: tuple[Path, ...] = ()


def image_sources(folder: Path) -> list[CaseSource]:
    """CTs of a folder without labels: image files and DICOM folders; nnU-Net's ``<case>_0000`` is ``<case>`` where all are called so.

    Raises: ImageError where there is none.
    """
    sources = [CaseSource(case_name(p), p) for p in find_cases([folder])]
    if all(s.case_id.endswith(CHANNEL) for s in sources):
        return [replace(s, case_id=s.case_id.removesuffix(CHANNEL)) for s in sources]
    return sources


def with_original_tumours(images: list[CaseSource], images_root: Path | None, max_distance_mm: float) -> list[CaseSource]:
    """The same CTs with where their original labels tell tumours apart, which refined labels are divided among.

    That is the SEG that came with a CT; of CTs in a folder ``images_root``, the ``instances/<case>`` beside it, as in a prepared work
    folder. A CT with neither stays as it is. Raises: LabelError for incomplete layers.
    """
    cases = []
    for case in images:
        layers = layer_paths(WorkFolder(images_root.parent).instances / case.case_id) if images_root else ()
        if isinstance(case.labels, SegLabel):
            case = replace(case, instances=InstanceSource((case.labels.path,), max_distance_mm=max_distance_mm))
        elif layers:
            case = replace(case, instances=InstanceSource(layers, True, max_distance_mm))
        cases.append(case)
    return cases


def find_folder_cases(root: Path, layout: Layout = FOLDER_LAYOUT) -> FoundCases:
    """Cases of ``root/images``, or nnU-Net's ``root/imagesTr``, with labels below ``root``.

    Raises: ImageError without images, SettingsError without labels, LabelError for nnU-Net's labels without a layout that reads them.
    """
    images = root / "images"
    if not images.is_dir() and (root / "imagesTr").is_dir():
        if layout is FOLDER_LAYOUT:
            require_no_nnunet_data(root)
        images = root / "imagesTr"
    return with_labels(image_sources(images), root, layout, images)


def with_labels(images: list[CaseSource], labels_root: Path, layout: Layout, images_root: Path | None = None) -> FoundCases:
    """The same CTs with label files from ``labels_root``; labels that came with the CTs are dropped.

    A CT that is missing stays missing; one whose SEG is missing does not need it here. A case that has label files and no CT
    comes as missing, too. images_root: where the CTs lie; if that is below ``labels_root``, its files are no labels.
    """
    found = find_label_files(layout, labels_root, [c.case_id for c in images])
    cases = []
    for case in images:
        held = found.labels[case.case_id]
        if case.image is None:
            cases.append(case)
        elif case.case_id in found.problems:
            cases.append(left_out(case.case_id, ProblemKind.BROKEN, found.problems[case.case_id]))
        elif not held.masks and held.planning_map is None:
            reason = f"no label file below {labels_root} fits the layout; see --dry-run"
            cases.append(left_out(case.case_id, ProblemKind.MISSING, reason))
        else:
            cases.append(replace(case, labels=held, problem=None))
    unused = {name: path for name, path in found.unused.items() if not _is_image(labels_root / name, labels_root, images_root)}
    alone = cases_without_image(unused, layout, [case.case_id for case in images])
    cases += [missing_image(case_id, files) for case_id, files in alone.items()]
    theirs = {path for files in alone.values() for path in files}
    return FoundCases(tuple(cases), tuple(path for path in unused.values() if path not in theirs))


def _is_image(path: Path, labels_root: Path, images_root: Path | None) -> bool:
    """Whether a file below ``labels_root`` lies in the folder of CTs further down."""
    if images_root is None:
        return False
    file, labels, images = (Path(os.path.abspath(p)) for p in (path, labels_root, images_root))  # links stay links
    return labels in images.parents and images in file.parents
