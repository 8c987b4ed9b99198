"""Takes weights into a network by name: new heads, more input channels, and clear words where they do not fit.

Works on tensors only; :mod:`flrplan.nnunet.train.pretrained` opens the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from flrplan.errors import ModelError
from flrplan.networks.table import Architecture, ChannelMode

Weights = Mapping[str, torch.Tensor]

SPACING_FACTOR = 1.4
"""How much finer or coarser than its published weights a network may start without a warning. nnU-Net's augmentation, by which the
weights were trained (nnU-Net 1's default trainer: scale_range 0.7 to 1.4), showed them structures up to so much larger or smaller."""


@dataclass(frozen=True)
class LoadReport:
    """What became of the weights of a file.

    loaded: names taken as they are. adapted: names taken after a change, with the change. skipped: names of the file that were
    not used, with the reason. fresh: names of the network that the file does not fill, so they start at random. warnings: sentences.
    """

    source: str
    loaded: tuple[str, ...]
    adapted: Mapping[str, str]
    skipped: Mapping[str, str]
    fresh: tuple[str, ...]
    parameters_loaded: int
    parameters: int
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report for people, a few lines; names with the same reason stand together."""
        share = 100 * self.parameters_loaded / self.parameters
        text = [
            f"{self.source}: {len(self.loaded)} weights loaded as they are, {len(self.adapted)} adapted, {len(self.skipped)} "
            f"skipped; {self.parameters_loaded:,} of {self.parameters:,} parameters ({share:.1f} %) start from it"
        ]
        for title, found in (("adapted", self.adapted), ("skipped", self.skipped)):
            for reason in dict.fromkeys(found.values()):
                text.append(f"{title}: {_listed(name for name, why in found.items() if why == reason)}: {reason}")
        if self.fresh:
            text.append(f"start at random: {_listed(self.fresh)}")
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``run.json``; the loaded names as a number."""
        return {**asdict(self), "loaded": len(self.loaded), "fresh": list(self.fresh), "warnings": list(self.warnings)}


def load_weights(
    network: nn.Module,
    weights: Weights,
    architecture: Architecture,
    input_channels: int,
    source: str,
    channels: ChannelMode = ChannelMode.REPEAT,
    spacing_mm: Sequence[float] | None = None,
) -> LoadReport:
    """Copies ``weights`` into ``network`` where names and shapes agree, whatever device it is on.

    Heads with another number of outputs stay new. First-layer kernels of fewer channels are spread as ``channels`` says.
    Everything else must agree: a network that is half random is not pretrained.
    source: name of the file, for messages. spacing_mm: of the planned voxels; the report warns where published weights saw another.
    Raises: ModelError saying what was expected and found, and where it can be told, which size the file holds.
    """
    own = network.state_dict()
    require_names(own, weights, architecture, source)
    heads = architecture.heads
    fitted: dict[str, torch.Tensor] = {}
    adapted: dict[str, str] = {}
    skipped: dict[str, str] = {name: "the network has no such weight" for name in weights if name not in own}
    for name, target in own.items():
        given = weights.get(name)
        if given is None:
            if not name.startswith(heads):
                raise _misfit(source, architecture, weights, f"{name} is missing")
        elif given.shape == target.shape:
            fitted[name] = given
        elif name.startswith(heads):
            skipped[name] = f"new heads: the file has {given.shape[0]} outputs, this network {target.shape[0]}"
        elif _is_first_layer(given, target, input_channels):
            fitted[name] = spread_channels(given, input_channels, channels)
            adapted[name] = f"{given.shape[1]} input channel(s) spread over {input_channels} ({channels.value})"
        else:
            found = f"{name} has shape {_shape(given)}, expected {_shape(target)}"
            raise _misfit(source, architecture, weights, found)
    bad = [name for name, tensor in fitted.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise ModelError(f"{source}: {bad[0]} holds NaN or infinite values ({len(bad)} weights do); get the file again")
    with torch.no_grad():
        for name, tensor in fitted.items():
            own[name].copy_(tensor)
    counted = dict(network.named_parameters())
    return LoadReport(
        source,
        tuple(name for name in fitted if name not in adapted),
        adapted,
        skipped,
        tuple(name for name in own if name not in fitted),
        sum(p.numel() for name, p in counted.items() if name in fitted),
        sum(p.numel() for p in counted.values()),
        _spacing_warnings(architecture, any(name in skipped for name in own), spacing_mm, source),
    )


def require_names(own: Iterable[str], weights: Weights, architecture: Architecture, source: str) -> None:
    """Raises ModelError where no name of the architecture's own weights, its heads aside, occurs in a file."""
    names = [name for name in own if not name.startswith(architecture.heads)]
    if not set(names) & set(weights):
        raise ModelError(
            f"{source} holds no weight of {architecture.name}: expected names like {_first(names)}, found {_first(weights)}; "
            "give a checkpoint of the same architecture"
        )


def require_size(size: str, weights: Weights, architecture: Architecture, source: str) -> None:
    """Raises ModelError where these weights are of another size of the architecture, for those whose size :func:`size_of` tells."""
    if size_of(weights, architecture) not in (None, size):
        raise _misfit(source, architecture, weights, f"the network is to have size {size}")


def _spacing_warnings(
    architecture: Architecture, other_heads: bool, spacing_mm: Sequence[float] | None, source: str
) -> tuple[str, ...]:
    """Of published weights only: they were trained for another task, so their heads are others; of a model of ours the caller gives no spacing."""
    trained = architecture.patch.spacing_mm
    if trained is None or spacing_mm is None or not other_heads:
        return ()
    if all(1 / SPACING_FACTOR <= side / trained <= SPACING_FACTOR for side in spacing_mm):
        return ()
    planned = " x ".join(f"{side:.3g}" for side in spacing_mm)
    return (
        f"{source}: the published weights of {architecture.name} were trained at {trained:g} mm, this plan has {planned} mm, more than "
        f"a factor {SPACING_FACTOR:g} apart; the pretraining may help less. To follow it, plan with spacing_zyx_mm: "
        f"[{trained:g}, {trained:g}, {trained:g}] in another --work folder",
    )


def spread_channels(kernel: torch.Tensor, input_channels: int, mode: ChannelMode) -> torch.Tensor:
    """A kernel ``(C_out, C_in, ...)`` for more input channels, ``(C_out, input_channels, ...)``."""
    known = kernel.shape[1]
    if mode is ChannelMode.ZERO:
        new = kernel.new_zeros((kernel.shape[0], input_channels - known, *kernel.shape[2:]))
        return torch.cat((kernel, new), dim=1)
    spread = torch.stack([kernel[:, index % known] for index in range(input_channels)], dim=1)
    return spread * (known / input_channels) if mode is ChannelMode.DIVIDE else spread


def size_of(weights: Weights, architecture: Architecture) -> str | None:
    """Which size of the architecture these weights are of, told by the widths and numbers of its blocks; None if none."""
    for size, arguments in architecture.sizes.items():
        if "dims" not in arguments:
            continue
        dims, depths = arguments["dims"], arguments["depths"]
        wanted = {
            f"conv_blocks_context.{i}.{d - 1}.conv1.weight": width
            for i, (width, d) in enumerate(zip(dims, depths, strict=True))
        }
        beyond = [f"conv_blocks_context.{i}.{d}.conv1.weight" for i, d in enumerate(depths)]
        fits = all(name in weights and weights[name].shape[0] == width for name, width in wanted.items())
        if fits and not any(name in weights for name in beyond):
            return size
    return None


def _is_first_layer(given: torch.Tensor, target: torch.Tensor, input_channels: int) -> bool:
    same = given.ndim == target.ndim == 5 and (given.shape[0], *given.shape[2:]) == (target.shape[0], *target.shape[2:])
    return same and target.shape[1] == input_channels > given.shape[1]


def _misfit(source: str, architecture: Architecture, weights: Weights, found: str) -> ModelError:
    size = size_of(weights, architecture)
    held = f"the file holds {architecture.name} {size}; train with --size {size}, or give" if size else "give"
    return ModelError(
        f"{source} does not fit this {architecture.name}: {found}; {held} weights of the same architecture, size and plan"
    )


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "()"


def _first(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:2]) or "nothing"


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found) if len(found) <= 4 else f"{', '.join(found[:3])} and {len(found) - 3} more"
