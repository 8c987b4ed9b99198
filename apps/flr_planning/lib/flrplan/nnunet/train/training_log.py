"""How a training goes: a report per epoch, TensorBoard scalars, and the curve as a picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from flrplan.files import replacing

logger = logging.getLogger(__name__)

CURVE_NAME = "curve.png"
TENSORBOARD_NAME = "tensorboard"


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave: losses, pseudo Dice of the validation patches (nnU-Net's "fake" Dice), wall seconds.

    pseudo_dice: of several targets the mean, beside it that of each.
    """

    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float
    pseudo_dice: float
    seconds: float
    pseudo_dice_by_target: Mapping[str, float] = field(default_factory=dict)


class Scalars:
    """TensorBoard scalars in ``<folder>/tensorboard``; a training that continues takes up where its state was saved."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self._writer: SummaryWriter | None = None
        try:
            self._writer = SummaryWriter(str(folder / TENSORBOARD_NAME), purge_step=first_epoch)
        except OSError as error:
            self._give_up(error)

    def add(self, report: EpochReport, learning_rate: float, iterations: int) -> None:
        """One epoch. A disk that takes no more ends the scalars, not the training."""
        if self._writer is None:
            return
        values = {
            "loss/train": report.train_loss,
            "loss/validation": report.validation_loss,
            "pseudo_dice": report.pseudo_dice,
            **{f"pseudo_dice_{name}": dice for name, dice in report.pseudo_dice_by_target.items()},
            "learning_rate": learning_rate,
            "iterations_per_second": iterations / max(report.seconds, 1e-9),
        }
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, value, report.epoch)
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Writes what is pending."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        logger.warning("no more TensorBoard scalars: %s", error)


def write_curve(path: Path, log: Mapping[str, Sequence[Any]], title: str, targets: Sequence[str] = ()) -> None:
    """Losses and pseudo Dice over the epochs as a PNG; of several targets that of each, too.

    log: nnU-Net's ``train_losses``, ``val_losses``, ``mean_fg_dice``, ``ema_fg_dice``, ``dice_per_class_or_region``. Raises: OutputError.
    """
    figure = Figure(figsize=(8, 4), layout="tight")
    FigureCanvasAgg(figure)
    loss = figure.subplots()
    dice = loss.twinx()
    epochs = range(1, len(log["train_losses"]) + 1)
    lines = [
        *loss.plot(epochs, log["train_losses"], color="tab:blue", label="loss, training"),
        *loss.plot(epochs, log["val_losses"], color="tab:red", label="loss, validation"),
        *dice.plot(epochs, log["mean_fg_dice"], color="tab:green", alpha=0.4, label="pseudo Dice"),
        *dice.plot(epochs, log["ema_fg_dice"], color="tab:green", label="pseudo Dice, moving average"),
    ]
    if len(targets) > 1:
        for name, values in zip(targets, zip(*log["dice_per_class_or_region"], strict=True), strict=True):
            lines += dice.plot(epochs, values, linewidth=0.8, linestyle="--", label=f"pseudo Dice, {name}")
    loss.set(xlabel="epoch", ylabel="loss", title=title)
    dice.set(ylabel="pseudo Dice of validation patches", ylim=(0, 1))
    loss.legend(lines, [str(line.get_label()) for line in lines], loc="center right", fontsize=8)
    with replacing(path) as part:
        figure.savefig(part, dpi=90, format="png")
