"""Cases of any folder, and of refined labels beside CTs from elsewhere: images and label files brought together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from flrplan.io import case_name, find_cases
from flrplan.preparation.layout import FOLDER_LAYOUT, Layout, find_label_files
from flrplan.preparation.sources import CaseSource, ProblemKind, left_out


@dataclass(frozen=True)
class FoundCases:
    """Sources sorted by id, and label files that the layout gives to nobody."""

    cases: tuple[CaseSource, ...]
    unused: tuple[Path, ...] = ()


def image_sources(folder: Path) -> list[CaseSource]:
    """CTs of a folder without labels: image files and DICOM folders. Raises ImageError where there is none."""
    return [CaseSource(case_name(p), p) for p in find_cases([folder])]


def find_folder_cases(root: Path, layout: Layout = FOLDER_LAYOUT) -> FoundCases:
    """Cases of ``root/images`` with labels below ``root``. Raises ImageError without images, SettingsError without labels."""
    images = image_sources(root / "images")
    found = with_labels(images, root, layout)
    inside = root / "images"
    return FoundCases(found.cases, tuple(p for p in found.unused if inside not in p.parents))


def with_labels(images: list[CaseSource], labels_root: Path, layout: Layout) -> FoundCases:
    """The same CTs with label files from ``labels_root``; labels that came with the CTs are dropped.

    A CT that is missing stays missing; one whose SEG is missing does not need it here.
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
    return FoundCases(tuple(cases), found.unused)
