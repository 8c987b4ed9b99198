"""The same function over many cases, in processes, with progress; results in the order of the cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

from flrplan.errors import FlrError, SettingsError

Task = TypeVar("Task")
Result = TypeVar("Result")


def for_each(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, title: str, progress: bool = True
) -> list[Result]:
    """``[function(task) for task in tasks]``; the first error ends it and cancels what has not begun.

    Raises: SettingsError for fewer than one worker; FlrError where a worker was killed.
    """
    if workers < 1:
        raise SettingsError(f"workers must be at least 1, got {workers}")
    bar = tqdm(total=len(tasks), desc=title, unit="case", disable=not progress)
    with bar:
        if workers == 1 or len(tasks) < 2:
            done = []
            for task in tasks:
                done.append(function(task))
                bar.update(1)
            return done
        # Spawned, not forked: a parent with running threads (SimpleITK) may hang a forked child.
        with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(function, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update(1)
            except BrokenProcessPool as error:
                raise FlrError(
                    "a worker process was ended from outside (out of memory?); run again with fewer --workers, "
                    "what is complete is kept"
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [future.result() for future in futures]
