"""What can be set about planning and training; the paper's and nnU-Net's values are the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from flrplan.errors import SettingsError
from flrplan.files import read_yaml
from flrplan.files.checked import EmptyBlock, Flag, Number, Whole, checked, one_of, settings_of
from flrplan.method.stage_input import InputSettings
from flrplan.method.stages import STAGES
from flrplan.networks import BASE, Architecture, ChannelMode, Schedule

Count = Annotated[Whole, Field(ge=1)]
_SpacingMm = Annotated[Number, Field(ge=0.1, le=20)]
_Share = Annotated[Number, Field(ge=0, lt=1)]


class Loss(StrEnum):
    """What a training minimises, at every resolution that the network gives outputs at."""

    BCE = "bce"
    """Binary cross entropy, the paper's."""
    DICE_BCE = "dice_bce"
    """Binary cross entropy minus soft Dice: nnU-Net's "Dice + cross entropy" for sigmoid outputs."""


@checked
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

    spacing_zyx_mm: tuple[_SpacingMm, _SpacingMm, _SpacingMm] | None = None
    patch_size_zyx: tuple[Count, Count, Count] | None = None
    batch_size: Count | None = None
    network_size: str = BASE
    features: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    convs_decoder: Count = 2
    gpu_memory_gb: Annotated[Number, Field(gt=0)] = 8.0
    resampling: Annotated[str, one_of(("nnunet", "torch"))] = "nnunet"

    def __post_init__(self) -> None:
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


_ON_OFF = BeforeValidator(lambda value: ("off", "on")[value] if isinstance(value, bool) else value)
"""YAML reads on and off as true and false. The last check of an ``Annotated`` comes first."""


def _each_axis_once(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len({*axes} & {0, 1, 2}) != len(axes):
        raise ValueError("among 0, 1, 2 (z, y, x), each once")
    return axes


def _workers(value: Any) -> Any:
    if value != "auto" and not (type(value) is int and 0 <= value <= 64):
        raise ValueError("auto or a whole number in 0..64")
    return value


@checked
class TrainingSettings:
    """One training. The defaults are the paper's (200 epochs) and nnU-Net's (250 iterations, augmentations), for every architecture.

    learning_rate, weight_decay, amsgrad, schedule, warmup_fraction: None takes what the authors of the architecture recommend
    (:mod:`flrplan.networks.table`; the paper says "recommended hyperparameters"); ``run.json`` records what was taken.
    pretrained_channels: how kernels of pretrained weights are spread over more input channels (mask channels): ``repeat`` them as
    they are, ``divide`` them by the number of repetitions, or ``zero`` for the channels that are new.
    mirror_axes: nnU-Net mirrors along all three axes, in training and, where asked for, at test time.
    mixed_precision: auto = float16 on CUDA, float32 on a CPU; on = also bfloat16 on CPUs that compute in it
    (:mod:`flrplan.nnunet.train.precision` says why not by itself); bfloat16 = also on CUDA; off = float32.
    compile: auto = torch.compile on CUDA where triton is installed; on; off.
    workers: processes for augmentation; 0 = in the training process; auto = 0 on a CPU, cores - 1 (at most 12) beside a GPU.
    loss: ``bce`` (the paper's binary cross entropy) or ``dice_bce`` (nnU-Net's soft Dice + binary cross entropy).
    """

    epochs: Count = 200
    iterations_per_epoch: Count = 250
    validation_iterations: Count = 50
    learning_rate: Annotated[Number, Field(gt=0, le=1)] | None = None
    weight_decay: _Share | None = None
    amsgrad: Flag | None = None
    schedule: Annotated[str, one_of(Schedule)] | None = None
    warmup_fraction: _Share | None = None
    pretrained_channels: Annotated[str, one_of(ChannelMode)] = ChannelMode.REPEAT.value
    mirror_axes: Annotated[tuple[Whole, ...], AfterValidator(_each_axis_once)] = (0, 1, 2)
    oversample_foreground: Annotated[Number, Field(ge=0, le=1)] = 0.33
    mixed_precision: Annotated[str, one_of(("auto", "on", "off", "bfloat16")), _ON_OFF] = "auto"
    compile: Annotated[str, one_of(("auto", "on", "off")), _ON_OFF] = "auto"
    workers: Annotated[int | str, PlainValidator(_workers)] = "auto"
    save_every: Count = 5
    seed: Annotated[Whole, Field(ge=0)] = 0
    loss: Annotated[str, one_of(Loss)] = Loss.BCE.value

    def resolved(self, architecture: Architecture) -> TrainingSettings:
        """These settings with every None replaced by what the architecture's authors recommend."""
        advised = architecture.hyperparameters
        names = ("learning_rate", "weight_decay", "amsgrad", "schedule", "warmup_fraction")
        missing = {name: getattr(advised, name) for name in names if getattr(self, name) is None}
        if "schedule" in missing:
            missing["schedule"] = advised.schedule.value
        return replace(self, **missing)


@checked
class Recipe:
    """Everything that decides what is learned for one stage: input, plan, training. The defaults are the paper's and nnU-Net's."""

    input: Annotated[InputSettings, EmptyBlock] = field(default_factory=InputSettings)
    plan: Annotated[PlanSettings, EmptyBlock] = field(default_factory=PlanSettings)
    training: Annotated[TrainingSettings, EmptyBlock] = field(default_factory=TrainingSettings)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``run.json``."""
        return {"input": self.input.to_json(), "plan": asdict(self.plan), "training": asdict(self.training)}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from nested plain values; what is left out keeps its default. Raises SettingsError for unknown keys."""
        return settings_of(cls, values)

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
