"""Which file is what: labels, predictions and the split, and every case that is missing or extra, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from flrplan.anatomy import Structure
from flrplan.errors import LabelError, SettingsError
from flrplan.evaluation.baselines import baseline_title
from flrplan.evaluation.columns import COLUMNS, REQUIRED, Part
from flrplan.files import entries
from flrplan.image import natural_key, without_channel
from flrplan.workfolder import TRUTH, Split, TruthFiles, WorkFolder, layer_paths

IMAGE_SUFFIXES: tuple[str, ...] = (".nii.gz", ".nii", ".nrrd", ".mha")
"""What counts as a mask; other files (nnU-Net leaves json and npz beside its predictions) are passed over."""


@dataclass(frozen=True)
class CaseFiles:
    """One case: its truth, and its predictions and saved probabilities by (architecture, column). ``fold``: None if held out.

    original: labels of another rater of the same case, to be scored too.
    """

    case: str
    fold: int | None
    label: TruthFiles
    predictions: Mapping[tuple[str, str], Path]
    original: TruthFiles | None = None
    probabilities: Mapping[tuple[str, str], Path] = field(default_factory=dict)

    @property
    def part(self) -> Part:
        """Cross-validation or held-out test."""
        return Part.TEST if self.fold is None else Part.CV


@dataclass(frozen=True, order=True)
class Gap:
    """Something that should be there and is not (or the reverse, or is broken); ``where`` names folder or file."""

    kind: str
    where: str
    case: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.case} ({self.where}{': ' + self.detail if self.detail else ''})"


@dataclass(frozen=True)
class Found:
    """All cases that can be scored, in natural order, what is missing or extra, and the columns that have no prediction at all.

    absent: ``<architecture>/<column>`` of each. without_original: cases whose original labels are asked for and not there.
    unscored_probabilities: a sentence for each place where probabilities lack.
    """

    cases: tuple[CaseFiles, ...]
    architectures: tuple[str, ...]
    gaps: tuple[Gap, ...]
    absent: tuple[str, ...] = ()
    without_original: tuple[str, ...] = ()
    unscored_probabilities: tuple[str, ...] = ()


def files_by_case(folder: Path) -> dict[str, Path]:
    """The masks of a folder by case id. Raises SettingsError for two files of one case."""
    found: dict[str, Path] = {}
    for path in entries(folder):
        suffix = next((s for s in IMAGE_SUFFIXES if path.name.lower().endswith(s)), None)
        if suffix is None or not path.is_file():
            continue
        case = path.name[: -len(suffix)]
        if case in found:
            raise SettingsError(f"case {case} occurs twice: {found[case]} and {path}; delete or rename one of them")
        found[case] = path
    return found


def find_labels(folder: Path) -> dict[str, TruthFiles]:
    """The truth of each case in a folder: ``<case>.nii.gz`` (planning map) or ``<case>/<structure>.nii.gz`` (binary).

    Raises: SettingsError for a missing or empty folder, and for a case that is there in both forms.
    """
    _require_folder(folder, "labels")
    labels = {case: TruthFiles(planning_map=path) for case, path in files_by_case(folder).items()}
    for sub in [p for p in entries(folder) if p.is_dir()]:
        masks = {Structure(name): path for name, path in files_by_case(sub).items() if name in set(Structure)}
        if not masks:
            continue
        if sub.name in labels:
            raise SettingsError(f"case {sub.name} occurs twice: {labels[sub.name].first} and {sub}; delete one of them")
        labels[sub.name] = TruthFiles(masks=masks)
    if not labels:
        raise SettingsError(
            f"{folder}: no labels; expected <case>.nii.gz (planning label maps) or <case>/<structure>.nii.gz "
            f"with {', '.join(map(str, TRUTH))}"
        )
    return labels


def find_work_labels(work: Path) -> dict[str, TruthFiles]:
    """The truth in a work folder: ``masks/<case>/<structure>.nii.gz`` where there, else ``labels/<case>.nii.gz``."""
    maps = find_labels(WorkFolder(work).labels) if WorkFolder(work).labels.is_dir() else {}
    masks = find_labels(WorkFolder(work).masks) if WorkFolder(work).masks.is_dir() else {}
    if not maps and not masks:
        raise SettingsError(f"{work}: expected labels/<case>.nii.gz or masks/<case>/<structure>.nii.gz; run prepare first")
    cases = {*maps, *masks}
    return {c: TruthFiles(maps.get(c, TruthFiles()).planning_map, masks.get(c, TruthFiles()).masks) for c in cases}


Files = TypeVar("Files", Path, TruthFiles)


def find_label_set(folder: Path) -> dict[str, TruthFiles]:
    """The labels of a work folder, or of a folder of labels as ``evaluate.py --labels`` takes it. Raises SettingsError."""
    if WorkFolder(folder).labels.is_dir() or WorkFolder(folder).masks.is_dir():
        return find_work_labels(folder)
    return find_labels(folder)


def with_instances(labels: Mapping[str, TruthFiles], folder: Path) -> dict[str, TruthFiles]:
    """The same truth with the layers in ``folder/<case>`` that tell its lesions apart; a case without keeps its components.

    Raises: LabelError for incomplete layers; SettingsError where no case has any.
    """
    told = {case: replace(label, instances=layer_paths(folder / case)) for case, label in labels.items()}
    if not any(label.instances for label in told.values()):
        raise SettingsError(
            f"{folder}: no instances of any labelled case; expected <case>/layer1.nii.gz. Remove the folder, or prepare it"
        )
    return told


Predictions = dict[tuple[str, str], dict[str, Path]]


def find_predictions(folder: Path, out: Path | None = None) -> Predictions:
    """Prediction files by (architecture, column) and case, from ``<architecture>/<column>/<case>.nii.gz``.

    out: where results go; below ``folder``, it is no architecture without masks.

    Raises: SettingsError for a missing or empty folder, one of an architecture without a single mask, an architecture called like a
        baseline or the original labels, an unknown column and files on the wrong level.
    """
    _require_folder(folder, "predictions")
    expected = f"expected <architecture>/<column>/<case>.nii.gz with a column of {', '.join(COLUMNS)}"
    predictions: Predictions = {}
    stray = files_by_case(folder)
    folders = [p for p in entries(folder) if p.is_dir()]
    for architecture in folders:
        if (baseline := baseline_title(architecture.name)) is not None:
            raise SettingsError(
                f"{architecture}: the tables have a row of this name ({baseline}); rename the folder, "
                f"for example to my_{architecture.name.replace(':', '_')}"
            )
        stray |= files_by_case(architecture)
        for column in (p for p in entries(architecture) if p.is_dir()):
            if column.name not in COLUMNS:
                raise SettingsError(f"{column}: unknown column {column.name!r}; {expected}")
            predictions[architecture.name, column.name] = files_by_case(column)
    if stray:
        raise SettingsError(f"{next(iter(stray.values()))} is on the wrong level; {expected}")
    if not any(predictions.values()):
        raise SettingsError(f"{folder}: no predictions; {expected}")
    filled = {architecture for (architecture, _), files in predictions.items() if files}
    empty = [path for path in folders if path.name not in filled and (out is None or path.resolve() != out.resolve())]
    if empty:
        raise SettingsError(
            f"no mask ({', '.join(IMAGE_SUFFIXES)}) in any column folder of {', '.join(map(str, empty))}; {expected}. "
            "Predict them, or remove the empty folders"
        )
    return predictions


def _require_folder(folder: Path, what: str) -> None:
    if not folder.is_dir():
        raise SettingsError(f"{folder}: no such folder of {what}")


def match_cases(labels: Mapping[str, TruthFiles], predictions: Predictions, split: Split) -> Found:
    """Brings labels, predictions and split together. Nothing is raised for a gap: the caller decides.

    A held-out case is missing where an architecture has the column but not the case; so is a cross-validation case, except
    in cascaded columns, which are optional there, but for an empty folder where no case is held out: something was meant to be
    in it. A label or prediction of a case that the split does not name is extra; ``<case>_0000`` is nnU-Net's name of ``<case>``.
    """
    fold_of: dict[str, int | None] = dict.fromkeys(split.test)
    fold_of |= {case: k for k, fold in enumerate(split.folds) for case in fold}
    labels = _by_known_name(labels, fold_of)
    predictions = {key: _by_known_name(files, fold_of) for key, files in predictions.items()}
    gaps = [Gap("extra label", "labels", case) for case in labels if case not in fold_of]
    gaps += [Gap("missing label", "labels", case) for case in fold_of if case not in labels]
    for (architecture, column), files in predictions.items():
        where = f"{architecture}/{column}"
        gaps += [Gap("extra prediction", where, case) for case in files if case not in fold_of]
        is_empty = not files and not split.test
        for case, fold in fold_of.items():
            part = Part.TEST if fold is None else Part.CV
            if case not in files and (column in REQUIRED[part] or is_empty):
                gaps.append(Gap("missing prediction", where, case))
    cases = []
    for case in sorted(set(fold_of) & set(labels), key=natural_key):
        own = {key: files[case] for key, files in predictions.items() if case in files}
        cases.append(CaseFiles(case, fold_of[case], labels[case], own))
    architectures = tuple(sorted({architecture for architecture, _ in predictions}))
    return Found(tuple(cases), architectures, tuple(sorted(gaps)), absent_columns(predictions, split))


def _by_known_name(files: Mapping[str, Files], known: Collection[str]) -> dict[str, Files]:
    """Files under the split's name of their case, where they have nnU-Net's ``_0000`` behind it and no other file has that name."""
    names = {name: without_channel(name, known) for name in files}
    return {names[name] if names[name] not in files else name: file for name, file in files.items()}


def absent_columns(predictions: Predictions, split: Split) -> tuple[str, ...]:
    """``<architecture>/<column>`` where an architecture has no prediction in a column that it should have, in the tables' order.

    It should have all of the paper's columns where it has any, and all of another stage's where it has any of that stage's. Only parts
    that have cases count, and cascaded columns of the cross-validation are optional.
    """
    expected = {*(REQUIRED[Part.TEST] if split.test else ()), *(REQUIRED[Part.CV] if any(split.folds) else ())}
    absent = []
    for architecture in sorted({architecture for architecture, _ in predictions}):
        own = {column for column in COLUMNS if predictions.get((architecture, column))}
        begun = {_set_of(column) for column in own}
        absent += [f"{architecture}/{c}" for c in COLUMNS if c in expected and c not in own and _set_of(c) in begun]
    return tuple(absent)


def _set_of(column: str) -> str:
    """What a column is predicted together with: all of the paper's, or those of its stage."""
    return "" if COLUMNS[column].is_papers else COLUMNS[column].stage.name


def require_columns(absent: Sequence[str], stated: Sequence[str]) -> None:
    """Raises LabelError naming the absent columns that nobody stated as ``<column>`` or ``<architecture>/<column>``.

    Raises SettingsError for a stated column that does not exist.
    """
    unknown = [name for name in stated if name.rpartition("/")[2] not in COLUMNS]
    if unknown:
        raise SettingsError(f"--absent: unknown column {', '.join(unknown)}; known are {', '.join(COLUMNS)}")
    silent = [name for name in absent if not {name, name.rpartition("/")[2]} & set(stated)]
    if silent:
        raise LabelError(
            f"columns without a single prediction: {', '.join(silent)}. Predict them, or state with --absent <column> or "
            "--absent <architecture>/<column> that they are not wanted; the tables then show a dash and name them"
        )


def grouped_gaps(gaps: Sequence[Gap]) -> list[str]:
    """A line for each kind and place that names all its cases, in natural order."""
    groups: dict[tuple[str, str], list[str]] = {}
    for gap in gaps:
        groups.setdefault((gap.kind, gap.where), []).append(gap.case)
    return [f"{kind}, {where}: {', '.join(sorted(cases, key=natural_key))}" for (kind, where), cases in groups.items()]


def require_no_gaps(gaps: Sequence[Gap], allow_missing: bool) -> None:
    """Raises LabelError naming every gap, unless they are allowed; broken files each with their reason."""
    if gaps and not allow_missing:
        lines = grouped_gaps([gap for gap in gaps if not gap.detail]) + [str(gap) for gap in gaps if gap.detail]
        listed = "".join(f"  {line}\n" for line in lines)
        raise LabelError(
            f"labels, predictions and split do not fit together in {len(gaps)} places:\n{listed}"
            "Complete them, or evaluate what is there with --allow-missing; every table then says what is missing."
        )
