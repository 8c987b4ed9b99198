"""What the models of a work folder were: what their weights started from, and how much of the body their patch sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flrplan.evaluation.paper import architecture_order, architecture_title
from flrplan.evaluation.trained import model_folders, records
from flrplan.image import natural_key
from flrplan.method import STAGES
from flrplan.networks import TABLE
from flrplan.workfolder import RunRecord, read_record

RANDOM = "random weights"
NOT_RECORDED = "not recorded"
_PLANS, _CONFIGURATION = "plans.json", "3d_fullres"
"""nnU-Net's names of the plan and of its usual configuration (a test compares the latter)."""


@dataclass(frozen=True)
class ModelRecord:
    """The models of one architecture.

    starts: what they started from (:data:`RANDOM`, :data:`NOT_RECORDED`, or a file), and which models did, ``<stage>/fold_<k>``;
        no models where none is at hand.
    field_of_view_mm: by stage, patch times spacing along z, y, x of the prepared arrays.
    """

    architecture: str
    starts: Mapping[str, tuple[str, ...]]
    field_of_view_mm: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def unlike_paper(self) -> str:
        """How the start differs from the paper's, as far as it is known, as the end of a sentence; else empty."""
        row = TABLE.get(self.architecture)
        if row is None:
            return ""
        if row.pretrained:
            return f"started from {RANDOM}, the paper's from its authors' published ones" if RANDOM in self.starts else ""
        files = [start for start in self.starts if start not in (RANDOM, NOT_RECORDED)]
        return f"started from {files[0]}, the paper's from {RANDOM}" if files else ""

    @property
    def has_start(self) -> bool:
        """Whether any of the models says what it started from."""
        return set(self.starts) != {NOT_RECORDED}

    @property
    def lacks_start(self) -> bool:
        """Whether nothing says of some models that they started from published weights, as the paper's did."""
        row = TABLE.get(self.architecture)
        return row is not None and row.pretrained and NOT_RECORDED in self.starts

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        starts = {start: list(models) for start, models in self.starts.items()}
        views = {stage: list(view) for stage, view in self.field_of_view_mm.items()}
        return {"started_from": starts, "unlike_paper": self.unlike_paper or None, "field_of_view_mm": views}


def model_records(work: Path | None, architectures: Iterable[str]) -> tuple[ModelRecord, ...]:
    """The record of each architecture, in the order of tables. ``work``: None where the models are not known.

    Raises: SettingsError naming a record that is damaged.
    """
    return tuple(_record(work, name) for name in architecture_order(set(architectures)))


def _record(work: Path | None, architecture: str) -> ModelRecord:
    started: dict[str, str] = {}
    views = {}
    for stage, folder in model_folders(work, "*", architecture) if work else []:
        started[f"{stage}/{folder.name}"] = start_of(RunRecord.read(folder))
        if stage not in views and (view := _field_of_view_mm(folder.parent / _PLANS)):
            views[stage] = view
    for _, predicted in records(work, architecture) if work else ():
        started = {**predicted.started_from, **started}
    starts: dict[str, list[str]] = {}
    for model in sorted(started, key=natural_key):
        starts.setdefault(started[model], []).append(model)
    by_stage = {stage: views[stage] for stage in STAGES if stage in views}
    return ModelRecord(architecture, {s: tuple(m) for s, m in starts.items()} or {NOT_RECORDED: ()}, by_stage)


def start_of(run: RunRecord) -> str:
    """In words what a training started from."""
    if not run.has_start:
        return NOT_RECORDED
    if run.pretrained is None:
        return RANDOM
    seen = len(run.inherited_train_ids)
    learned = f", trained on {seen} cases of ours" if seen else ""
    return f"{run.pretrained.get('source', 'a file')} (SHA-256 {str(run.pretrained.get('sha256', 'unknown'))[:12]}{learned})"


def _field_of_view_mm(path: Path) -> tuple[float, float, float] | None:
    """Patch times spacing of a plan; None where there is no plan, or not that one configuration."""
    plans = read_record(path)
    configurations = plans.get("configurations", {})
    plan = configurations.get(_CONFIGURATION, next(iter(configurations.values()), {}) if len(configurations) == 1 else {})
    patch, spacing = plan.get("patch_size", ()), plan.get("spacing", ())
    if len(patch) != 3 or len(spacing) != 3:
        return None
    back = plans.get("transpose_backward", [0, 1, 2])
    z, y, x = (float(patch[axis]) * float(spacing[axis]) for axis in back)
    return z, y, x


def start_lines(records: Iterable[ModelRecord]) -> Iterator[str]:
    """The sentence over a table: what each architecture started from, models that disagree by name, and what is unlike the paper."""
    said = []
    for record in records:
        starts = [
            start + (f" ({_grouped(models)})" if len(record.starts) > 1 else "") for start, models in record.starts.items()
        ]
        differ = "MODELS DIFFER: " if len(starts) > 1 else ""
        unlike = f" [UNLIKE THE PAPER: {record.unlike_paper}]" if record.unlike_paper else ""
        said.append(f"{architecture_title(record.architecture)}: {differ}{'; '.join(starts)}{unlike}")
    if said:
        yield f"Started from: {' | '.join(said)}."


def view_lines(records: Iterable[ModelRecord]) -> Iterator[str]:
    """The sentence over a table that says how much a network sees at once; nothing where no plan is at hand."""
    said = []
    for record in records:
        stages: dict[str, list[str]] = {}
        for stage, view in record.field_of_view_mm.items():
            stages.setdefault(" x ".join(f"{mm:.0f}" for mm in view), []).append(stage)
        views = [view + (f" ({', '.join(names)})" if len(stages) > 1 else "") for view, names in stages.items()]
        said += [f"{architecture_title(record.architecture)} {', '.join(views)}"] * bool(views)
    if said:
        yield f"Field of view (patch times spacing, z x y x x in mm): {'; '.join(said)}."


def _grouped(models: Iterable[str]) -> str:
    """``liver: fold_0, fold_1; crlm: fold_2``."""
    stages: dict[str, list[str]] = {}
    for stage, _, fold in (model.partition("/") for model in models):
        stages.setdefault(stage, []).append(fold)
    return "; ".join(f"{stage}: {', '.join(folds)}" for stage, folds in stages.items())
