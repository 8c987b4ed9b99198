"""Work on cases in several processes. Processes that die (most often for want of memory) leave their work to fewer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_cases(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """``function`` of every item, in order, in ``workers`` processes; in this one where it is 1 or all others died.

    An error that the function raises comes through as it is, from whichever process.
    """
    done = 0
    while workers > 1 and done < len(items):
        try:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                for result in pool.map(function, items[done:]):
                    yield result
                    done += 1
        except BrokenProcessPool as error:
            logger.warning(
                "one of %d processes died at item %d of %d (%s), most likely killed for want of memory; going on with %d",
                workers,
                done + 1,
                len(items),
                error,
                workers // 2,
            )
            workers //= 2
    yield from map(function, items[done:])


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
