"""Precision and recall of the rules of label QC on planted faults, in memory: every kind in every case, and each case without a fault.

    python benchmark/qc_rules.py --seed 605 --cases 24 --out qc_rules.json     # 24 medium cases: about 12 CPU minutes, 1 GB
    python benchmark/qc_rules.py --seed 605 --cases 2 --size small --out x.json   # the same in small, one minute

A rule is right where, of its kind of fault, it says something that it does not say of the same case without one. Notes do not count.
Which seeds thresholds were chosen on stands in docs/qc.md; one is measured once. Cases that are done are kept in ``--out`` and not done again.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from flrplan.anatomy import Mask, Structure, structure_mask
from flrplan.cohort import FaultKind, FaultyLabel, SyntheticCase, make_case, plant_fault
from flrplan.cohort.faults import true_label
from flrplan.files import write_json
from flrplan.image import CT
from flrplan.qc import RULES, Finding, QcCase, Severity, check_case
from script import at_least, run_script

log = logging.getLogger("qc_rules")

RULE_OF: Mapping[FaultKind, str] = {
    FaultKind.VOID: "voids",
    FaultKind.RAGGED: "rough_liver",
    FaultKind.OUTSIDE: "crlm_outside",
    FaultKind.PUNCTATE: "punctate",
    FaultKind.OVERSEGMENTED: "oversegmented",
    FaultKind.MISSED: "missed",
    FaultKind.RAGGED_CUT: "rough_flr",
    FaultKind.ISLAND: "islands",
    FaultKind.FLR_OUTSIDE: "flr_outside",
    FaultKind.UNLIKE: "partition",
    FaultKind.PIECES: "flr_pieces",
    FaultKind.SHELL: "shell",
    FaultKind.CUT_OFF: "in_view",
    FaultKind.SPACING: "volumes",
    FaultKind.ORGAN: "not_liver",
    FaultKind.VESSELS: "not_liver",
    FaultKind.OTHER_GRID: "grids",
    FaultKind.LEFT_RIGHT: "swapped",
    FaultKind.UP_DOWN: "swapped",
}
"""The rule that must find a kind of fault."""

_ANYTHING = frozenset(RULES)
ALSO: Mapping[FaultKind, frozenset[str]] = {
    FaultKind.RAGGED: frozenset({"voids", "islands", "flr_pieces"}),
    FaultKind.RAGGED_CUT: frozenset({"shell", "flr_pieces"}),
    FaultKind.VOID: frozenset({"rough_liver"}),
    FaultKind.OTHER_GRID: frozenset({"volumes"}),
    FaultKind.CUT_OFF: frozenset({"volumes", "islands", "flr_pieces"}),
    **dict.fromkeys(
        (FaultKind.SPACING, FaultKind.ORGAN, FaultKind.VESSELS, FaultKind.LEFT_RIGHT, FaultKind.UP_DOWN), _ANYTHING
    ),
}
"""Rules that may rightly speak as well: a ragged border has bays and crumbs, another slice spacing another volume, and where the liver is
elsewhere nothing is right."""

OF_THE_CASE = frozenset({"in_view", "thick_slices", "contrast_phase", "islands", "punctate", "flr_pieces"})
"""Rules that state what can be counted in the label: of a label without faults, what they say is so (a scan that ends within the liver, a
true lesion below 5 mm, a true remnant in two)."""

IN_NOTES = frozenset({"oversegmented"})
"""Rules that speak in notes alone, because they are wrong too often; measured all the same."""

LEAST_ML: Mapping[FaultKind, float] = {
    FaultKind.VOID: 0.05,
    FaultKind.OUTSIDE: 0.1,
    FaultKind.OVERSEGMENTED: 0.5,
    FaultKind.MISSED: 0.5,
    FaultKind.ISLAND: 0.1,
    FaultKind.FLR_OUTSIDE: 0.5,
    FaultKind.UNLIKE: 0.5,
    FaultKind.PIECES: 0.5,
    FaultKind.SHELL: 5.0,
}
"""The stated size: of the largest fault of a label."""
HUMAN_ML = (500.0, 5000.0)
"""A wrong spacing makes a volume outside of this."""
LEAST_EXCESS_MM = 5.0
"""An over-segmented lesion is drawn at least so much too wide."""
LEAST_CONTRAST = {FaultKind.MISSED: 3.3, FaultKind.OVERSEGMENTED: 5.0}
"""And of what is seen by its HU: in spreads of the liver's, as the two rules say."""


def qc_case(case: SyntheticCase, label: FaultyLabel) -> QcCase:
    """The label and its image, as they would be read from files."""
    hu = case.hu_zyx if label.view is None else np.ascontiguousarray(case.hu_zyx[label.view])
    grid = label.image_geometry or case.geometry
    masks: dict[Structure, Mask] = {Structure.LIVER: label.liver, Structure.CRLM: label.crlm, Structure.FLR: label.flr}
    if label.lrs is not None:
        masks[Structure.LRS] = label.lrs
    same = grid.is_same_grid(label.geometry)
    ct = CT(hu, grid, case.case_id, "synthetic") if same else None
    return QcCase(case.case_id, label.geometry, masks, ct, {} if same else {"image": grid})


def counted(findings: Sequence[Finding]) -> set[tuple[str, str]]:
    """Rule and message of every finding but notes, though with those of :data:`IN_NOTES`."""
    return {(f.rule, f.message) for f in findings if f.severity is not Severity.NOTE or f.rule in IN_NOTES}


def stated(case: SyntheticCase, label: FaultyLabel, clean: QcCase) -> bool:
    """Whether the fault is of the size, and the contrast, from which on its rule promises to find it."""
    kind = label.faults[0].kind
    largest = max(max(f.voxels_added, f.voxels_removed) for f in label.faults) * case.geometry.voxel_volume_ml
    if largest < LEAST_ML.get(kind, 0.0):
        return False
    truth = structure_mask(case.planning_zyx, Structure.LIVER)
    if kind is FaultKind.SPACING:
        return not HUMAN_ML[0] <= np.count_nonzero(label.liver) * label.geometry.voxel_volume_ml <= HUMAN_ML[1]
    if kind is FaultKind.VOID:
        return bool((ndimage.binary_fill_holes(label.liver) & ~label.liver & truth).any())
    if kind not in (FaultKind.MISSED, FaultKind.OVERSEGMENTED):
        return True
    look = clean.coarse.look
    if look is None:
        return False
    tumour = structure_mask(case.planning_zyx, Structure.CRLM)
    lesion = tumour & ~label.crlm if kind is FaultKind.MISSED else tumour
    part = clean.canonical.forward(lesion)[clean.box][:, :: clean.step, :: clean.step]
    if kind is FaultKind.OVERSEGMENTED:  # of those that were swollen, the best seen
        grown = clean.canonical.forward(label.crlm & ~tumour)[clean.box][:, :: clean.step, :: clean.step]
        pieces, _ = ndimage.label(part, np.ones((3, 3, 3)))
        touched = [n for n in np.unique(pieces[ndimage.binary_dilation(grown)]) if n]
        darker = [look.median - float(np.median(look.smooth[pieces == n])) for n in touched]
        wide = (
            float(ndimage.distance_transform_edt(~part, sampling=clean.coarse.spacing_zyx_mm)[grown].max())
            if grown.any()
            else 0.0
        )
        return bool(darker) and max(darker) >= LEAST_CONTRAST[kind] * look.spread and wide >= LEAST_EXCESS_MM
    thick = 2 * float(ndimage.distance_transform_edt(part, sampling=clean.coarse.spacing_zyx_mm).max())
    return (
        bool(part.any())
        and thick >= 10.0
        and look.median - float(np.median(look.smooth[part])) >= LEAST_CONTRAST[kind] * look.spread
    )


def measure_case(seed: int, index: int, size: str, kinds: Sequence[FaultKind] = tuple(FaultKind)) -> dict[str, Any]:
    """What every rule says of one case without a fault and with each of these kinds of fault."""
    case = make_case(seed, index, size)
    clean = qc_case(case, true_label(case))
    started = time.process_time()
    before = counted(check_case(clean).findings)
    result: dict[str, Any] = {
        "case": case.case_id,
        "situs_inversus": case.facts["situs_inversus"],
        "seconds": round(time.process_time() - started, 2),
        "clean": sorted(before),
        "kinds": {},
    }
    for kind in kinds:
        label = plant_fault(case, kind, seed, index)
        if not label.faults:
            continue
        new = counted(check_case(qc_case(case, label)).findings) - before
        result["kinds"][kind.name] = {"stated": stated(case, label, clean), "new": sorted(new)}
    return result


def tables(cases: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row a rule, and the findings on labels without faults."""
    lines = [
        "| rule | faults | recall, all | above the stated size | recall there | false | precision |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in RULES:
        kinds = [kind for kind, name in RULE_OF.items() if name == rule]
        if not kinds:
            continue
        rows = [
            case["kinds"][k.name]
            for case in cases
            for k in kinds
            if k.name in case["kinds"] and not (k is FaultKind.CUT_OFF and any(name == rule for name, _ in case["clean"]))
        ]  # a scan that ends within the liver already says the same of a second cut
        hits = [any(name == rule for name, _ in row["new"]) for row in rows]
        large = [hit for hit, row in zip(hits, rows, strict=True) if row["stated"]]
        wrong = sum(
            any(name == rule for name, _ in row["new"])
            for case in cases
            if not _is_situs(rule, case)
            for name_of, row in case["kinds"].items()
            if FaultKind[name_of] not in kinds and rule not in ALSO.get(FaultKind[name_of], ())
        )
        wrong += sum(any(name == rule for name, _ in case["clean"]) for case in cases if not _of_the_case(rule, case))
        lines.append(
            f"| `{rule}` | {len(hits)} | {_ratio(sum(hits), len(hits))} | {len(large)} | {_ratio(sum(large), len(large))} | {wrong} | "
            f"{_ratio(sum(hits), sum(hits) + wrong)} |"
        )
    said = [(case["case"], *pair) for case in cases for pair in case["clean"]]
    false = [(case["case"], *pair) for case in cases for pair in case["clean"] if not _of_the_case(pair[0], case)]
    true = len(said) - len(false)
    lines += [
        "",
        f"{len(cases)} labels without faults: {len(false)} false findings, {true} findings that are true of the case.",
    ]
    lines += [f"- {case}: `{rule}`: {message}" for case, rule, message in said]
    return "\n".join(lines) + "\n"


def _of_the_case(rule: str, case: Mapping[str, Any]) -> bool:
    """Whether what a rule says of a label without faults is so."""
    return rule in OF_THE_CASE or _is_situs(rule, case)


def _is_situs(rule: str, case: Mapping[str, Any]) -> bool:
    """Whether "swapped, or situs inversus" is right because it is the latter."""
    return rule == "swapped" and bool(case.get("situs_inversus"))


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "-"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the cases that ``--out`` does not hold yet, and logs the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=at_least(0), required=True)
    parser.add_argument("--cases", type=at_least(1), default=16)
    parser.add_argument("--size", default="medium")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--again", default="", metavar="KIND,...", help="measure these kinds again in the cases that are done")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    done: list[dict[str, Any]] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else []
    again = [FaultKind[name.upper()] for name in arguments.again.split(",") if name]
    for index, case in enumerate(done if again else ()):
        kept = {name: row for name, row in case["kinds"].items() if FaultKind[name] not in again}
        done[index] = {**case, "kinds": {**kept, **measure_case(arguments.seed, index, arguments.size, again)["kinds"]}}
        write_json(arguments.out, done)
    for index in range(len(done), arguments.cases):
        done.append(measure_case(arguments.seed, index, arguments.size))
        write_json(arguments.out, done)
        log.info("%s of %s cases", len(done), arguments.cases)
    log.info("%s", tables(done))
    return 0


if __name__ == "__main__":
    run_script(main)
