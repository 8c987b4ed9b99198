"""What one benchmark is: its data, split, architectures, stages, folds and resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from flrplan.cohort.settings import CaseSize
from flrplan.errors import SettingsError
from flrplan.files.checked import EmptyBlock, Flag, Whole, checked, one_of
from flrplan.method import PAPER_STAGES, STAGES, Recipe, Variant, require_name
from flrplan.networks import ARCHITECTURES, PAPER, SCRATCH, architecture_named


class DataKind(StrEnum):
    """Where the cases of a work folder come from."""

    PREPARED = "prepared"
    SYNTHETIC = "synthetic"
    TCIA = "tcia"
    REFINED = "refined"
    FOLDER = "folder"


class Rule(StrEnum):
    """The kinds of jobs, in the order in which they run."""

    PREPARE = "prepare"
    SPLIT = "split"
    PREPROCESS = "preprocess"
    TRAIN = "train"
    PREDICT = "predict"
    ENSEMBLE = "ensemble"
    EVALUATE = "evaluate"


_Count = Annotated[Whole, Field(ge=1)]


@checked
class DataSettings:
    """The cases. ``prepared``: the work folder has them already.

    root: what was downloaded (tcia, refined, folder); tcia, images: where the CTs of refined labels are; layout: glob patterns; clinical: the clinical sheet.
    allow_missing: cases of the split that are not there are dropped from it.
    cases, seed, size: the synthetic cohort.
    """

    kind: DataKind = DataKind.PREPARED
    root: Path | None = None
    tcia: Path | None = None
    images: Path | None = None
    layout: Path | None = None
    clinical: Path | None = None
    allow_missing: Flag = False
    cases: Annotated[Whole, Field(ge=2, le=10_000)] = 12
    seed: Whole = 0
    size: CaseSize = CaseSize.SMALL

    def __post_init__(self) -> None:
        if self.kind in (DataKind.TCIA, DataKind.REFINED, DataKind.FOLDER) and self.root is None:
            raise SettingsError(f"data of kind {self.kind} need root: the folder that was downloaded")
        if self.kind is DataKind.REFINED and (self.tcia is None) == (self.images is None):
            raise SettingsError("data of kind refined need either tcia: (the download) or images: (a folder of CTs)")


@checked
class SplitSettings:
    """A split file, or a draw of ``held_out`` cases and ``folds`` folds over the work folder's cases."""

    file: Path | None = None
    held_out: Annotated[Whole, Field(ge=0, le=10_000)] = 0
    folds: Annotated[Whole, Field(ge=2, le=100)] = 5


@checked
class Resources:
    """What one job of a rule needs; the scheduler counts with it. ``minutes`` is a limit where the scheduler has one."""

    threads: _Count = 1
    mem_mb: _Count = 4000
    minutes: _Count = 60
    gpus: Annotated[Whole, Field(ge=0)] = 0


@checked
class BenchmarkSettings:
    """One benchmark. Paths in the YAML are relative to it.

    split: a file, or how to draw one; None: ``splits.json`` of a prepared work folder, ours for downloads (:func:`with_split`).
    folds: train these folds only (their results are then marked as incomplete); empty: all.
    stages: those that rows are trained in; by default the paper's.
    architectures: rows of the table of architectures; by default the paper's. variants: further rows by name (:mod:`flrplan.method.variants`),
        which are trained and predicted like them. variants_file: the YAML that says them, for the jobs.
    ensembles: rows made of the predictions of others, by name (``ensemble.py``).
    recipe: YAML of ``flrplan train``; None: the paper's. train_size: ``--size`` of ``flrplan train``; None: its default.
    pretrained: by architecture a file of weights (STU-Net's official ones are not redistributed here), or None: random ones, which the
        YAML calls ``scratch`` (:func:`require_starts`).
    trainings_per_job: how many trainings of a stage share a process (loading the libraries takes 10 s each time).
    probabilities: save those of the predictions, too (``predict.py --probabilities``).
    cascaded_cv: also the cascaded columns in the cross-validation, which the paper does not report.
    note: a sentence over every table.
    """

    data: Annotated[DataSettings, EmptyBlock] = field(default_factory=DataSettings)
    split: SplitSettings | None = None
    architectures: tuple[Annotated[str, one_of(ARCHITECTURES)], ...] = PAPER
    variants: Annotated[Mapping[str, Variant], EmptyBlock] = field(default_factory=dict)
    variants_file: Path | None = None
    ensembles: Annotated[Mapping[str, tuple[str, ...]], EmptyBlock] = field(default_factory=dict)
    stages: tuple[Annotated[str, one_of(STAGES)], ...] = tuple(stage.name for stage in PAPER_STAGES)
    folds: tuple[Annotated[Whole, Field(ge=0, le=99)], ...] = ()
    recipe: Path | None = None
    train_size: str | None = None
    pretrained: Mapping[str, Path | None] = field(default_factory=dict)
    device: str = "auto"
    mirroring: Flag = True
    probabilities: Flag = False
    cascaded_cv: Flag = False
    trainings_per_job: _Count = 1
    predictions_per_job: _Count = 1
    note: str = ""
    resources: Annotated[Mapping[Rule, Resources], EmptyBlock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_known("pretrained", self.pretrained, {**dict.fromkeys(self.architectures), **self._varied})
        if not self.rows or not self.stages:
            raise SettingsError("architectures (or variants) and stages must name at least one each")
        for name, members in self.ensembles.items():
            require_name(name, "ensembles")
            require_known(f"ensembles: {name}", members, self.rows)
            if name in self.variants or len(set(members)) != len(members) or len(members) < 2:
                raise SettingsError(
                    f"ensembles: {name}: expected at least two different rows and a name of its own, got {members}"
                )
            if len({self.stages_of(member) for member in members}) > 1:
                raise SettingsError(f"ensembles: {name}: expected rows with the same stages, got {members}")
        object.__setattr__(self, "stages", tuple(s for s in STAGES if s in self.stages))
        for what, path in {"recipe": self.recipe, **{f"pretrained: {a}": p for a, p in self.pretrained.items()}}.items():
            if path is not None and not path.is_file():
                raise SettingsError(f"{what}: no such file {path}")

    @property
    def _varied(self) -> dict[str, None]:
        """The architectures of the variants."""
        return dict.fromkeys(variant.architecture for variant in self.variants.values())

    @property
    def rows(self) -> tuple[str, ...]:
        """The architectures and variants, in order: what is trained and predicted."""
        return (*self.architectures, *self.variants)

    def stages_of(self, row: str) -> tuple[str, ...]:
        """The stages that a row is trained in: those of its variant, else of the benchmark."""
        own = self.variants[row].stages if row in self.variants else ()
        return tuple(stage for stage in STAGES if stage in (own or self.stages))

    def preparation(self, row: str) -> str:
        """Folder below ``training/`` where the stages of a row are prepared; empty: there itself, as for every architecture."""
        return self.variants[row].preparation if row in self.variants else ""

    def resources_of(self, rule: Rule) -> Resources:
        """What a job of this rule needs."""
        return self.resources.get(rule, Resources())


def with_split(settings: BenchmarkSettings, ours: Path) -> BenchmarkSettings:
    """The settings with ``ours`` as split where TCIA's cases are prepared and none is said; its ids are those of that data set.

    Raises: SettingsError for other cases that a job makes: no split is known of them.
    """
    kind = settings.data.kind
    if settings.split is not None or kind is DataKind.PREPARED:
        return settings
    if kind in (DataKind.TCIA, DataKind.REFINED):
        return replace(settings, split=SplitSettings(file=ours))
    raise SettingsError(
        f"data of kind {kind} come without a split; add split: <file>, or split: {{held_out: <cases>, folds: <folds>}} to draw one"
    )


def require_starts(settings: BenchmarkSettings) -> None:
    """Raises SettingsError where an architecture that the paper starts from published weights has neither weights nor ``scratch``."""
    for row in settings.rows:
        variant = settings.variants.get(row)
        name = variant.architecture if variant else row
        said = name in settings.pretrained or (variant is not None and variant.pretrained is not None)
        if architecture_named(name).pretrained and not said:
            raise SettingsError(
                f"pretrained: expected what {name} starts from, found nothing. The paper starts it from its authors' published weights: "
                f"pretrained: {{{name}: FILE}} (docs/networks.md). To start at random say pretrained: {{{name}: {SCRATCH}}}; the tables "
                f"then say so. Or leave {name} out of architectures"
            )


def require_recipes(settings: BenchmarkSettings) -> None:
    """Raises SettingsError where the recipe of a row and stage, with a variant over it, cannot be trained."""
    size = {"plan": {"network_size": settings.train_size}} if settings.train_size else {}
    for row in settings.rows:
        variant = settings.variants.get(row)
        for stage in settings.stages_of(row):
            over = (size, variant.over if variant else {})
            recipe = Recipe.from_yaml(settings.recipe, stage, *over) if settings.recipe else Recipe.layered(*over)
            architecture_named(variant.architecture if variant else row).size(recipe.plan.network_size)


def require_known(what: str, given: Iterable[Any], known: Iterable[Any]) -> None:
    """Raises SettingsError naming what of ``given`` is not among ``known``, and what is."""
    known = tuple(known)
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        raise SettingsError(f"{what}: unknown {', '.join(unknown)}; known are {', '.join(map(str, known))}")
