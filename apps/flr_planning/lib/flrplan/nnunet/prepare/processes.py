"""nnU-Net's own work in several processes: processes that die (most often for want of memory) leave it to fewer."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)


def with_fewer(work: Callable[[int], None], workers: int) -> None:
    """Runs nnU-Net's ``work(workers)``; where it says that a process died, again with half as many, at last with one."""
    while True:
        try:
            return work(workers)
        except RuntimeError as error:
            if workers <= 1 or _DEATH_NOTICE not in str(error):
                raise
        logger.warning("one of %d processes died, most likely for want of memory; again with %d", workers, workers // 2)
        workers //= 2


_DEATH_NOTICE = "background worker"
"""In what nnU-Net 2.8 raises when a process of its pool vanished."""
