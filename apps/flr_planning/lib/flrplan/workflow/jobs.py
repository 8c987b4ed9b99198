"""The jobs of a benchmark: which command makes what, after which other jobs. Everything derives from stages and settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from flrplan.evaluation import PAPER_COLUMNS, WRITTEN, Part, columns_of
from flrplan.method import PAPER_STAGES, STAGES
from flrplan.networks import SCRATCH
from flrplan.workflow.settings import BenchmarkSettings, DataKind, Rule
from flrplan.workfolder import HELD_OUT_PART, Split, WorkFolder, fold_part, read_split


@dataclass(frozen=True)
class Job:
    """One command. ``done``: the marker that Snakemake writes after it, relative to ``workflow/`` in the work folder.

    after: markers of the jobs that it needs. products: what it leaves behind; a marker without them is stale. Products are
    never Snakemake's own outputs, because Snakemake deletes the outputs of a stopped job, and a training continues.
    """

    rule: Rule
    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    products: tuple[Path, ...] = ()

    @property
    def done(self) -> str:
        """Marker of this job."""
        return f"done/{self.rule}/{self.name}"


@dataclass(frozen=True)
class Places:
    """The work folder, the folder of the benchmark's scripts, and the Python that runs them; absolute paths."""

    work: Path
    scripts: Path
    python: str

    @property
    def folder(self) -> WorkFolder:
        """What lies where in the work folder."""
        return WorkFolder(self.work)

    def script(self, name: str, *options: object) -> tuple[str, ...]:
        """The command of a script of the benchmark."""
        return (self.python, str(self.scripts / name), *map(str, options))

    def flrplan(self, *options: object) -> tuple[str, ...]:
        """The command of the command line."""
        return (self.python, "-m", "flrplan.cli", *map(str, options))


def split_file(settings: BenchmarkSettings, work: Path) -> Path:
    """The split that counts: the given file where nothing is prepared from it, else the work folder's own."""
    given = settings.split.file if settings.split else None
    return given if given and settings.data.kind in (DataKind.PREPARED, DataKind.SYNTHETIC) else WorkFolder(work).splits


def known_split(settings: BenchmarkSettings, work: Path) -> Split | None:
    """The split as far as it is known: before the data are prepared, the given one; None where a job will draw it."""
    own = split_file(settings, work)
    if own.is_file() or settings.split is None or (settings.split.file and own == settings.split.file):
        return read_split(own)
    return read_split(settings.split.file) if settings.split.file else None


def settled_split(settings: BenchmarkSettings, work: Path) -> Split | None:
    """The split that the work folder keeps; None until the job has written it that draws it or drops missing cases from it."""
    own = split_file(settings, work)
    return read_split(own) if own.is_file() else None


def fold_count(settings: BenchmarkSettings, split: Split | None) -> int:
    """How many folds the split has or will have."""
    return len(split.folds) if split else settings.split.folds if settings.split else 0


def benchmark_jobs(settings: BenchmarkSettings, places: Places) -> list[Job]:
    """All jobs, each after those that it needs.

    Raises: SettingsError for a split that cannot be read, has none of the asked folds, or fewer than 2.
    """
    split = known_split(settings, places.work)
    if split is not None:
        split.require_training(split_file(settings, places.work))
    folds = settings.folds or tuple(range(fold_count(settings, split)))
    first = [*_prepare(settings, places), *_draw(settings, places)]
    needs = tuple(job.done for job in first)
    preprocess: list[Job] = []
    train: list[Job] = []
    for stage in STAGES:
        rows: dict[str, list[str]] = {}  # of each preparation
        for row in settings.rows:
            if stage in settings.stages_of(row):
                rows.setdefault(settings.preparation(row), []).append(row)
        for preparation, own in rows.items():
            preprocess.append(_preprocess(settings, places, stage, preparation, own[0], needs))
            train += _train(settings, places, stage, preprocess[-1], own, folds)
    predict = list(_predict(settings, places, split, folds, train))
    ensembles = list(_ensembles(settings, places, predict))
    return [
        *first,
        *preprocess,
        *train,
        *predict,
        *ensembles,
        _evaluate(settings, places, folds, split, [*predict, *ensembles]),
    ]


def _prepare(settings: BenchmarkSettings, places: Places) -> Iterator[Job]:
    data, out = settings.data, places.work
    workers = settings.resources_of(Rule.PREPARE).threads
    if data.kind is DataKind.PREPARED:
        return
    if data.kind is DataKind.SYNTHETIC:
        size = ("--cases", data.cases, "--seed", data.seed, "--size", data.size)
        command = places.flrplan("cohort", *size, "--out", out, "--workers", workers)
    else:
        where: list[object] = [data.kind, data.root, "--out", out, "--workers", workers]
        for option, path in (
            ("--tcia", data.tcia),
            ("--images", data.images),
            ("--layout", data.layout),
            ("--clinical", data.clinical),
        ):
            where += [option, path] if path else []
        if settings.split and settings.split.file:
            where += ["--splits", settings.split.file]
        elif settings.split:
            where += ["--no-split"]
        command = places.script("prepare.py", *where, *(["--allow-missing"] if data.allow_missing else []))
    yield Job(Rule.PREPARE, str(data.kind), command, products=(places.folder.images,))


def _draw(settings: BenchmarkSettings, places: Places) -> Iterator[Job]:
    if settings.split is None or settings.split.file:
        return
    out, dataset = places.folder.splits, places.folder.dataset
    kind = settings.data.kind
    stratified = dataset.is_file() if kind is DataKind.PREPARED else kind is not DataKind.SYNTHETIC
    cases = ("--dataset", dataset) if stratified else ("--cases", places.work)
    options = (*cases, "--held-out", settings.split.held_out, "--folds", settings.split.folds, "--out", out)
    after = tuple(job.done for job in _prepare(settings, places))
    yield Job(Rule.SPLIT, "draw", places.script("draw_split.py", *options), after, (out,))


def _training_options(settings: BenchmarkSettings, places: Places) -> list[object]:
    options: list[object] = ["--cases", places.work, "--device", settings.device]
    options += ["--recipe", settings.recipe] if settings.recipe else []
    return [*options, *(["--size", settings.train_size] if settings.train_size else [])]


def _training_places(settings: BenchmarkSettings, places: Places) -> list[object]:
    work = places.folder
    return ["--split", split_file(settings, places.work), "--work", work.training, "--models", work.models]


def _variants(settings: BenchmarkSettings, rows: Iterable[str]) -> list[object]:
    """The option that says what the variants among these rows are."""
    return ["--variants", settings.variants_file] if settings.variants_file and set(rows) & set(settings.variants) else []


def _preprocess(
    settings: BenchmarkSettings, places: Places, stage: str, preparation: str, row: str, after: Sequence[str]
) -> Job:
    """The preparation of one stage for ``row``, and every other row that shares it."""
    workers = settings.resources_of(Rule.PREPROCESS).threads
    own = ["--architecture", row, *_variants(settings, [row])] if preparation else []
    options = [*own, *_training_places(settings, places), *_training_options(settings, places)]
    options += ["--workers", workers, "--prepare-only"]
    command = places.flrplan("train", "--stage", stage, *options)
    product = places.folder.training / preparation / stage / "prepared.json"
    return Job(Rule.PREPROCESS, "-".join(filter(None, (stage, preparation))), command, tuple(after), (product,))


def _start(settings: BenchmarkSettings, row: str) -> list[str]:
    """The option for what a row starts from, where the benchmark says it; a variant may say it itself."""
    variant = settings.variants.get(row)
    if variant and variant.pretrained is not None:
        return []
    architecture = variant.architecture if variant else row
    if architecture not in settings.pretrained:
        return []
    return ["--pretrained", f"{row}={settings.pretrained[architecture] or SCRATCH}"]


def _train(
    settings: BenchmarkSettings, places: Places, stage: str, prepared: Job, rows: Sequence[str], folds: Sequence[int]
) -> Iterator[Job]:
    """The trainings of one stage on one preparation, ``trainings_per_job`` in a process."""
    everything = iter([(row, fold) for row in rows for fold in folds])
    while batch := list(islice(everything, settings.trainings_per_job)):
        trainings = [word for a, fold in batch for word in ("--training", f"{stage}/{a}/{fold}")]
        weights = [word for row in dict(batch) for word in _start(settings, row)]
        variants = _variants(settings, dict(batch))
        given = [*trainings, *_training_places(settings, places), *weights, *variants]
        options = [*given, "--", *_training_options(settings, places)]
        command = places.flrplan("train-many", *options)
        products = tuple(places.folder.checkpoint(stage, a, fold) for a, fold in batch)
        ends = [f"{a}-{fold}" for a, fold in (batch[0], batch[-1])]
        yield Job(Rule.TRAIN, "-".join([stage, *dict.fromkeys(ends)]), command, (prepared.done,), products)


def _predict(
    settings: BenchmarkSettings, places: Places, split: Split | None, folds: Sequence[int], train: Sequence[Job]
) -> Iterator[Job]:
    """The predictions of each architecture and variant, ``predictions_per_job`` parts (held-out, or a fold) in a process."""
    options: list[object] = ["--work", places.work, "--splits", split_file(settings, places.work)]
    options += ["--models", places.folder.models, "--device", settings.device]
    options += [] if settings.mirroring else ["--no-mirroring"]
    options += ["--probabilities"] if settings.probabilities else []
    options += ["--cascaded-cv"] if settings.cascaded_cv else []
    options += [word for fold in settings.folds for word in ("--fold", fold)]
    cases = {HELD_OUT_PART: split.test} if split else {HELD_OUT_PART: ()}
    cases |= {fold_part(fold): split.validation_ids(fold) if split else () for fold in folds}
    if split and not split.test:
        del cases[HELD_OUT_PART]
    for architecture in settings.rows:
        asked = tuple(STAGES[name] for name in settings.stages_of(architecture))
        own = [word for stage in asked if asked != PAPER_STAGES for word in ("--stage", stage.name)]
        everything = iter(cases)
        while batch := list(islice(everything, settings.predictions_per_job)):
            command = places.script("predict.py", "--architecture", architecture, *options, *own)
            command += tuple(word for part in batch for word in ("--part", part))
            models = {
                places.folder.checkpoint(stage, architecture, fold)
                for stage in settings.stages_of(architecture)
                for fold in folds
                if HELD_OUT_PART in batch or fold_part(fold) in batch
            }
            after = tuple(job.done for job in train if models & set(job.products))
            products = tuple(
                path(architecture, column, case)
                for path in (places.folder.prediction, *([places.folder.probability] if settings.probabilities else []))
                for part in batch
                for column in columns_of(Part.TEST if part == HELD_OUT_PART else Part.CV, asked, settings.cascaded_cv)
                for case in cases[part]
            )
            name = "-".join([architecture, *dict.fromkeys((batch[0], batch[-1]))])
            yield Job(Rule.PREDICT, name, command, after, products)


def _ensembles(settings: BenchmarkSettings, places: Places, predict: Sequence[Job]) -> Iterator[Job]:
    """The rows that are made of the predictions of others, each after all of them."""
    folder = places.folder.predictions
    for name, members in settings.ensembles.items():
        options: list[object] = ["--work", places.work, "--splits", split_file(settings, places.work), "--name", name]
        options += [word for member in members for word in ("--of", member)]
        after = tuple(job.done for job in predict if job.command[job.command.index("--architecture") + 1] in members)
        own = [path for job in predict for path in job.products if path.is_relative_to(folder / members[0])]
        products = tuple(folder / name / path.relative_to(folder / members[0]) for path in own)
        yield Job(Rule.ENSEMBLE, name, places.script("ensemble.py", *options), after, products)


def _evaluate(
    settings: BenchmarkSettings, places: Places, folds: Sequence[int], split: Split | None, predict: Sequence[Job]
) -> Job:
    out = places.folder.evaluation
    options: list[object] = ["--work", places.work, "--splits", split_file(settings, places.work), "--out", out]
    options += ["--workers", settings.resources_of(Rule.EVALUATE).threads]
    options += [word for column in _impossible(settings.stages) for word in ("--absent", column)]
    own = {row: variant.stages for row, variant in settings.variants.items() if variant.stages}
    options += [
        word for row, stages in own.items() for column in _impossible(stages) for word in ("--absent", f"{row}/{column}")
    ]
    options += ["--allow-missing"] if len(folds) < fold_count(settings, split) else []
    options += ["--note", settings.note] if settings.note else []
    after = tuple(job.done for job in predict)
    return Job(Rule.EVALUATE, "tables", places.script("evaluate.py", *options), after, tuple(out / n for n in WRITTEN))


def _impossible(stages: Iterable[str]) -> Iterator[str]:
    """The columns of the paper that models of these stages cannot make."""
    possible = columns_of(Part.TEST, (STAGES[name] for name in stages))
    yield from (column for column in PAPER_COLUMNS[Part.TEST] if column not in possible)
