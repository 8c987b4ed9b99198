"""What can be set about planning and training; the paper's and nnU-Net's values are the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from flrplan.errors import SettingsError
from flrplan.files import read_yaml
from flrplan.files.setting_checks import require_bounds, require_types, with_numbers
from flrplan.method.stage_input import InputSettings
from flrplan.method.stages import STAGES
from flrplan.networks import BASE, Architecture, ChannelMode, Schedule

Settings = TypeVar("Settings", "PlanSettings", "TrainingSettings")

_PLAN_BOUNDS = {
    "spacing_zyx_mm": (0.1, 20),
    **dict.fromkeys(("patch_size_zyx", "batch_size", "features", "convs_decoder"), (1, inf)),
}
_TRAINING_BOUNDS = {
    **dict.fromkeys(("epochs", "iterations_per_epoch", "validation_iterations", "save_every"), (1, inf)),
    "oversample_foreground": (0, 1),
    "seed": (0, inf),
}


class Loss(StrEnum):
    """What a training minimises, at every resolution that the network gives outputs at."""

    BCE = "bce"
    """Binary cross entropy, the paper's."""
    DICE_BCE = "dice_bce"
    """Binary cross entropy minus soft Dice: nnU-Net's "Dice + cross entropy" for sigmoid outputs."""


@dataclass(frozen=True)
class PlanSettings:
    """Overrides of nnU-Net's planning; None leaves a value to nnU-Net's ExperimentPlanner.

    spacing_zyx_mm, gpu_memory_gb (what the planner may assume; nnU-Net: 8) and resampling (``nnunet``: cubic spline, nnU-Net's
    default; ``torch``: linear, several times faster on a CPU) belong to the stage: all architectures share its prepared data.
    The others belong to one architecture and can differ between trainings on the same prepared data:
    patch_size_zyx, batch_size: the patch (voxels), rounded to what the network can take, and the batch.
    network_size: a size of :mod:`flrplan.networks.table`.
    features: channels per resolution of nnU-Net's U-Net; also its number of resolutions. Needs ``patch_size_zyx``.
    convs_decoder: convolutions per resolution of its decoder (nnU-Net: 2).
    """

    spacing_zyx_mm: tuple[float, float, float] | None = None
    patch_size_zyx: tuple[int, int, int] | None = None
    batch_size: int | None = None
    network_size: str = BASE
    features: tuple[int, ...] | None = None
    convs_decoder: int = 2
    gpu_memory_gb: float = 8.0
    resampling: str = "nnunet"

    def __post_init__(self) -> None:
        require_types(self)
        require_bounds(self, _PLAN_BOUNDS)
        if self.gpu_memory_gb <= 0:
            raise SettingsError(f"gpu_memory_gb must be positive, got {self.gpu_memory_gb}")
        if self.resampling not in ("nnunet", "torch"):
            raise SettingsError(f"resampling must be nnunet or torch, got {self.resampling!r}")
        if self.features == ():
            raise SettingsError("features must name the channels of at least one resolution, got an empty list")
        if self.features is not None and self.patch_size_zyx is None:
            raise SettingsError("features needs patch_size_zyx: the patch must divide by the network's strides")
        if self.features is not None and self.network_size != BASE:
            raise SettingsError(f"features is a size of its own; leave network_size at {BASE}, got {self.network_size!r}")
        if self.features is not None and self.patch_size_zyx is not None:
            step = 2 ** (len(self.features) - 1)
            if any(n % step for n in self.patch_size_zyx):
                raise SettingsError(
                    f"patch_size_zyx {self.patch_size_zyx} must divide by {step} for {len(self.features)} resolutions"
                )

    def shared(self) -> dict[str, Any]:
        """The settings that decide what is prepared, the same for all architectures."""
        return {name: getattr(self, name) for name in ("spacing_zyx_mm", "gpu_memory_gb", "resampling")}


@dataclass(frozen=True)
class TrainingSettings:
    """One training. The defaults are the paper's (200 epochs) and nnU-Net's (250 iterations, augmentations), for every architecture.

    learning_rate, weight_decay, amsgrad, schedule, warmup_fraction: None takes what the authors of the architecture recommend
    (:mod:`flrplan.networks.table`; the paper says "recommended hyperparameters"); ``run.json`` records what was taken.
    pretrained_channels: how kernels of pretrained weights are spread over more input channels (mask channels): ``repeat`` them as
    they are, ``divide`` them by the number of repetitions, or ``zero`` for the channels that are new.
    mirror_axes: nnU-Net mirrors along all three axes, in training and, where asked for, at test time.
    mixed_precision: auto = float16 on CUDA, float32 on a CPU; on = also bfloat16 on CPUs that compute in it
    (:mod:`flrplan.nnunet.precision` says why not by itself); bfloat16 = also on CUDA; off = float32.
    compile: auto = torch.compile on CUDA where triton is installed; on; off.
    workers: processes for augmentation; 0 = in the training process; auto = 0 on a CPU, cores - 1 (at most 12) beside a GPU.
    loss: ``bce`` (the paper's binary cross entropy) or ``dice_bce`` (nnU-Net's soft Dice + binary cross entropy).
    """

    epochs: int = 200
    iterations_per_epoch: int = 250
    validation_iterations: int = 50
    learning_rate: float | None = None
    weight_decay: float | None = None
    amsgrad: bool | None = None
    schedule: str | None = None
    warmup_fraction: float | None = None
    pretrained_channels: str = ChannelMode.REPEAT.value
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    oversample_foreground: float = 0.33
    mixed_precision: str = "auto"
    compile: str = "auto"
    workers: int | str = "auto"
    save_every: int = 5
    seed: int = 0
    loss: str = Loss.BCE.value

    def __post_init__(self) -> None:
        for name, known in (("schedule", Schedule), ("pretrained_channels", ChannelMode), ("loss", Loss)):
            value = getattr(self, name)
            if value not in (*(mode.value for mode in known), *([None] if name == "schedule" else [])):
                raise SettingsError(f"{name} must be one of {', '.join(mode.value for mode in known)}, got {value!r}")
        for name in ("mixed_precision", "compile"):
            value = getattr(self, name)
            value = ("off", "on")[value] if isinstance(value, bool) else value  # YAML reads on and off as such
            words = ("auto", "on", "off", *(["bfloat16"] if name == "mixed_precision" else []))
            if value not in words:
                raise SettingsError(f"{name} must be {', '.join(words[:-1])} or {words[-1]}, got {value!r}")
            object.__setattr__(self, name, value)
        require_types(self)
        require_bounds(self, _TRAINING_BOUNDS)
        if not 0 <= (self.weight_decay or 0) < 1:
            raise SettingsError(f"weight_decay must lie in [0, 1), got {self.weight_decay}")
        if self.learning_rate is not None and not 0 < self.learning_rate <= 1:
            raise SettingsError(f"learning_rate must lie in (0, 1], got {self.learning_rate}")
        if not 0 <= (self.warmup_fraction or 0) < 1:
            raise SettingsError(f"warmup_fraction must lie in [0, 1), got {self.warmup_fraction}")
        if len({*self.mirror_axes} & {0, 1, 2}) != len(self.mirror_axes):
            raise SettingsError(f"mirror_axes must be among 0, 1, 2 (z, y, x), each once, got {self.mirror_axes}")
        if self.workers != "auto" and not (isinstance(self.workers, int) and 0 <= self.workers <= 64):
            raise SettingsError(f"workers must be auto or a whole number in 0..64, got {self.workers!r}")

    def resolved(self, architecture: Architecture) -> TrainingSettings:
        """These settings with every None replaced by what the architecture's authors recommend."""
        advised = architecture.hyperparameters
        names = ("learning_rate", "weight_decay", "amsgrad", "schedule", "warmup_fraction")
        missing = {name: getattr(advised, name) for name in names if getattr(self, name) is None}
        if "schedule" in missing:
            missing["schedule"] = advised.schedule.value
        return replace(self, **missing)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learned for one stage: input, plan, training. The defaults are the paper's and nnU-Net's."""

    input: InputSettings = field(default_factory=InputSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``run.json``."""
        return {"input": self.input.to_json(), "plan": asdict(self.plan), "training": asdict(self.training)}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from nested plain values; what is left out keeps its default. Raises SettingsError for unknown keys."""
        unknown = sorted(set(values) - {"input", "plan", "training"})
        if unknown:
            raise SettingsError(f"unknown parts of a recipe {unknown}; known are input, plan, training")
        parts = {name: with_numbers(_mapping(values.get(name) or {}, name)) for name in ("input", "plan", "training")}
        return cls(
            InputSettings.from_json(parts["input"]),
            _from_mapping(PlanSettings, parts["plan"]),
            _from_mapping(TrainingSettings, parts["training"]),
        )

    @classmethod
    def from_yaml(cls, path: Path, stage: str, *over: Mapping[str, Any]) -> Recipe:
        """The recipe of one stage in a YAML file: its block ``common``, overridden by its block ``<stage>``, then by each of ``over``.

        Raises: SettingsError naming the file for unknown keys or a file that is not YAML.
        """
        content = read_yaml(path, "a YAML file with recipes") or {}
        known = {"common", *STAGES}
        if not isinstance(content, dict) or set(content) - known:
            found = sorted(set(content) - known) if isinstance(content, dict) else type(content).__name__
            parts = isinstance(content, dict) and set(content) & {"input", "plan", "training"}
            remedy = f"; indent {', '.join(sorted(parts))} under 'common:' or the name of a stage" if parts else ""
            raise SettingsError(f"{path}: expected blocks {', '.join(sorted(known))}, found {found}{remedy}")
        for block in (content.get("common") or {}, content.get(stage) or {}):
            for part, settings in _mapping(block, f"{path}: a block").items():
                _mapping(settings, f"{path}: {part}")
        try:
            return cls.layered(content.get("common") or {}, content.get(stage) or {}, *over)
        except SettingsError as error:
            raise SettingsError(f"{path}, stage {stage}: {error}") from error

    @classmethod
    def layered(cls, *blocks: Mapping[str, Any]) -> Recipe:
        """The recipe of several nested mappings, setting by setting; a later one goes over those before it."""
        merged: dict[str, dict[str, Any]] = {}
        for block in blocks:
            for part, settings in block.items():
                merged.setdefault(part, {}).update(_mapping(settings, part))
        return cls.from_mapping(merged)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{what}: expected names with values, found {value!r}")
    return value


def _from_mapping(cls: type[Settings], values: Mapping[str, Any]) -> Settings:
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise SettingsError(f"unknown {cls.__name__} {unknown}; known are {', '.join(sorted(known))}")
    return cls(**values)
