"""Label files of cases that have no CT: whose they are, by the patterns of a layout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flrplan.preparation.glob_pattern import compile_open_pattern, compile_pattern
from flrplan.preparation.layout import Layout
from flrplan.preparation.sources import CaseSource, ProblemKind, left_out


def cases_without_image(unused: Mapping[str, Path], layout: Layout, known: Sequence[str]) -> dict[str, list[Path]]:
    """Case ids that label files name but no CT has, with these files; both sorted.

    A file that several patterns give to several ids (``p9/liver_remnant.nii.gz``: of p9, or the liver of "remnant") goes to the
    id with the most structures. A file whose path names a known case is that one's: a second version that was not used.

    Args: unused, path below the folder of labels to file: those that no case with a CT took. known: ids of the CTs.
    """
    of_known = [compile_pattern("**{case}**", case) for case in known]
    numbers = {int(found.group()) for case in known if (found := re.search(r"\d+$", case))}
    ids_of: dict[str, list[str]] = {}
    structures: dict[str, set[int]] = {}
    for name in unused:
        if any(pattern.fullmatch(name) for pattern in of_known):
            continue
        readings = _readings(name, layout)
        if any(group == "number" and int(case) in numbers for _, group, case in readings):
            continue
        ids_of[name] = [case for _, _, case in readings]
        for number, _, case in readings:
            structures.setdefault(case, set()).add(number)
    cases: dict[str, list[Path]] = {}
    for name, ids in sorted(ids_of.items()):
        if ids:
            cases.setdefault(max(ids, key=lambda case: len(structures[case])), []).append(unused[name])
    return dict(sorted(cases.items()))


def _readings(name: str, layout: Layout) -> list[tuple[int, str, str]]:
    """What the patterns read out of a path: number of the list of patterns (a structure), "case" or "number", and the id."""
    readings = []
    for number, patterns in enumerate((*layout.structures.values(), layout.planning_map)):
        for pattern in patterns:
            found = compile_open_pattern(pattern.pattern).fullmatch(name)
            readings += [(number, group, case) for group, case in found.groupdict().items()] if found else []
    return readings


def missing_image(case_id: str, files: Sequence[Path]) -> CaseSource:
    """The case of these label files, left out."""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    reason = f"label file {files[0]}{more}, but no CT of that name; add the CT, or leave the case out with --allow-missing"
    return left_out(case_id, ProblemKind.MISSING, reason)
