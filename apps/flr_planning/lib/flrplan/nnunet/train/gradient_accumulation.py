"""Gradient accumulation, where a step does not fit into memory: the same batch in smaller parts, their gradients added up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from flrplan.errors import TrainingError
from flrplan.hardware.device import is_out_of_memory

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

WHAT_TO_CHANGE = (
    "set mixed_precision: auto, or plan for less memory in another --work folder (plan: batch_size, gpu_memory_gb, or a "
    "smaller patch_size_zyx with its features), or train on another device"
)
WHAT_TO_CHANGE_WHOLE = (
    "set a smaller network in another --work folder (plan: network_size, or features of nnU-Net's U-Net), or amsgrad: false "
    "(training), or train on another device, or one that nothing else uses"
)
"""For memory that the batch has no part in: weights, gradients and the moments of the optimizer."""


class GradientAccumulation:
    """How many patches of a batch are computed at once: all, until memory runs out; then half of them, and so on."""

    def __init__(self, batch_size: int, divisible: bool = True) -> None:
        """``divisible``: False where other processes wait for this one, so that its steps cannot be taken again."""
        self.size = self.batch_size = batch_size
        self.divisible = divisible

    def attempt(self, step: Callable[[], Result], clear: Callable[[], None]) -> Result:
        """The step's result; where memory runs out, ``clear`` and again with smaller parts.

        Raises: TrainingError where a single patch does not fit, saying which settings to change.
        """
        while True:
            try:
                return step()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = _reason(error)
            clear()  # out here nothing holds the failed step's tensors any more
            self._halve(reason)

    def _halve(self, reason: str) -> None:
        if self.size == 1 or not self.divisible:
            what = "one patch" if self.size == 1 else f"{self.size} patches a process"
            raise TrainingError(f"out of memory with {what} at a time; {WHAT_TO_CHANGE} ({reason})")
        self.size = -(-self.size // 2)
        logger.warning(
            "out of memory: the batch of %d is now computed in parts of %d, with the same gradient, but slower (%s)",
            self.batch_size,
            self.size,
            reason,
        )


@contextmanager
def in_one_piece(doing: str) -> Iterator[None]:
    """For work that no smaller piece of a batch makes smaller, or that must not be begun twice.

    doing: what is done, for the message. Raises: TrainingError where memory runs out, saying which settings to change.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"out of memory while {doing}; {WHAT_TO_CHANGE_WHOLE} ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """The first line of an error, else its kind."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
