"""nnU-Net's fingerprint, plan and preprocessing of one stage's data set, shared by all architectures.

What differs between architectures is derived from this plan by :mod:`flrplan.nnunet.prepare.architecture_plan`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from flrplan.errors import SettingsError
from flrplan.files import write_json
from flrplan.method import PlanSettings
from flrplan.nnunet.environment import VARIABLES, augmentation_workers, files_listed_in_process, nnunet_folders, quiet
from flrplan.nnunet.prepare.dataset import SHOWN_NAME
from flrplan.nnunet.prepare.preprocessed import preprocess_cases

logger = logging.getLogger(__name__)

CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlans"
_DEATH_NOTICE = "background worker"
"""In what nnU-Net 2.8 raises when a process of its pool vanished."""


class ShownFingerprint(DatasetFingerprintExtractor):  # type: ignore[misc]  # nnU-Net is untyped
    """nnU-Net's fingerprint with the intensities of the target where the network is shown the CT (:data:`SHOWN_NAME`).

    nnU-Net draws 100 million voxels from all cases together. Fewer than 100 cases give a million each here: more would be the same
    voxels again and again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_foreground_voxels_for_intensitystats = min(10e7, 1e6 * len(self.dataset))
        for files in self.dataset.values():
            label = Path(files["label"])
            shown = label.parents[1] / SHOWN_NAME / label.name
            if shown.is_file():
                files["label"] = str(shown)


class StagePlanner(ExperimentPlanner):  # type: ignore[misc]  # nnU-Net is untyped
    """nnU-Net's planner for the 3D full-resolution configuration, with the shared settings of :class:`PlanSettings`."""

    def __init__(self, dataset: str, settings: PlanSettings) -> None:
        spacing = [float(s) for s in settings.spacing_zyx_mm] if settings.spacing_zyx_mm else None
        # The arrays are in canonical order; with a spacing of our own the axes stay as they are.
        super().__init__(
            dataset,
            gpu_memory_target_in_gb=settings.gpu_memory_gb,
            plans_name=PLANS,
            overwrite_target_spacing=spacing,
            suppress_transpose=settings.spacing_zyx_mm is not None,
        )
        self.settings = settings
        self.lowres_creation_threshold = 0  # no 3d_lowres: the benchmark uses 3d_fullres only

    def determine_resampling(self, *args: Any, **kwargs: Any) -> Any:
        """Resampling of data and labels (signature of nnU-Net 2.8.1)."""
        if self.settings.resampling == "nnunet":
            return super().determine_resampling(*args, **kwargs)
        options = {"force_separate_z": False, "memefficient_seg_resampling": False}
        function = resample_torch_fornnunet
        return function, {"is_seg": False, **options}, function, {"is_seg": True, **options}

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> Any:
        """Resampling of logits (signature of nnU-Net 2.8.1)."""
        if self.settings.resampling == "nnunet":
            return super().determine_segmentation_softmax_export_fn(*args, **kwargs)
        return resample_torch_fornnunet, {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Keeps the one configuration that is trained."""
        plans["configurations"] = {CONFIGURATION: plans["configurations"][CONFIGURATION]}
        super().save_plans(plans)


def preset_configuration(preprocessed: Path, plans: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """What a planner of nnU-Net's residual encoder presets makes of a prepared stage: ``patch_size``, ``batch_size``, ``architecture``.

    plans: those of the preparation, whose spacing and median size it takes. preset: the planner's class.
    Raises: SettingsError where ``raw/`` of the preparation, which the planner reads, is gone.
    """
    shared = plans["configurations"][CONFIGURATION]
    spacing, median = np.array(shared["spacing"]), np.array(shared["median_image_size_in_voxels"])
    with nnunet_folders(preprocessed.parents[1]), quiet(), files_listed_in_process(), augmentation_workers(1):
        try:
            planner = getattr(residual_encoder_unet_planners, preset)(preprocessed.name)
        except OSError as error:
            raise SettingsError(
                f"{preprocessed.parents[1]}: {preset} needs the raw/ of the preparation: {error}; prepare it again"
            ) from error
        voxels = float(np.prod(median) * planner.dataset_json["numTraining"])
        with torch.device("meta"):  # it builds networks to estimate their memory, and only their shapes count
            planned = planner.get_plans_for_configuration(spacing, median, shared["data_identifier"], voxels, {})
    planned = {key: planned[key] for key in ("patch_size", "batch_size", "architecture")}
    recursive_fix_for_json_export(planned)
    return dict(json.loads(json.dumps(planned)))


def plan_and_preprocess(
    dataset: str,
    settings: PlanSettings,
    workers: int = 1,
    check: Callable[[dict[str, Any]], None] = lambda plans: None,
    plans: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fingerprint, plan and preprocessed arrays of a raw data set, inside :func:`nnunet_folders`. Returns the plans.

    plans: these instead of a plan made from the data.
    check: called with the plans before anything is preprocessed; what it raises ends the work.
    """
    np.random.seed(1234)  # the fingerprint samples foreground voxels with numpy's global generator
    raw, preprocessed = (Path(os.environ[name]) / dataset for name in VARIABLES[:2])
    with (
        quiet(),
        files_listed_in_process(),
        augmentation_workers(1),
    ):  # 0 workers would crash nnU-Net's planner (set_num_threads(0))
        number = convert_dataset_name_to_id(dataset)
        _with_fewer(
            lambda n: extract_fingerprint_dataset(number, ShownFingerprint, n, clean=True, show_progress_bar=False), workers
        )
        if plans is None:
            plans = dict(StagePlanner(dataset, settings).plan_experiment())
        else:  # what the planner would leave
            described = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
            for name, content in (("dataset", described), (PLANS, plans)):
                write_json(preprocessed / f"{name}.json", content)
    check(plans)
    plain = json.loads((preprocessed / f"{PLANS}.json").read_text(encoding="utf-8"))
    with files_listed_in_process():
        preprocess_cases(raw, preprocessed, plain, CONFIGURATION, workers)
    return plans


def _with_fewer(work: Callable[[int], None], workers: int) -> None:
    """Runs nnU-Net's ``work(workers)``; where it says that a process died (most often for want of memory), again with half as many, at last with one."""
    while True:
        try:
            return work(workers)
        except RuntimeError as error:
            if workers <= 1 or _DEATH_NOTICE not in str(error):
                raise
        logger.warning("one of %d processes died, most likely for want of memory; again with %d", workers, workers // 2)
        workers //= 2
