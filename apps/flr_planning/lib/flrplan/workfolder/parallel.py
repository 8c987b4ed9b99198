"""The same function over many cases, in processes, with progress. Processes that die leave their work to fewer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from tqdm import tqdm

from flrplan.errors import FlrError, SettingsError

logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    title: str,
    *,
    name: Callable[[Task], object] = str,
    progress: bool | None = None,
    start: Callable[..., None] | None = None,
    start_with: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """``function(task)`` of each task, in their order, at most ``workers`` at a time; of one worker or task in this process.

    An error that the function raises comes through as it is, and what has not begun is cancelled. A process that dies (most often for
    want of memory) leaves the rest to half as many, at last to one.

    name: what a task is called in messages. progress: None shows it where somebody looks. start, start_with: is called once in each process.
    Raises: SettingsError for fewer than one worker; FlrError naming the task with which a lone process died.
    """
    if workers < 1:
        raise SettingsError(f"workers must be at least 1, got {workers}")
    with tqdm(total=len(tasks), desc=title, unit="case", disable=None if progress is None else not progress) as bar:
        if workers == 1 or len(tasks) < 2:
            if start is not None:
                start(*start_with)
            for task in tasks:
                yield function(task)
                bar.update(1)
            return
        done, workers = 0, min(workers, len(tasks))
        while done < len(tasks):
            # Spawned, not forked: a parent with running threads (torch, SimpleITK) may hang a forked child.
            pool = ProcessPoolExecutor(workers, get_context("spawn"), start, start_with)
            try:
                for future in [pool.submit(function, task) for task in tasks[done:]]:
                    result = future.result()
                    done += 1
                    bar.update(1)
                    yield result
            except BrokenProcessPool as error:
                if workers == 1:
                    raise FlrError(
                        f"{title}: the process was ended from outside at {name(tasks[done])} (out of memory?); what is complete is "
                        "kept, so free memory and run the same again"
                    ) from error
                workers //= 2
                logger.warning(
                    "%s: a process died at or after %s, most likely for want of memory; going on with %d",
                    *(title, name(tasks[done]), workers),
                )
            finally:
                pool.shutdown(cancel_futures=True)
