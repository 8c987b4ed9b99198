"""What to do when a step does not fit into memory: the same batch in smaller pieces, their gradients added up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from flrplan.errors import TrainingError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

WHAT_TO_CHANGE = (
    "set mixed_precision: auto, or plan for less memory in another --work folder (plan: batch_size, gpu_memory_gb, or a "
    "smaller patch_size_zyx with its features), or train on another device"
)


class Pieces:
    """How many patches of a batch are computed at once: all, until memory runs out; then half of them, and so on."""

    def __init__(self, batch_size: int, divisible: bool = True) -> None:
        """``divisible``: False where other processes wait for this one, so that its steps cannot be taken again."""
        self.size = self.batch_size = batch_size
        self.divisible = divisible

    def attempt(self, step: Callable[[], Result], clear: Callable[[], None]) -> Result:
        """The step's result; where memory runs out, ``clear`` and again with smaller pieces.

        Raises: TrainingError where a single patch does not fit, saying which settings to change.
        """
        while True:
            try:
                return step()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            clear()  # out here nothing holds the failed step's tensors any more
            self._halve(reason)

    def _halve(self, reason: str) -> None:
        if self.size == 1 or not self.divisible:
            what = "one patch" if self.size == 1 else f"{self.size} patches a process"
            raise TrainingError(f"out of memory with {what} at a time; {WHAT_TO_CHANGE} ({reason})")
        self.size = -(-self.size // 2)
        logger.warning(
            "out of memory: the batch of %d is now computed in pieces of %d, with the same gradient, but slower (%s)",
            self.batch_size,
            self.size,
            reason,
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error).lower()
