"""The architectures as data: network, sizes, what a plan must respect, and the hyperparameters that its authors recommend.

Training, planning, server and benchmark derive from :data:`TABLE`; a further architecture is one more row (docs/networks.md).
The settings that the paper shares between all of them (200 epochs, AdamW, binary cross entropy, nnU-Net's augmentations) are
the defaults of :class:`flrplan.method.recipe.TrainingSettings`. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from flrplan.errors import SettingsError

BASE = "base"
"""The size of the paper's experiments; every architecture has it."""
NARROW = "narrow"
"""A size for tests and trials on a CPU; every architecture has it, no published weights fit it."""


SCRATCH = "scratch"
"""Said in the place of a file of weights: start from random ones, on purpose."""


class Schedule(StrEnum):
    """How the learning rate falls over the epochs."""

    POLY = "poly"
    """Polynomial decay with exponent 0.9, nnU-Net's."""
    WARMUP_COSINE = "warmup_cosine"
    """A linear rise over the first epochs, then half a cosine to zero."""


class ChannelMode(StrEnum):
    """How pretrained kernels of the first layer are spread over more input channels (the mask channels)."""

    REPEAT = "repeat"
    """Each new channel gets the kernel as it is, as the authors of STU-Net do; the layer's output grows."""
    DIVIDE = "divide"
    """Repeated and divided by the number of repetitions; equal channels give the output of one."""
    ZERO = "zero"
    """New channels start at zero: the network first sees what it saw before."""


@dataclass(frozen=True)
class Hyperparameters:
    """What the authors of a network recommend for AdamW. ``warmup_fraction``: share of the epochs that warm up."""

    learning_rate: float
    weight_decay: float
    amsgrad: bool
    schedule: Schedule
    source: str
    warmup_fraction: float = 0.0


@dataclass(frozen=True)
class PatchRule:
    """What a network asks of the patch; planning rounds to it and never fails.

    resolutions: the network's fixed number of resolutions; its strides follow nnU-Net's plan, and each side of the patch divides
        by their product. None: as many as nnU-Net plans.
    divisor: without strides of its own, each side of the patch divides by this.
    voxels: patch volume its authors trained with; a larger planned patch is reduced to it. None: nnU-Net's choice.
    spacing_mm: for information: the equal spacing of the voxels that its published weights were trained on. Planning does not follow it
        (docs/networks.md says why); starting from the weights at another one warns. None: no published weights.
    """

    resolutions: int | None = None
    divisor: int = 1
    voxels: int | None = None
    spacing_mm: float | None = None


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    network: dotted path of the class, as ``plans.json`` names it.
    sizes: keyword arguments of the class by size.
    planned_by_nnunet: nnU-Net's planner makes the other arguments; else the size's arguments (and strides) are all there are.
    presets: by size the class of nnU-Net's that plans patch, batch and network on the prepared data; none: those of its usual planner.
    deep_supervision: the network gives outputs at several resolutions.
    pretrained: the paper starts from published weights (they cannot be redistributed, so a file must be given).
    heads: beginnings of the names of the output layers, which are new where the number of outputs differs.
    """

    name: str
    network: str
    sizes: Mapping[str, Mapping[str, Any]]
    hyperparameters: Hyperparameters
    source: str
    heads: tuple[str, ...]
    patch: PatchRule = field(default_factory=PatchRule)
    deep_supervision: bool = False
    planned_by_nnunet: bool = False
    presets: Mapping[str, str] = field(default_factory=dict)
    pretrained: bool = False

    def size(self, name: str) -> Mapping[str, Any]:
        """The arguments of one size. Raises SettingsError naming the known ones."""
        try:
            return self.sizes[name]
        except KeyError:
            raise SettingsError(f"{self.name} has no network_size {name!r}; it has {', '.join(self.sizes)}") from None


def _stunet(dims: tuple[int, ...], depth: int) -> dict[str, Any]:
    return {"dims": list(dims), "depths": [depth] * len(dims)}


NNUNET = Architecture(
    name="nnunet",
    network="dynamic_network_architectures.architectures.unet.PlainConvUNet",
    sizes={BASE: {}, NARROW: {"features_per_stage": [4, 8, 16, 32, 32, 32, 32, 32]}},
    hyperparameters=Hyperparameters(
        learning_rate=1e-3,
        weight_decay=3e-5,
        amsgrad=True,
        schedule=Schedule.POLY,
        source="nnU-Net 2 ships AdamW trainers of 1e-2 (the rate of its SGD), 1e-3 and 3e-4, and recommends none; the middle one is our "
        "choice, as for STU-Net's fine-tuning; decay and amsgrad are theirs",
    ),
    source="Isensee et al. 2021, doi 10.1038/s41592-020-01008-z",
    heads=("decoder.seg_layers.",),
    deep_supervision=True,
    planned_by_nnunet=True,
)

SWINUNETR = Architecture(
    name="swinunetr",
    network="flrplan.networks.swinunetr.SwinUNETR",
    sizes={
        BASE: {"feature_size": 48, "depths": [2, 2, 2, 2], "num_heads": [3, 6, 12, 24]},
        NARROW: {"feature_size": 12, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]},
    },
    hyperparameters=Hyperparameters(
        learning_rate=1e-4,
        weight_decay=1e-5,
        amsgrad=False,
        schedule=Schedule.WARMUP_COSINE,
        warmup_fraction=0.05,
        source="the authors' training script for abdominal CT (MONAI research-contributions, SwinUNETR/BTCV); its 50 warm-up epochs "
        "are 1 % of its 5000 and would be a quarter of 200, so 5 % here",
    ),
    source="Hatamizadeh et al. 2022, arXiv:2201.01266; patch 96 x 96 x 96 from the same script",
    heads=("out.",),
    patch=PatchRule(divisor=32, voxels=96**3),
)

STUNET = Architecture(
    name="stunet",
    network="flrplan.networks.stunet.STUNet",
    sizes={
        "small": _stunet((16, 32, 64, 128, 256, 256), 1),
        BASE: _stunet((32, 64, 128, 256, 512, 512), 1),
        "large": _stunet((64, 128, 256, 512, 1024, 1024), 2),
        "huge": _stunet((96, 192, 384, 768, 1536, 1536), 3),
        NARROW: _stunet((4, 8, 16, 32, 32, 32), 1),
    },
    hyperparameters=Hyperparameters(
        learning_rate=1e-3,
        weight_decay=3e-5,
        amsgrad=True,
        schedule=Schedule.POLY,
        source="fine-tuning rate of Huang et al. 2023; the authors train by SGD, so decay and amsgrad are those of nnU-Net's AdamW",
    ),
    source="Huang et al. 2023, arXiv:2304.06716; patch 128 x 128 x 128; pretrained on TotalSegmentator, whose images have 1.5 mm "
    "(Wasserthal et al. 2023, doi 10.1148/ryai.230024)",
    heads=("seg_outputs.",),
    patch=PatchRule(resolutions=6, voxels=128**3, spacing_mm=1.5),
    deep_supervision=True,
    pretrained=True,
)

RESENC = Architecture(
    name="resenc",
    network="dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
    sizes={BASE: {}, "large": {}, "huge": {}, NARROW: {**NNUNET.sizes[NARROW], "n_blocks_per_stage": [1] * 8}},
    hyperparameters=replace(
        NNUNET.hyperparameters, source="as nnU-Net's; its authors train this network by SGD, with the same rate for both"
    ),
    source="Isensee et al. 2024, nnU-Net Revisited, doi 10.1007/978-3-031-72114-4_47; presets M (base), L (large), XL (huge) of nnU-Net 2.8",
    heads=("decoder.seg_layers.",),
    deep_supervision=True,
    planned_by_nnunet=True,
    presets={
        BASE: "nnUNetPlannerResEncM",
        "large": "nnUNetPlannerResEncL",
        "huge": "nnUNetPlannerResEncXL",
        NARROW: "nnUNetPlannerResEncM",
    },
)

TABLE: Mapping[str, Architecture] = MappingProxyType({row.name: row for row in (NNUNET, SWINUNETR, STUNET, RESENC)})
"""All architectures by name; the first is the default."""

ARCHITECTURES: tuple[str, ...] = tuple(TABLE)
"""Names of the architectures that can be trained and served."""

PAPER: tuple[str, ...] = (NNUNET.name, SWINUNETR.name, STUNET.name)
"""Those that arXiv:2604.07999 compares; the benchmark trains them where nothing else is said."""


def architecture_named(name: str) -> Architecture:
    """The architecture of that name. Raises SettingsError naming the known ones."""
    try:
        return TABLE[name]
    except KeyError:
        raise SettingsError(f"unknown architecture {name!r}; known are {', '.join(TABLE)}") from None


def names_in(text: str) -> tuple[str, ...]:
    """The names in a text that commas part: ``swinunetr,stunet``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def require_second_opinions(architecture: str, also: Sequence[str]) -> None:
    """Raises SettingsError unless ``also`` names architectures, each once and none of them ``architecture``."""
    if isinstance(also, str) or not isinstance(also, Sequence):
        raise SettingsError(f"second opinions: expected a list of architectures, got {also!r}")
    for number, name in enumerate(also):
        if name not in ARCHITECTURES:
            raise SettingsError(f"second opinions: unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
        if name == architecture:
            raise SettingsError(
                f"second opinions: {name} makes the plan itself; name others, or plan with another architecture"
            )
        if name in also[:number]:
            raise SettingsError(f"second opinions: {name} is named twice; name it once")
