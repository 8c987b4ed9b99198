"""A stage's network, kept warm, applied to arrays: nnU-Net's own preprocessing, sliding window and resampling, no files."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import warnings
from collections.abc import Callable
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from flrplan.anatomy import Mask, Structure
from flrplan.errors import DeviceMemoryError, ImageError, ModelError
from flrplan.hardware.device import is_out_of_memory
from flrplan.method import Probability, StageInput
from flrplan.method.engine import Engine
from flrplan.method.probabilities import encode
from flrplan.nnunet.environment import quiet, without_compiler
from flrplan.nnunet.model.architecture import check_architecture
from flrplan.nnunet.model.checkpoint import load_checkpoint, weights_sha256
from flrplan.nnunet.model.model_folder import ModelFolder
from flrplan.nnunet.model.openvino_network import OpenVinoNetwork, openvino, worth_converting
from flrplan.nnunet.model.tiles import needed_tiles
from flrplan.workfolder import ModelIdentity

with without_compiler():
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

logger = logging.getLogger(__name__)

Found = dict[Structure, tuple[Mask, Probability | None, tuple[Probability, ...]]]
"""Of each target the mask and, where they are asked for, its probability and that of each fold."""

Say = Callable[[str], object]

FOUND_LOGIT = -2.0
"""Where the first fold's foreground exceeds this (a probability of 0.12), there may be something."""
FOUND_MARGIN_MM = 20.0
"""The other folds run as far around it; what all find together must not lie beyond."""
LEAST_FOUND_ML = 200.0
"""A first fold that found less may have missed a liver."""
BACKGROUND_LOGIT = -10.0
"""Where no tile was: a probability of 0.00005."""
SHOWN_ABOVE = 0.05
"""Standard deviations above the darkest value: what is brighter is shown to the network of a masked stage."""
KEPT_WEIGHTS = 64_000_000
"""Weights of converted networks that a predictor keeps (4 bytes each, and more); larger ensembles are converted anew each time."""


class _Window(nnUNetPredictor):  # type: ignore[misc]  # nnU-Net has no types
    """nnU-Net's sliding window, which can be told to leave out tiles. What it works on is padded to a patch at least."""

    region: NDArray[np.bool_] | None = None
    """Of the image ``(Z, Y, X)``: only the tiles that it needs are run. None: all."""

    def _internal_get_sliding_window_slicers(self, image_size: tuple[int, ...]) -> list[tuple[slice, ...]]:
        tiles = super()._internal_get_sliding_window_slicers(image_size)
        if self.region is None:
            return list(tiles)
        more = [n - m for n, m in zip(image_size, self.region.shape, strict=True)]
        padded = np.pad(self.region, [(n // 2, n - n // 2) for n in more])
        return [(slice(None), *tile) for tile in needed_tiles([tile[1:] for tile in tiles], padded)]


class StagePredictor:
    """The ensemble of a model folder's folds. Their LOGITS are averaged, then resampled and thresholded (nnU-Net's order).

    mirroring: also predict mirrored patches, along the axes mirrored in training (nnU-Net's test-time augmentation:
    up to 8 times the work).
    engine: how the networks are run; by default as nnU-Net runs them.
    Raises: ModelError where a checkpoint is missing, damaged or does not fit the network of ``plans.json``.
    """

    def __init__(
        self, folder: ModelFolder, device: torch.device, mirroring: bool = False, engine: Engine | None = None
    ) -> None:
        self.folder = folder
        self.engine = engine or Engine()
        self._converted: dict[int, nn.Module] = {}
        self._cannot_convert = False
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
        self._darkest = _darkest(folder, configuration)
        self._configuration = configuration
        self._predictor = self._build(weights, configuration, tuple(axes) if axes else None, device, mirroring)

    def _build(
        self,
        weights: list[dict[str, torch.Tensor]],
        configuration: str,
        axes: tuple[int, ...] | None,
        device: torch.device,
        mirroring: bool,
    ) -> _Window:
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
            predictor = _Window(
                use_mirroring=mirroring and axes is not None,
                perform_everything_on_device=device.type == "cuda",
                device=device,
                allow_tqdm=False,
            )
        network.eval()  # nnU-Net moves it to the device when it predicts, where memory that runs out is met
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
        """Digest of all that its answers depend on beside the input: what the folder and its checkpoints say, weights, device, settings."""
        folder, running = self.folder, self._predictor
        mirrored = running.allowed_mirroring_axes if running.use_mirroring else None
        settings = [str(running.device), mirrored, self._configuration, str(self.engine)]
        content = json.dumps([folder.plans, folder.dataset, list(self.fold_sha256.items()), settings], sort_keys=True)
        return hashlib.sha256(content.encode()).digest()

    def predict(self, given: StageInput, say: Say | None = None) -> dict[Structure, Mask]:
        """The mask of each target, ``(Z, Y, X) bool`` on the grid of ``given`` (use its ``restore`` for the CT's grid).

        Empty where the network finds nothing. Safe to call from several threads: one prediction at a time.
        Raises: ModelError where ``given`` was built for another stage, or the prediction fails; ImageError for a CT that is thinner than half a
        voxel of the network; DeviceMemoryError where an accelerator's memory ran out.
        """
        return {target: mask for target, (mask, *_) in self._checked(given, say, with_probability=False).items()}

    def predict_with_probability(self, given: StageInput, say: Say | None = None) -> dict[Structure, tuple[Mask, Probability]]:
        """The masks as :meth:`predict` gives them, and each target's probability that its mask comes from, on the same grid.

        The probability is the sigmoid of the averaged logits, after resampling, and the mask is where it exceeds 0.5. A foreign
        model may have several outputs for its target. Of labels that exclude each other (softmax) it is the sum over those that are
        the target, and the mask is where one of them is the likeliest of all labels: 0.4 for the background and 0.3 for each of two
        labels is 0.6 outside the mask. Of regions (sigmoids) it is the greatest of those inside the target: they lie in each other.
        """
        found = self._checked(given, say, with_probability=True)
        return {target: (mask, probability) for target, (mask, probability, _) in found.items() if probability is not None}

    def predict_with_folds(
        self, given: StageInput, say: Say | None = None
    ) -> dict[Structure, tuple[Mask, Probability, tuple[Probability, ...]]]:
        """As :meth:`predict_with_probability`, and the probability of each fold by itself, in the order of the folds.

        The networks run as often as without: each fold's logits are kept until they are averaged, and resampled once more.
        """
        found = self._checked(given, say, with_probability=True, with_folds=True)
        return {target: (mask, p, folds) for target, (mask, p, folds) in found.items() if p is not None}

    def _checked(self, given: StageInput, say: Say | None, with_probability: bool, with_folds: bool = False) -> Found:
        if given.stage != self.stage:
            raise ModelError(f"{self.folder.path} is of stage {self.stage}, the input was built for stage {given.stage}")
        self._require_extent(given)
        threads = torch.get_num_threads()
        try:
            return self._predict(given, say or logger.warning, with_probability, with_folds)
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

    def _require_extent(self, given: StageInput) -> None:
        """Raises ImageError for a CT of which no voxel of the network would be left along an axis."""
        coarse = self._predictor.configuration_manager.spacing
        axes = self._predictor.plans_manager.transpose_forward[-len(coarse) :]
        grid = given.geometry
        of_axes = sorted(
            (axis, grid.shape_zyx[axis] * grid.spacing_zyx_mm[axis], edge) for axis, edge in zip(axes, coarse, strict=True)
        )
        if any(round(mm / edge) < 1 for _, mm, edge in of_axes):
            least = " x ".join(f"{edge / 2:.3g}" for *_, edge in of_axes)
            found = " x ".join(f"{mm:.3g}" for _, mm, _ in of_axes)
            named = ", ".join("zyx"[axis] for axis, *_ in of_axes)
            raise ImageError(
                f"stage {self.stage}: what it is shown of the CT measures {found} mm ({named}), this model needs more than {least} mm; give "
                "a CT of the whole liver"
            )

    def _predict(self, given: StageInput, say: Say, with_probability: bool, with_folds: bool) -> Found:
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
            of_folds = self._ensemble(data, say)
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

    def _ensemble(self, data: NDArray[np.float32], say: Say) -> list[torch.Tensor]:
        """The logits ``(C, Z, Y, X)`` of each fold, at the resolution of the network, as the engine makes them.

        say: is told why the whole image was searched where a part should have done.
        """
        others = range(1, len(self._predictor.list_of_parameters))
        masked = self.stage.region is not None and self.folder.input.region_mode.masks
        flat = len(self._predictor.configuration_manager.patch_size) < 3
        if not self.engine.region or flat or (self.stage.region is not None and not masked):
            return [self._fold_logits(number, data) for number in (0, *others)]
        if masked:
            shown = data[0] > self._darkest + SHOWN_ABOVE
            return [self._fold_logits(number, data, shown if shown.any() else None) for number in (0, *others)]
        first = self._fold_logits(0, data)
        region, doubt = self._around(self._foreground(first) > FOUND_LOGIT)
        if doubt is None:
            of_folds = [first, *(self._fold_logits(number, data, region) for number in others)]
            if not others or not (self._foreground(reduce(torch.add, of_folds)) > 0)[~region].any():
                return of_folds
            doubt = "the folds found something where the first saw nothing"
        if others:
            say(f"{self.stage}: {doubt}, so all of them searched the whole CT")
        return [first, *(self._fold_logits(number, data) for number in others)]

    def _around(self, found: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], str | None]:
        """What lies near what the first fold found, and why that is in doubt."""
        spacing = self._predictor.configuration_manager.spacing
        if found.sum() * math.prod(spacing) / 1000 < LEAST_FOUND_ML:
            return found, "the first fold found next to nothing"
        reach = [int(np.ceil(FOUND_MARGIN_MM / mm)) for mm in spacing]
        for axis, n in enumerate(reach):
            found = ndimage.maximum_filter1d(found, 2 * n + 1, axis=axis)
        return found, None

    def _foreground(self, logits: torch.Tensor) -> NDArray[np.float32]:
        """How far the likeliest of the labels that are not background lies above it, ``(Z, Y, X)``."""
        labels = self._predictor.label_manager
        above = logits.amax(0) if labels.has_regions else logits[1:].amax(0) - logits[0]
        array: NDArray[np.float32] = above.float().numpy()
        return array

    def _fold_logits(self, number: int, data: NDArray[np.float32], region: NDArray[np.bool_] | None = None) -> torch.Tensor:
        """The logits of one fold, at the resolution of the network, by the tiles that the region needs; background where none is."""
        predictor = self._predictor
        threads, network = torch.get_num_threads(), predictor.network
        predictor.network, predictor.region = self._network(number), region
        try:
            logits: torch.Tensor = predictor.predict_sliding_window_return_logits(torch.from_numpy(data)).to("cpu")
        finally:
            predictor.network, predictor.region = network, None
            torch.set_num_threads(threads)
        if region is None:
            return logits
        background = torch.full(logits.shape[:1], BACKGROUND_LOGIT, dtype=logits.dtype)
        if not predictor.label_manager.has_regions:
            background[0] = -BACKGROUND_LOGIT
        searched = ~torch.isnan(logits).all(0) | torch.from_numpy(
            region
        )  # nnU-Net divides by the sum of weights, 0 where no tile is
        return torch.where(searched, logits, background.reshape(-1, *[1] * region.ndim))

    def _network(self, number: int) -> nn.Module:
        """The network with the weights of a fold, by OpenVINO where the engine says so and it can be."""
        if number in self._converted:
            return self._converted[number]
        predictor, weights = self._predictor, self._predictor.list_of_parameters[number]
        predictor.network.load_state_dict(weights)
        network: nn.Module = predictor.network
        wanted = self.engine.openvino and predictor.device.type == "cpu" and not self._cannot_convert
        if not wanted or not worth_converting(network) or openvino() is None:
            return network
        try:
            strides = np.prod(predictor.configuration_manager.network_arch_init_kwargs["strides"], axis=0).tolist()
            channels = len(self.folder.input.channel_names(self.stage))
            patch = predictor.configuration_manager.patch_size
            converted = OpenVinoNetwork(network, channels, patch, strides, self.engine.bfloat16)
        except Exception as error:  # a network that OpenVINO does not know still has PyTorch
            logger.warning("stage %s: OpenVINO cannot run this network, PyTorch does (%s)", self.stage, str(error)[:300])
            self._cannot_convert = True
            return network
        if sum(p.numel() for p in network.parameters()) * len(predictor.list_of_parameters) <= KEPT_WEIGHTS:
            self._converted[number] = converted
        return converted

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


def _darkest(folder: ModelFolder, configuration: str) -> float:
    """What nnU-Net makes of the darkest HU, air for one; minus infinity where it normalizes a CT in another way than as a CT."""
    schemes = folder.plans.get("configurations", {}).get(configuration, {}).get("normalization_schemes", ())
    if not schemes or schemes[0] != "CTNormalization":
        return -math.inf
    seen = folder.plans["foreground_intensity_properties_per_channel"]["0"]
    return (float(seen["percentile_00_5"]) - float(seen["mean"])) / max(float(seen["std"]), 1e-8)


def _target_values(folder: ModelFolder, target: Structure) -> tuple[int, ...]:
    labels = folder.dataset.get("labels", {})
    found: set[int] = set()
    for name in folder.labels_of(target):
        if name not in labels:
            raise ModelError(f"{folder.path}: dataset.json has no label {name!r}; it has {sorted(labels)}")
        values = labels[name]
        found |= {int(v) for v in values} if isinstance(values, list) else {int(values)}
    return tuple(sorted(found))
