"""MONAI Label 0.8.5's endpoints, out of the event loop: they are coroutines over blocking calls, so one inference held up all else.

What they cannot read is refused before they are called; they would answer a bare 500, or keep it and fail at each later request.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException
from fastapi.params import Depends
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from monailabel.config import settings as host_settings
from monailabel.endpoints import activelearning, batch_infer, datastore, infer, info, model, scoring, session, train
from monailabel.endpoints.user.auth import RBAC, User
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.routing import BaseRoute

from flrplan.server.serve.audit import audit_note
from flrplan.server.user import current_user

QUEUE = 16
"""Inferences that wait for their turn; one more is told to come back."""
UNVERIFIED = "unverified"
_ROUTERS = (info, model, infer, batch_infer, train, activelearning, scoring, datastore, session)
_JSON = ("params", "info")
_CHECK_SUM = re.compile(r"((SHA256|SHA512|MD5):)?[0-9a-fA-F]+")
_OURS = ("strategy", "path")
"""Keys of an image's info that the server writes itself, and reads without a check."""


def host_routes(dicomweb: bool, first: Iterable[BaseRoute] = (), admins: Collection[str] = ()) -> APIRouter:
    """The endpoints that clients use. Not served: ``/reload``, ``/logs``, whole-slide inference, and the proxy, which has a better one.

    dicomweb: the studies are a DICOMweb server's, so a DICOM SEG can be asked for. first: endpoints of ours that come before the host's.
    admins: who alone may do what the host reserves for its administrators (delete, train, run a batch); none: everybody.
    """
    turns = CapacityLimiter(1)
    router = APIRouter()
    for route in (*first, *(route for module in _ROUTERS for route in module.router.routes)):
        if isinstance(route, APIRoute):
            router.add_api_route(
                route.path,
                _in_thread(
                    route.endpoint, turns, route.path.startswith("/infer/"), dicomweb, admins if _for_admins(route) else ()
                ),
                methods=list(route.methods or ()),
                tags=route.tags,
                summary=route.summary,
                include_in_schema=route.include_in_schema,
            )
        else:
            router.routes.append(route)
    return router


def _for_admins(route: APIRoute) -> bool:
    needs = [*route.dependencies, *(p.default for p in inspect.signature(route.endpoint).parameters.values())]
    roles = [n.dependency.roles for n in needs if isinstance(n, Depends) and isinstance(n.dependency, RBAC)]
    return host_settings.MONAI_LABEL_AUTH_ROLE_ADMIN in roles


def _in_thread(
    endpoint: Callable[..., Any], turns: CapacityLimiter, infers: bool, dicomweb: bool, admins: Collection[str]
) -> Callable[..., Awaitable[Any]]:
    async def answer(**arguments: Any) -> Any:
        audit_note(arguments)
        if admins and current_user() not in admins:
            raise HTTPException(403, f"only an administrator of this server may do this ({', '.join(sorted(admins))}); ask one")
        _check(arguments)
        if infers:
            _check_inference(arguments, dicomweb)
        limiter = turns if infers or arguments.get("run_sync") else None
        if limiter is not None and limiter.statistics().tasks_waiting >= QUEUE:
            raise HTTPException(503, f"{QUEUE} inferences are waiting already; try again in a minute", {"Retry-After": "60"})
        if "user" in arguments:
            arguments["user"] = User(username=current_user() or UNVERIFIED)
        try:
            result = await to_thread.run_sync(functools.partial(_run, endpoint, arguments), limiter=limiter)
        except Exception:
            if (
                "background_tasks" in arguments
            ):  # they remove the uploads, and FastAPI runs them after an answer of the endpoint's only
                await arguments["background_tasks"]()
            raise
        if isinstance(result, dict):
            audit_note({key: result.get(key) for key in ("image", "label", "id", "session_id")})
        if isinstance(result, FileResponse):
            path = Path(result.path)
            if not path.is_file():
                raise HTTPException(404, "this is no single file, so it cannot be sent")
            if "background_tasks" not in arguments and path.parent == Path(tempfile.gettempdir()):  # the archive of a data set
                result.background = BackgroundTask(path.unlink)
        return result

    answer.__name__, answer.__doc__ = endpoint.__name__, endpoint.__doc__
    answer.__signature__ = inspect.signature(endpoint, eval_str=True)  # type: ignore[attr-defined]  # what FastAPI reads
    return answer


def _run(endpoint: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        result = endpoint(**arguments)
        return asyncio.run(result) if inspect.iscoroutine(result) else result
    except HTTPException as error:
        if type(error) is HTTPException and error.status_code == 500:  # the host's word for what a client asked wrongly
            raise HTTPException(400, error.detail) from None
        raise
    except AssertionError as error:  # the host's checks
        raise HTTPException(400, str(error)) from None


def _check(arguments: dict[str, Any]) -> None:
    """Raises HTTPException (400) for JSON that cannot be kept or sent back; gives uploads names that a folder can hold."""
    for name in _JSON:
        if arguments.get(name) is not None:
            found = _object(name, arguments[name])
            if name == "info" and (ours := [key for key in _OURS if key in found]):
                raise HTTPException(400, f"info: {', '.join(ours)} is written by the server itself; leave it out")
            audit_note({"image": found.get("image")})
    check_sum = arguments.get("check_sum")
    if check_sum and not _CHECK_SUM.fullmatch(check_sum):
        raise HTTPException(
            400, f"check_sum must be hex digits, with SHA256:, SHA512: or MD5: before them, got {check_sum[:80]!r}"
        )
    for value in arguments.values():
        for upload in value if isinstance(value, list) else [value]:
            if isinstance(upload, UploadFile) and upload.filename:
                upload.filename = _file_name(upload.filename)


def _check_inference(arguments: dict[str, Any], dicomweb: bool) -> None:
    if not any(arguments.get(name) for name in ("image", "session_id", "file")):
        raise HTTPException(400, "no image: name one of the studies (image=ID), a session (session_id=ID), or send a file")
    if arguments.get("output") == "dicom_seg" and not dicomweb:
        raise HTTPException(400, "a DICOM SEG needs DICOM images, and these studies are files; ask for output=image or all")


def _object(name: str, given: object) -> dict[str, Any]:
    try:
        found = json.loads(given or "{}") if isinstance(given, str) else given
        json.dumps(
            found, allow_nan=False, ensure_ascii=False
        ).encode()  # half a character, and NaN, would come back in each answer
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"{name} is not plain JSON ({error}); send names with values, such as {{}}") from None
    if not isinstance(found, dict):
        raise HTTPException(400, f"{name} must be JSON names with values, such as {{}}, got {str(given)[:80]}")
    return found


def _file_name(given: str) -> str:
    name = re.sub(r"[\x00-\x1f\x7f/\\:]", "_", given)[-100:]
    return name if name.strip(".") else "upload"
