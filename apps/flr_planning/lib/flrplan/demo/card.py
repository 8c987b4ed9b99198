"""The model card of the demo models, written from what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from flrplan.cohort.settings import COHORT_VERSION
from flrplan.demo.build import COHORT_NAME
from flrplan.demo.held_out import FOLDS, MEASURE_SEED, TRAIN_SEED
from flrplan.demo.measure import COLUMNS, MeasuredCase, paired_difference, summary
from flrplan.io import write_json, write_text
from flrplan.nnunet.model_folder import RUN_NAME
from flrplan.stages import ARCHITECTURES, STAGES

FAILURES_NAME = "failures.png"
"""Beside the card: the worst cases."""

HEADER = f"""# Demo models: not for patients

Small networks that ship with the repository so that everything can be tried without data or a GPU. They were trained on SYNTHETIC
cases only (`flrplan cohort`, seed {TRAIN_SEED}, size medium) and have never seen a patient. Every answer that they take part in says
so. Use them to try the software; never for a decision about a person.

- Networks: nnU-Net's 3D U-Net, 16/32/64/80 channels, 0.9 million parameters, one sigmoid channel; {FOLDS} folds, logits averaged.
- Training: `make demo-models`, the project's own training path with `recipe.yaml` (not the paper's recipe), on a CPU. `run.json`
  beside each checkpoint holds versions, cases, settings and time.
- Files: `<stage>/nnunet/` are plain nnU-Net trained-model folders, weights in float16.
- Licence: Apache-2.0, as the repository.

Known weaknesses: the phantoms' organs are smoother than real ones; the FLR follows the phantoms' resection rule, which is not a
surgeon's judgement. The pictures at the end show where the models failed worst.

A model may be older than the cohort: version 1 had no pelvis, no fatty livers and no vanishing lesions, version 2 no thin left lobes and
no caudate lobes of their own. All are measured on version {COHORT_VERSION}; `make demo-models` trains all on it.

The figures below were measured by `flrplan demo-models --measure` with the app's settings (no mirroring, largest piece of the
predicted liver) and written here by it.
"""


def write_card(
    folder: Path, cases: Sequence[MeasuredCase], real: Sequence[tuple[str, float, Sequence[str]]], rows: list[dict[str, object]]
) -> None:
    """Writes ``README.md`` (the card) and ``scores.json`` into the demo folder.

    real: (name, liver Dice, warnings) of each real CT.
    """
    gain, low, high = paired_difference(cases, "flr_pipelined", "flr_liver_minus_tumour")
    parts = [
        HEADER,
        _training_table(folder),
        f"## {len(cases)} unseen synthetic cases (seed {MEASURE_SEED}), Dice\n",
        _table(cases),
        "\nPipelined: true masks as inputs; cascaded: predicted ones. The last two rows are trivial answers made from the truth: a "
        "network that does not beat them has learned no resection.\n",
        f'Pipelined FLR minus "liver minus tumour", paired per case: {gain:+.3f} (95 % bootstrap interval {low:+.3f} to {high:+.3f}).\n',
        "\n### By contrast phase, mean Dice\n",
        _strata(cases, lambda c: c.phase),
        "\n### By slice spacing, mean Dice\n",
        _strata(cases, _slice_stratum),
        "\n### Worst cases\n",
        f"![Truth green, prediction pink, on the slice where they differ most]({FAILURES_NAME})\n",
    ]
    if real:
        parts += ["\n## Real CTs, liver only\n", "The reference masks are another model's output, not an expert's.\n"]
        parts += [f"- {name}: Dice {value:.3f}" + (f" ({'; '.join(notes)})" if notes else "") for name, value, notes in real]
        parts.append("")
    write_text(folder / "README.md", "\n".join(parts) + "\n")
    scores = {"synthetic": rows, "summary": summary(cases), "real_liver_dice": {n: round(v, 4) for n, v, _ in real}}
    write_json(folder / "scores.json", scores)


def _training_table(folder: Path) -> str:
    """What each model that is there was trained with, from the records beside its first fold."""
    lines = ["| stage | cohort version | synthetic cases | iterations a fold | minutes a fold |", "|---|---|---|---|---|"]
    for stage in STAGES:
        path = folder / stage / ARCHITECTURES[0] / "fold_0" / RUN_NAME
        if path.is_file():
            run = json.loads(path.read_text(encoding="utf-8"))
            settings = run["recipe"]["training"]
            version = json.loads((path.parents[1] / COHORT_NAME).read_text(encoding="utf-8"))["version"]
            cases = len(run["train_ids"]) + len(run["validation_ids"])
            iterations = settings["epochs"] * settings["iterations_per_epoch"]
            lines.append(f"| {stage} | {version} | {cases} | {iterations} | {run['seconds'] / 60:.0f} |")
    return "\n".join([*lines, ""])


def _slice_stratum(case: MeasuredCase) -> str:
    return "up to 2.5 mm" if case.slice_mm <= 2.5 else "2.5 to 4 mm" if case.slice_mm <= 4 else "over 4 mm"


def _table(cases: Sequence[MeasuredCase]) -> str:
    lines = ["| column | mean | std | lowest | cases |", "|---|---|---|---|---|"]
    for name, row in summary(cases).items():
        lines.append(f"| {name} | {row['mean']:.3f} | {row['std']:.3f} | {row['min']:.3f} | {row['n']:.0f} |")
    return "\n".join(lines)


def _strata(cases: Sequence[MeasuredCase], stratum: Callable[[MeasuredCase], str]) -> str:
    names = sorted({stratum(c) for c in cases})
    shown = COLUMNS[:6]
    lines = [f"| stratum (cases) | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for name in names:
        part = [c for c in cases if stratum(c) == name]
        means = summary(part)
        lines.append(f"| {name} ({len(part)}) | " + " | ".join(f"{means[c]['mean']:.3f}" for c in shown) + " |")
    return "\n".join(lines)
