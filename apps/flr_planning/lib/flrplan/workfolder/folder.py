"""The work folder of the benchmark: what lies where. A synthetic cohort is one, too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flrplan.anatomy import Structure
from flrplan.files import current_version

IMAGE_SUFFIX = ".nii.gz"
"""Of every volume that the benchmark writes."""
FINAL_CHECKPOINT = "checkpoint_final.pth"
"""nnU-Net's name of a published checkpoint."""


@dataclass(frozen=True)
class WorkFolder:
    """Paths in the work folder ``root``; nothing is made.

    ======================================== =========================================================
    ``images/<case>.nii.gz``                 CT, HU
    ``labels/<case>.nii.gz``                 planning map
    ``masks/<case>/<structure>.nii.gz``      binary truth, which goes before the planning map
    ``instances/<case>/layer1.nii.gz``, ...  lesions told apart (:mod:`flrplan.workfolder.instances`)
    ``veins/<case>/hepatic_veins.nii.gz``    where a download has them, ``portal_veins`` too; for plans, no score counts them
    ``splits.json``                          :class:`flrplan.workfolder.split.Split`
    ``dataset.csv``                          what is known of the cases, from ``prepare.py``
    ``cohort.json``                          of a synthetic cohort: settings and facts
    ``training/``                            data sets of nnU-Net, one a stage
    ``models/<stage>/<row>/fold_<k>/``       row: an architecture or a variant
    ``predictions/<row>/<column>/``          ``<case>.nii.gz``, raw binary masks
    ``probabilities/<row>/<column>/``        ``<case>.nii.gz``, one byte a voxel
    ``predicted/<row>/<part>.json``          by which models
    ``evaluation/``                          tables, figures and ``report.html``
    ``workflow/``                            state and logs of ``run.py``
    ======================================== =========================================================
    """

    root: Path

    @property
    def images(self) -> Path:
        """CTs."""
        return self.root / "images"

    @property
    def labels(self) -> Path:
        """Planning maps."""
        return self.root / "labels"

    @property
    def masks(self) -> Path:
        """Folders of binary masks."""
        return self.root / "masks"

    @property
    def instances(self) -> Path:
        """Folders of layers that tell lesions apart."""
        return self.root / "instances"

    @property
    def veins(self) -> Path:
        """Folders of masks of veins."""
        return self.root / "veins"

    @property
    def splits(self) -> Path:
        """The split file, which is used unasked."""
        return self.root / "splits.json"

    @property
    def dataset(self) -> Path:
        """The table of ``prepare.py``, whose tumours and spacings are the strata of a draw."""
        return self.root / "dataset.csv"

    @property
    def cohort(self) -> Path:
        """What a synthetic cohort leaves beside its labels."""
        return self.root / "cohort.json"

    @property
    def training(self) -> Path:
        """Data sets of trainings."""
        return self.root / "training"

    @property
    def models(self) -> Path:
        """Trained models."""
        return self.root / "models"

    @property
    def predictions(self) -> Path:
        """Masks of models and ensembles."""
        return self.root / "predictions"

    @property
    def probabilities(self) -> Path:
        """What the masks were thresholded from."""
        return self.root / "probabilities"

    @property
    def predicted(self) -> Path:
        """Records of which models predicted what."""
        return self.root / "predicted"

    @property
    def evaluation(self) -> Path:
        """Results."""
        return self.root / "evaluation"

    @property
    def workflow(self) -> Path:
        """State of the workflow; it may be there before anything else."""
        return self.root / "workflow"

    def image(self, case: str) -> Path:
        """The CT of a case."""
        return self.images / f"{case}{IMAGE_SUFFIX}"

    def label(self, case: str) -> Path:
        """The planning map of a case."""
        return self.labels / f"{case}{IMAGE_SUFFIX}"

    def mask(self, case: str, structure: Structure) -> Path:
        """The binary truth of one structure."""
        return self.masks / case / f"{structure}{IMAGE_SUFFIX}"

    def vein(self, case: str, name: str) -> Path:
        """The mask of ``hepatic_veins`` or ``portal_veins``."""
        return self.veins / case / f"{name}{IMAGE_SUFFIX}"

    def prediction(self, row: str, column: str, case: str) -> Path:
        """The predicted mask of a case."""
        return self.predictions / row / column / f"{case}{IMAGE_SUFFIX}"

    def probability(self, row: str, column: str, case: str) -> Path:
        """The probability beside :meth:`prediction`."""
        return self.probabilities / row / column / f"{case}{IMAGE_SUFFIX}"

    def checkpoint(self, stage: str, row: str, fold: int) -> Path:
        """Where the published weights of one fold lie, in the version of the model that counts. Raises ModelError for a broken pointer."""
        return current_version(self.models / stage / row) / f"fold_{fold}" / FINAL_CHECKPOINT
