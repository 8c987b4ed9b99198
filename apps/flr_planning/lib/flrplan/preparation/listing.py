"""The dry run: which file would be taken as what, in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flrplan.errors import FlrError
from flrplan.preparation.seg_frames import open_seg, segment_labels
from flrplan.preparation.segment_roles import segment_role
from flrplan.preparation.sources import CaseSource, FileLabels, MaskFile, SegLabel

UNUSED_SHOWN = 20


def listing(cases: Sequence[CaseSource], unused: Sequence[Path] = ()) -> str:
    """A few lines per case, then the label files that nothing claimed, then the counts. No voxel is read."""
    lines: list[str] = []
    for case in cases:
        lines.append(case.case_id)
        if case.problem is not None:
            lines.append(f"  {case.problem.kind}: {case.problem.reason}")
            continue
        lines.append(f"  image  {case.image}")
        lines += [f"  {line}" for line in _label_lines(case)]
        lines += [f"  tumours told apart by  {path}" for path in case.instance_files()]
    lines += unused_lines(unused)
    usable = sum(c.problem is None for c in cases)
    lines.append(f"{usable} cases would be prepared, {len(cases) - usable} left out; nothing was written")
    return "\n".join(lines) + "\n"


def unused_lines(unused: Sequence[Path]) -> list[str]:
    """The label files that nothing claimed, the first of them by name. Empty where there is none."""
    if not unused:
        return []
    lines = [f"not used: {len(unused)} image files below the labels", *(f"  {p}" for p in unused[:UNUSED_SHOWN])]
    return lines + [f"  ... and {len(unused) - UNUSED_SHOWN} more"] * (len(unused) > UNUSED_SHOWN)


def _label_lines(case: CaseSource) -> list[str]:
    if isinstance(case.labels, SegLabel):
        return [f"SEG    {case.labels.path}", *_segments(case.labels.path)]
    if not isinstance(case.labels, FileLabels):
        return []
    lines = [_line(str(structure), file) for structure, file in case.labels.masks.items()]
    return lines + ([_line("planning map", case.labels.planning_map)] if case.labels.planning_map else [])


def _line(name: str, file: MaskFile) -> str:
    values = f", values {list(file.values)}" if file.values else ""
    return f"{name:<6} {file.path}  (by {file.pattern!r}{values})"


def _segments(path: Path) -> list[str]:
    try:
        labels = segment_labels(open_seg(path), str(path))
    except FlrError as error:
        return [f"broken: {error}"]
    return [f"  {number:>3} {label!r} -> {segment_role(label)}" for number, label in labels.items()]
