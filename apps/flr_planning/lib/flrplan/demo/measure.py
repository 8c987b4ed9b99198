"""Measures the demo models on synthetic cases that nothing was trained or chosen on; real CTs: :mod:`flrplan.demo.real_ct`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from flrplan.anatomy import COMPARTMENTS_OF, Mask, Structure, structure_mask
from flrplan.cohort import CaseSize, SyntheticCase
from flrplan.cohort.scan import View
from flrplan.cohort.settings import COHORT_VERSION
from flrplan.demo.held_out import MEASURE_CASES, MEASURE_SEED, MEASURE_SIZE, MEASURE_WIDE, measured_case
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.engine.worker import open_cascade, opened_cascade
from flrplan.errors import EmptyLiverError
from flrplan.files import read_json, sha256_of_file, write_json
from flrplan.image import CT
from flrplan.method import CRLM, FLR, FLR_E2E
from flrplan.method.engine import APP_ENGINE
from flrplan.metrics.overlap import dice
from flrplan.workfolder import map_cases

COLUMNS = (
    "liver",
    "crlm_pipelined",
    "crlm_cascaded",
    "flr_pipelined",
    "flr_cascaded",
    "flr_e2e",
    "flr_liver_minus_tumour",
    "flr_whole_liver",
)
"""Dice columns; the last two are the trivial answers, taken from the truth."""
BOOTSTRAP_DRAWS = 10_000


@dataclass(frozen=True)
class MeasuredCase:
    """One case: its strata and its Dice per column (NaN where truth and prediction are both empty)."""

    index: int
    case_id: str
    phase: str
    slice_mm: float
    dice: Mapping[str, float]
    kind: str = "usual"


def predictions(case: SyntheticCase, cascade: Cascade, columns: Sequence[str] = COLUMNS) -> dict[str, tuple[Mask, Mask]]:
    """Truth and prediction ``(Z, Y, X) bool`` of these columns. A liver that is not found gives empty masks from there on."""
    ct = CT(case.hu_zyx, case.geometry, case.case_id, "synthetic", ())
    truth = {s: structure_mask(case.planning_zyx, s) for s in COMPARTMENTS_OF}
    liver, crlm, flr = truth[Structure.LIVER], truth[Structure.CRLM], truth[Structure.FLR]
    given = {Structure.LIVER: liver}

    @cache
    def cascaded() -> Mapping[Structure, Mask]:
        try:
            return cascade.run(ct).masks
        except EmptyLiverError:
            return dict.fromkeys(Structure, np.zeros_like(liver))

    answers: dict[str, Callable[[], tuple[Mask, Mask]]] = {
        "liver": lambda: (liver, cascaded()[Structure.LIVER]),
        "crlm_pipelined": lambda: (crlm, cascade.run(ct, given, (CRLM,)).masks[Structure.CRLM]),
        "crlm_cascaded": lambda: (crlm, cascaded()[Structure.CRLM]),
        "flr_pipelined": lambda: (flr, cascade.run(ct, {**given, Structure.CRLM: crlm}, (FLR,)).masks[Structure.FLR]),
        "flr_cascaded": lambda: (flr, cascaded()[Structure.FLR]),
        "flr_e2e": lambda: (flr, cascade.run(ct, stages=(FLR_E2E,)).masks[Structure.FLR]),
        "flr_liver_minus_tumour": lambda: (flr, liver & ~crlm),
        "flr_whole_liver": lambda: (flr, liver),
    }
    return {name: answers[name]() for name in columns}


def measure_case(case: SyntheticCase, index: int, cascade: Cascade) -> MeasuredCase:
    """Runs every stage pipelined and cascaded on one synthetic case."""
    scores = {name: dice(*pair) for name, pair in predictions(case, cascade).items()}
    return MeasuredCase(index, case.case_id, str(case.facts["phase"]), case.geometry.spacing_mm[2], scores, _kind(case))


def _kind(case: SyntheticCase) -> str:
    view = case.facts.get("view")
    return "usual" if view is None else f"wide, {'whole scan' if view == View.WHOLE.value else 'cropped'}"


def measure_synthetic(
    models: Path,
    cases: int = MEASURE_CASES,
    workers: int = 1,
    size: CaseSize = MEASURE_SIZE,
    device: str = "cpu",
    kept: Path | None = None,
) -> list[MeasuredCase]:
    """The held-out cases by the models of a folder, ``workers`` at a time; each holds up to 4 GB at full size.

    kept: a JSON file with the cases measured so far, of the same models and cohort; what is in it is not measured again.
    """
    of = {
        "models": model_weights(models),
        "engine": APP_ENGINE,
        "cohort": COHORT_VERSION,
        "seed": MEASURE_SEED,
        "wide": MEASURE_WIDE,
        "size": size.value,
    }
    stored = read_json(kept, "measured cases") if kept is not None and kept.is_file() else {}
    found = {int(index): _measured(row) for index, row in stored.get("cases", {}).items()} if stored.get("of") == of else {}
    missing = [index for index in range(cases) if index not in found]
    given = (models, None, None, _settings(device), workers)
    one = partial(_measure_index, size=size)
    for case in map_cases(one, missing, workers, "held-out cases", start=open_cascade, start_with=given):
        found[case.index] = case
        if kept is not None:
            write_json(kept, {"of": of, "cases": {index: asdict(found[index]) for index in sorted(found)}})
    return [found[index] for index in range(cases)]


def _measured(row: Mapping[str, Any]) -> MeasuredCase:
    """A case as it was kept: JSON has null for NaN."""
    return MeasuredCase(**{**row, "dice": {name: math.nan if value is None else value for name, value in row["dice"].items()}})


def model_weights(models: Path) -> dict[str, str]:
    """SHA-256 of every weight file of a folder of models, by its path in it."""
    files = sorted(models.rglob("*.pth"))
    return {path.relative_to(models).as_posix(): sha256_of_file(path) for path in files}


def demo_cascade(models: Path, device: str = "cpu") -> Cascade:
    """The cascade as the app runs it, by the models of a folder alone."""
    return Cascade(ModelStore(models, demo=None, cache_mb=0), _settings(device))


def _settings(device: str) -> CascadeSettings:
    return CascadeSettings(device=device, engine=APP_ENGINE)


def _measure_index(index: int, size: CaseSize) -> MeasuredCase:
    return measure_case(measured_case(index, size), index, opened_cascade())


def paired_difference(cases: Sequence[MeasuredCase], a: str, b: str, seed: int = 0) -> tuple[float, float, float]:
    """Mean of Dice(a) - Dice(b) over cases, with a percentile bootstrap interval of 95 % over cases."""
    differences = np.array([c.dice[a] - c.dice[b] for c in cases])
    differences = differences[~np.isnan(differences)]
    generator = np.random.default_rng(seed)
    draws = generator.choice(differences, (BOOTSTRAP_DRAWS, differences.size)).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


def summary(cases: Sequence[MeasuredCase]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation (ddof 1), minimum and number of defined values per column."""
    result = {}
    for name in COLUMNS:
        values = np.array([c.dice[name] for c in cases])
        values = values[~np.isnan(values)]
        spread = float(values.std(ddof=1)) if values.size > 1 else float("nan")
        result[name] = {"mean": float(values.mean()), "std": spread, "min": float(values.min()), "n": int(values.size)}
    return result


def as_json(cases: Sequence[MeasuredCase]) -> list[dict[str, Any]]:
    """Plain values, a row per case."""
    return [
        {"case": c.case_id, "kind": c.kind, "phase": c.phase, "slice_mm": round(c.slice_mm, 3)}
        | {k: round(v, 4) for k, v in c.dice.items()}
        for c in cases
    ]
