"""A stage's network, kept warm, applied to arrays: nnU-Net's own preprocessing, sliding window and resampling, no files."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from flrplan.anatomy import Mask, Structure
from flrplan.errors import DeviceMemoryError, ModelError
from flrplan.hardware.device import is_out_of_memory
from flrplan.method import Probability, StageInput
from flrplan.method.probabilities import encode
from flrplan.nnunet.environment import quiet
from flrplan.nnunet.model.architecture import check_architecture
from flrplan.nnunet.model.checkpoint import load_checkpoint, weights_sha256
from flrplan.nnunet.model.model_folder import ModelFolder
from flrplan.workfolder import ModelIdentity

logger = logging.getLogger(__name__)

Found = dict[Structure, tuple[Mask, Probability | None, tuple[Probability, ...]]]
"""Of each target the mask and, where they are asked for, its probability and that of each fold."""


class StagePredictor:
    """The ensemble of a model folder's folds. Their LOGITS are averaged, then resampled and thresholded (nnU-Net's order).

    mirroring: also predict mirrored patches, along the axes mirrored in training (nnU-Net's test-time augmentation:
    up to 8 times the work).
    Raises: ModelError where a checkpoint is missing, damaged or does not fit the network of ``plans.json``.
    """

    def __init__(self, folder: ModelFolder, device: torch.device, mirroring: bool = False) -> None:
        self.folder = folder
        self.stage = folder.stage
        self._lock = threading.Lock()
        checkpoints = {fold: load_checkpoint(folder.checkpoint(fold)) for fold in folder.folds}
        first = checkpoints[folder.folds[0]]
        try:
            weights = [c["network_weights"] for c in checkpoints.values()]
            configuration = first["init_args"]["configuration"]
            axes = first.get("inference_allowed_mirroring_axes")
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"{folder.path}: a checkpoint lacks {error}; expected network_weights and init_args as nnU-Net writes"
            ) from error
        self.fold_sha256 = {fold: weights_sha256(w) for fold, w in zip(folder.folds, weights, strict=True)}
        self._values = {target: _target_values(folder, target) for target in folder.stage.targets}
        self._ras = str(folder.plans.get("image_reader_writer")).endswith("WithReorient")
        self._predictor = self._build(weights, configuration, tuple(axes) if axes else None, device, mirroring)

    def _build(
        self,
        weights: list[dict[str, torch.Tensor]],
        configuration: str,
        axes: tuple[int, ...] | None,
        device: torch.device,
        mirroring: bool,
    ) -> nnUNetPredictor:
        check_architecture(self.folder, configuration)
        try:
            plans = PlansManager(self.folder.plans)
            settings = plans.get_configuration(configuration)
            heads = plans.get_label_manager(self.folder.dataset).num_segmentation_heads
            network = get_network_from_plans(  # as nnU-Net's trainer does, which loads matplotlib and seaborn
                settings.network_arch_class_name,
                settings.network_arch_init_kwargs,
                settings.network_arch_init_kwargs_req_import,
                len(self.folder.input.channel_names(self.folder.stage)),
                heads,
                allow_init=True,
                deep_supervision=False,
            )
            for fold_weights in weights:
                network.load_state_dict(fold_weights)
        except (KeyError, RuntimeError, ImportError, AttributeError, TypeError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split())[:500]
            raise ModelError(f"{self.folder.path}: the weights do not fit the network of plans.json: {reason}") from error
        with quiet():  # the constructor prints a note on every CPU
            predictor = nnUNetPredictor(
                use_mirroring=mirroring and axes is not None,
                perform_everything_on_device=device.type == "cuda",
                device=device,
                allow_tqdm=False,
            )
        network.to(device).eval()
        predictor.manual_initialization(network, plans, settings, weights, self.folder.dataset, "nnUNetTrainer", axes)
        return predictor

    @property
    def identity(self) -> ModelIdentity:
        """What runs, for reports and records."""
        folder = self.folder
        sees = {"from": folder.imported_from, "labels": list(folder.labels), "sees": folder.input.describe(folder.stage)}
        return ModelIdentity(
            stage=self.stage.name,
            folder=folder.name,
            folds=tuple(folder.folds),
            weights_sha256={str(fold): digest for fold, digest in self.fold_sha256.items()},
            imported=sees if folder.imported_from else None,
        )

    @cached_property
    def decides(self) -> bytes:
        """Digest of all that its answers depend on beside the input: what the folder says, weights, device, settings."""
        folder, running = self.folder, self._predictor
        settings = [str(running.device), running.use_mirroring]
        content = json.dumps([folder.plans, folder.dataset, list(self.fold_sha256.items()), settings], sort_keys=True)
        return hashlib.sha256(content.encode()).digest()

    def predict(self, given: StageInput) -> dict[Structure, Mask]:
        """The mask of each target, ``(Z, Y, X) bool`` on the grid of ``given`` (use its ``restore`` for the CT's grid).

        Empty where the network finds nothing. Safe to call from several threads: one prediction at a time.
        Raises: ModelError where ``given`` was built for another stage, or the prediction fails; DeviceMemoryError where an
        accelerator's memory ran out.
        """
        return {target: mask for target, (mask, *_) in self._checked(given, with_probability=False).items()}

    def predict_with_probability(self, given: StageInput) -> dict[Structure, tuple[Mask, Probability]]:
        """The masks as :meth:`predict` gives them, and each target's probability that its mask comes from, on the same grid.

        The probability is the sigmoid of the averaged logits, after resampling, and the mask is where it exceeds 0.5. A foreign
        model may have several outputs for its target. Of labels that exclude each other (softmax) it is the sum over those that are
        the target, and the mask is where one of them is the likeliest of all labels: 0.4 for the background and 0.3 for each of two
        labels is 0.6 outside the mask. Of regions (sigmoids) it is the greatest of those inside the target: they lie in each other.
        """
        found = self._checked(given, with_probability=True)
        return {target: (mask, probability) for target, (mask, probability, _) in found.items() if probability is not None}

    def predict_with_folds(self, given: StageInput) -> dict[Structure, tuple[Mask, Probability, tuple[Probability, ...]]]:
        """As :meth:`predict_with_probability`, and the probability of each fold by itself, in the order of the folds.

        The networks run as often as without: each fold's logits are kept until they are averaged, and resampled once more.
        """
        found = self._checked(given, with_probability=True, with_folds=True)
        return {target: (mask, p, folds) for target, (mask, p, folds) in found.items() if p is not None}

    def _checked(self, given: StageInput, with_probability: bool, with_folds: bool = False) -> Found:
        if given.stage != self.stage:
            raise ModelError(f"{self.folder.path} is of stage {self.stage}, the input was built for stage {given.stage}")
        threads = torch.get_num_threads()
        try:
            return self._predict(given, with_probability, with_folds)
        except (RuntimeError, MemoryError) as error:  # nnU-Net's and torch's, out of memory among them
            if isinstance(error, ModelError):
                raise
            torch.set_num_threads(threads)  # nnU-Net leaves its own number behind
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            device = self._predictor.device
            kind = DeviceMemoryError if device.type != "cpu" and is_out_of_memory(error) else ModelError
            raise kind(
                f"stage {self.stage}: the prediction failed on {device} ({reason}); if memory ran out, use --device cpu or a machine "
                "with more"
            ) from error

    def _predict(self, given: StageInput, with_probability: bool, with_folds: bool) -> Found:
        """The masks, and the probabilities where they are asked for."""
        predictor = self._predictor
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)
            properties: dict[str, Any] = {"spacing": list(given.geometry.spacing_zyx_mm)}
            preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
            data, _, properties = preprocessor.run_case_npy(
                self._turned(given.channels_czyx),
                None,
                properties,
                predictor.plans_manager,
                predictor.configuration_manager,
                predictor.dataset_json,
            )
            of_folds = list(self._fold_logits(torch.from_numpy(data)))
            del data
            logits = of_folds[0].clone()
            for of_fold in of_folds[1:]:
                logits += of_fold
            logits = (logits / len(of_folds)).float()  # as nnU-Net averages them
            if not bool(torch.isfinite(logits).all()):
                raise ModelError(
                    f"{self.folder.path}: the network's output is NaN or infinite, so it says nothing; its training diverged, "
                    "or its weights overflow in half precision. Use another model"
                )
            logits = self._resampled(logits, properties)
            found = {target: self._target(logits, values, with_probability) for target, values in self._values.items()}
            del logits
            parts: dict[Structure, list[Probability]] = {target: [] for target in found}
            for of_fold in of_folds if with_folds else ():
                resampled = self._resampled(of_fold.float(), properties)
                for target, values in self._values.items():
                    _, part = self._target(resampled, values, with_probability=True)
                    if part is not None:
                        parts[target].append(part)

        def whole(array: NDArray[Any]) -> NDArray[Any]:
            return self._turned(self._uncropped(array, properties))

        return {
            target: (whole(mask), None if p is None else whole(p), tuple(whole(part) for part in parts[target]))
            for target, (mask, p) in found.items()
        }

    def _fold_logits(self, data: torch.Tensor) -> Iterator[torch.Tensor]:
        """The logits of one fold after the other, at the resolution of the network."""
        predictor = self._predictor
        folds = predictor.list_of_parameters
        try:
            for weights in folds:
                predictor.list_of_parameters = [weights]
                yield predictor.predict_logits_from_preprocessed_data(data)
        finally:
            predictor.list_of_parameters = folds

    def _resampled(self, logits: torch.Tensor, properties: dict[str, Any]) -> torch.Tensor:
        """Logits ``(C, Z, Y, X)`` on the grid of the input, as nnU-Net's ``convert_predicted_logits_to_segmentation...`` does it."""
        configuration = self._predictor.configuration_manager
        spacing = [properties["spacing"][axis] for axis in self._predictor.plans_manager.transpose_forward]
        shape = properties["shape_after_cropping_and_before_resampling"]
        trained = configuration.spacing
        current = trained if len(trained) == len(shape) else [spacing[0], *trained]
        return torch.as_tensor(configuration.resampling_fn_probabilities(logits, shape, current, spacing))

    def _target(
        self, logits: torch.Tensor, values: tuple[int, ...], with_probability: bool
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint8] | None]:
        """Mask of the target that has these values, and its probability where it is asked for, slice by slice from the same numbers."""
        labels = self._predictor.label_manager
        heads = labels.foreground_regions if labels.has_regions else labels.all_labels
        own = [number for number, head in enumerate(heads) if {*np.ravel(head)} <= {*values}]
        mask = np.empty(logits.shape[1:], bool)
        probability = np.empty(mask.shape, np.uint8) if with_probability else None
        for z, part in enumerate(logits.unbind(1)):
            if labels.has_regions:
                p = labels.apply_inference_nonlin(part[own]).amax(0)
                mask[z] = (p > 0.5).numpy()
            else:
                mask[z] = np.isin(labels.convert_logits_to_segmentation(part), values)
                p = labels.apply_inference_nonlin(part)[own].sum(0) if with_probability else part
            if probability is not None:
                probability[z] = encode(p.numpy())
        return mask, probability

    def _uncropped(self, array: NDArray[Any], properties: dict[str, Any]) -> NDArray[Any]:
        """On the grid that nnU-Net's preprocessing cropped and transposed; 0 outside its crop."""
        whole = np.zeros(properties["shape_before_cropping"], array.dtype)
        whole[tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])] = array
        return whole.transpose(self._predictor.plans_manager.transpose_backward)

    def _turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """Between our axis order, towards left and back (LPS), and that of nnU-Net's readers that turn every image to RAS."""
        return np.ascontiguousarray(array[..., ::-1, ::-1]) if self._ras else array


def _target_values(folder: ModelFolder, target: Structure) -> tuple[int, ...]:
    labels = folder.dataset.get("labels", {})
    found: set[int] = set()
    for name in folder.labels_of(target):
        if name not in labels:
            raise ModelError(f"{folder.path}: dataset.json has no label {name!r}; it has {sorted(labels)}")
        values = labels[name]
        found |= {int(v) for v in values} if isinstance(values, list) else {int(values)}
    return tuple(sorted(found))
