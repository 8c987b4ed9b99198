"""What one evaluation is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from flrplan.errors import SettingsError
from flrplan.files.checked import Flag, Number, Whole, checked
from flrplan.workfolder import WorkFolder

WRITTEN = ("cases.csv", "baselines.csv", "lesions.csv", "table1.md", "table2.md", "checklist.md", "report.html", "summary.json")
"""What one evaluation writes, the last file last."""

TIE_MARGIN = 0.01
"""A difference of Dice, precision or recall that is too small to matter: what a tie must lie within, unless another is asked for."""

SYNTHETIC_NOTE = "Synthetic cases: these figures are not comparable with the paper's."
"""Stands over the tables of a synthetic cohort, for which nobody gave another note."""


@checked
class EvaluationSettings:
    """Where things lie and how to treat gaps.

    work: a work folder of the benchmark (``masks/`` or ``labels/``, ``predictions/``, ``splits.json``, ``images/``); or None,
        then labels, predictions, splits and out must be given. Whatever is given goes before the work folder's.
    original: labels of the same cases before their refinement (a work folder or a folder of labels), scored as a row of their own.
    instances: ``<case>/layer1.nii.gz``, ...: what tells the lesions of given ``labels`` apart; a work folder's labels have their own.
    probabilities: ``<architecture>/<column>/<case>.nii.gz`` of given ``predictions``; a work folder's predictions have their own.
    images: CTs for the pictures of the worst cases, ``<case>.nii.gz``; optional.
    allow_missing: evaluate what is there; every table then names what is missing.
    absent: columns (``<column>`` or ``<architecture>/<column>``) that are not there on purpose. In a work folder any other column
        without predictions is an error; anybody's own predictions need not have all columns. Tables name what is absent.
    margin: two means whose difference is shown to lie within it are a tie.
    note: a sentence that stands over every table; where none is given, :data:`SYNTHETIC_NOTE` for the labels of a work folder that
        holds a synthetic cohort.
    """

    work: Path | None = None
    labels: Path | None = None
    predictions: Path | None = None
    splits: Path | None = None
    out: Path | None = None
    original: Path | None = None
    instances: Path | None = None
    probabilities: Path | None = None
    images: Path | None = None
    allow_missing: Flag = False
    absent: tuple[str, ...] = ()
    workers: Annotated[Whole, Field(ge=1)] = 1
    margin: Annotated[Number, Field(ge=0, lt=1)] = TIE_MARGIN
    note: str = ""

    def __post_init__(self) -> None:
        if self.work is None:
            names = ("labels", "predictions", "splits", "out")
            missing = [f"--{name}" for name in names if getattr(self, name) is None]
            if missing:
                raise SettingsError(f"without a work folder, {', '.join(missing)} must be given too")
        elif not self.work.is_dir():
            raise SettingsError(
                f"{self.work}: no such work folder. Make one from the synthetic cohort with 'make benchmark-smoke', "
                "or give --labels, --predictions, --splits and --out"
            )

    def _path(self, given: Path | None, name: str) -> Path:
        if given is not None:
            return given
        if self.work is None:
            raise SettingsError(f"no path for {name}")
        return self.work / name

    @property
    def predictions_folder(self) -> Path:
        """Folder of ``<architecture>/<column>/<case>.nii.gz``."""
        return self._path(self.predictions, "predictions")

    @property
    def models_work(self) -> Path | None:
        """The work folder whose models made the predictions; None for predictions from elsewhere."""
        return self.work if self.predictions is None else None

    @property
    def splits_file(self) -> Path:
        """The split."""
        return self._path(self.splits, "splits.json")

    @property
    def out_folder(self) -> Path:
        """Where the results go."""
        return self._path(self.out, "evaluation")

    @property
    def instances_folder(self) -> Path | None:
        """Folder of instances; None where lesions are components. Raises SettingsError for a given one that is not there."""
        return self._beside(self.instances, "instances", self.labels)

    @property
    def probabilities_folder(self) -> Path | None:
        """Folder of probabilities; None where there is none. Raises SettingsError for a given one that is not there."""
        return self._beside(self.probabilities, "probabilities", self.predictions)

    def _beside(self, given: Path | None, name: str, instead: Path | None) -> Path | None:
        """A given folder, or the work folder's own unless what belongs to it was given, too."""
        if given is not None and not given.is_dir():
            raise SettingsError(f"{given}: no such folder of {name}")
        own = self.work / name if self.work is not None and instead is None else None
        return given or (own if own is not None and own.is_dir() else None)

    @property
    def table_note(self) -> str:
        """The sentence over every table: the given one, that of a synthetic cohort, or empty."""
        own_labels = self.work if self.labels is None else None
        is_synthetic = own_labels is not None and WorkFolder(own_labels).cohort.is_file()
        return self.note or (SYNTHETIC_NOTE if is_synthetic else "")

    @property
    def images_folder(self) -> Path | None:
        """Folder of CTs, or None where there is none."""
        folder = self.images or (self.work / "images" if self.work else None)
        return folder if folder is not None and folder.is_dir() else None
