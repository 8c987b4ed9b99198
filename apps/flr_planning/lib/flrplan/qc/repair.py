"""Repairs of a label, only where they are asked for, as new masks: the label itself is never changed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flrplan.anatomy import PLANNED, Structure, structure_mask, to_compartments
from flrplan.errors import SettingsError
from flrplan.image import write_label_map
from flrplan.qc.case import QcCase
from flrplan.qc.registry import RULES, Settings, check_settings
from flrplan.workfolder import WorkFolder


def check_repairs(rules: Sequence[str]) -> None:
    """Raises SettingsError for a rule that is unknown or has no repair."""
    able = [name for name, rule in RULES.items() if rule.repair is not None]
    wrong = [name for name in rules if name not in able]
    if wrong:
        raise SettingsError(f"no repair for {', '.join(wrong)}; repairs exist for {', '.join(able)}")


def repaired(case: QcCase, rules: Sequence[str], settings: Settings | None = None) -> tuple[QcCase, dict[str, int]]:
    """The case with these rules' repairs, in the registry's order where a rule finds something, and the voxels that each changed.

    Raises: SettingsError for a rule that has no repair.
    """
    check_repairs(rules)
    changed: dict[str, int] = {}
    for name, thresholds in check_settings(settings or {}, rules).items():
        rule = RULES[name]
        if rule.repair is None or rule.lacks(case) or not rule.find(case, **thresholds):
            continue
        masks = {s: case.canonical.backward(m) for s, m in rule.repair(case, **thresholds).items()}
        voxels = sum(int(np.count_nonzero(mask ^ case.masks[s])) for s, mask in masks.items())
        if voxels:
            changed[name] = voxels
            case = replace(case, masks={**case.masks, **masks})
    return case, changed


def remove_repaired(name: str, folder: Path) -> None:
    """Removes what an earlier run wrote of a case."""
    WorkFolder(folder).label(name).unlink(missing_ok=True)
    shutil.rmtree(WorkFolder(folder).masks / name, ignore_errors=True)


def write_repaired(case: QcCase, folder: Path) -> None:
    """Writes the planning map ``labels/CASE.nii.gz`` where it can hold all that the label states, else ``masks/CASE/STRUCTURE.nii.gz``.

    What an earlier repair wrote of the case in the other form is removed. Raises: OutputError.
    """
    work = WorkFolder(folder)
    planning_map = work.label(case.name)
    if set(PLANNED) <= set(case.masks):
        planning, lost = to_compartments(*(case.masks[s] for s in PLANNED))
        lrs = case.masks.get(Structure.LRS)
        if not lost.findings() and (lrs is None or np.array_equal(lrs, structure_mask(planning, Structure.LRS))):
            write_label_map(planning_map, planning, case.geometry)
            shutil.rmtree(work.masks / case.name, ignore_errors=True)
            return
    for structure, mask in case.masks.items():
        write_label_map(work.mask(case.name, structure), mask, case.geometry)
    planning_map.unlink(missing_ok=True)
