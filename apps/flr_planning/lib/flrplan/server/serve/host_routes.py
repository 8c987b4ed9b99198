"""MONAI Label 0.8.5's endpoints, out of the event loop: they are coroutines over blocking calls, so one inference held up all else."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException
from fastapi.routing import APIRoute
from monailabel.endpoints import activelearning, batch_infer, datastore, infer, info, model, scoring, session, train
from monailabel.endpoints.user.auth import User

from flrplan.server.user import current_user

QUEUE = 16
"""Inferences that wait for their turn; one more is told to come back."""
UNVERIFIED = "unverified"
_ROUTERS = (info, model, infer, batch_infer, train, activelearning, scoring, datastore, session)


def host_routes() -> APIRouter:
    """The endpoints that clients use. Not served: ``/reload``, ``/logs``, whole-slide inference, and the proxy, which has a better one."""
    turns = CapacityLimiter(1)
    router = APIRouter()
    for module in _ROUTERS:
        for route in module.router.routes:
            if isinstance(route, APIRoute):
                router.add_api_route(
                    route.path,
                    _in_thread(route.endpoint, turns, always=module is infer),
                    methods=list(route.methods or ()),
                    tags=route.tags,
                    summary=route.summary,
                    include_in_schema=route.include_in_schema,
                )
    return router


def _in_thread(endpoint: Callable[..., Awaitable[Any]], turns: CapacityLimiter, always: bool) -> Callable[..., Awaitable[Any]]:
    async def answer(**arguments: Any) -> Any:
        limiter = turns if always or arguments.get("run_sync") else None
        if limiter is not None and limiter.statistics().tasks_waiting >= QUEUE:
            raise HTTPException(503, f"{QUEUE} inferences are waiting already; try again in a minute", {"Retry-After": "60"})
        if "user" in arguments:
            arguments["user"] = User(username=current_user() or UNVERIFIED)
        return await to_thread.run_sync(functools.partial(_run, endpoint, arguments), limiter=limiter)

    answer.__name__, answer.__doc__ = endpoint.__name__, endpoint.__doc__
    answer.__signature__ = inspect.signature(endpoint)  # type: ignore[attr-defined]  # what FastAPI reads
    return answer


def _run(endpoint: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    return asyncio.run(endpoint(**arguments))
