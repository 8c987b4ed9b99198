"""The endpoints that start and stop trainings, on one queue.

MONAI Label 0.8.5's own start a process before anything is checked; "train all" (OHIF's "Update Model") queues every task, so the stages of
the cascade twice; and ``DELETE /train/`` ends the task that runs and leaves the others to follow.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import psutil
from fastapi import Body, Depends, HTTPException
from fastapi.routing import APIRoute
from monailabel.config import settings as host_settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks import utils as host_tasks
from monailabel.utils.async_tasks.task import AsyncTask

from flrplan.server.client_error import ClientError, errors_for_client
from flrplan.server.doors import require_known
from flrplan.server.infer import CASCADE_TASK

TRAIN = "train"
_STARTING_SECONDS = 5.0
"""How long a task may be between its turn and its process."""
_TIME = "%Y-%m-%d %H:%M:%S"
Options = Annotated[dict[str, Any] | None, Body()]


def start_all(params: Options = None, run_sync: bool = False) -> dict[str, Any]:
    """Queues each stage once; ``{task: {"result": ..., "detail": ...}}``. A stage that cannot be trained says why, and the others go on.

    Raises: ClientError where none can.
    """
    found: dict[str, Any] = {}
    errors = []
    for model in (name for name in app_instance()._trainers if name != CASCADE_TASK):
        own = (params or {}).get(model)
        task = detail = None
        try:
            task = _start(model, {**(params or {}), **(own if isinstance(own, Mapping) else {})}, run_sync, enqueue=True)
        except ClientError as error:
            detail = error.detail
            errors.append(error)
        found[model] = {"result": task, "detail": detail}
    if len(errors) == len(found):
        raise errors[0]
    return found


def start_one(model: str, params: Options = None, run_sync: bool = False, enqueue: bool = False) -> Any:
    """Starts or queues the training of a task. Raises ClientError: unknown names and options, too few labels, or one that runs already."""
    return _start(model, params or {}, run_sync, enqueue)


def stop_all() -> dict[str, Any] | None:
    """Ends the training that runs, and takes all that wait from the queue; the one that ran, else the last that waited, or None."""
    executor = host_tasks.background_executors.pop(TRAIN, None)
    if executor is not None:
        executor.shutdown(wait=False, cancel_futures=True)
    waiting = [task for task in host_tasks.tasks(TRAIN) if task["status"] == "SUBMITTED"]
    until = time.monotonic() + _STARTING_SECONDS
    while True:
        ended: dict[str, Any] | None = None
        with suppress(psutil.NoSuchProcess):  # it has just ended
            ended = AsyncTask.stop(TRAIN)
        begun = executor is not None and not ended and _has_begun(executor)
        if not begun or time.monotonic() > until:
            break
        time.sleep(0.05)  # its turn has come, its process has not
    for task in waiting:
        if task is not ended:
            task |= {"status": "STOPPED", "end_ts": datetime.now().strftime(_TIME)}
    return ended or (waiting[-1] if waiting else None)


def _has_begun(executor: Any) -> bool:
    """Whether a worker of the executor is still at a task; there are no others once it was shut down."""
    return any(thread.is_alive() for thread in executor._threads)


def _start(model: str, params: Mapping[str, Any], run_sync: bool, enqueue: bool) -> Any:
    app = app_instance()
    with errors_for_client():
        require_known("model", model, app._trainers)
        if not enqueue and any(task["status"] in ("SUBMITTED", "RUNNING") for task in host_tasks.tasks(TRAIN)):
            raise HTTPException(
                429,
                "a training runs already; wait for it (GET /train/), stop it (DELETE /train/), or queue this one (enqueue=true)",
            )
        app._trainers[model].require_trainable({"model": model, **params}, app.datastore())
    task, _ = AsyncTask.run(TRAIN, request={"model": model}, params=dict(params), force_sync=run_sync, enqueue=True)
    return task


def serve_train_queue() -> None:
    """Puts these endpoints before the host's own; does nothing where its server does not run, or has no trainings."""
    host: Any = sys.modules.get("monailabel.app")
    if host is None or not host_settings.MONAI_LABEL_TASKS_TRAIN:
        return
    endpoints: list[tuple[str, str, Callable[..., Any], str]] = [
        ("POST", "/train/", start_all, "Train each stage once, one after the other"),
        ("POST", "/train/{model}", start_one, "Train a stage, or the cascade"),
        ("DELETE", "/train/", stop_all, "Stop the training that runs, and all that wait"),
    ]
    for_admins = [Depends(RBAC(host_settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]  # as the host's own
    for method, path, endpoint, summary in endpoints:
        full = f"{host_settings.MONAI_LABEL_API_STR}{path}"
        route = APIRoute(full, endpoint, methods=[method], summary=summary, tags=["Train"], dependencies=for_admins)
        host.app.router.routes.insert(0, route)
