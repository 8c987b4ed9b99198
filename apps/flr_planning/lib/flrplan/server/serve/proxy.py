"""The way from OHIF to the DICOMweb server: its resources and nothing else."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import requests
from anyio import to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response, StreamingResponse
from monailabel.config import settings as host_settings

from flrplan.server.user import current_user

_UID = r"[0-9]+(?:\.[0-9]+)*"
_OBJECT = re.compile(r"[0-9]+(?:\.[0-9]+){2,}")
_STORE = re.compile(rf"studies(?:/{_UID})?")
_RESOURCE = re.compile(
    rf"(?:studies|series|instances)(?:/{_UID})?(?:/series(?:/{_UID})?)?(?:/instances(?:/{_UID})?)?(?:/frames/[0-9]+(?:,[0-9]+)*)?"
    r"(?:/(?:metadata|rendered|thumbnail|(?:bulk|bulkdata)(?:/[\w-]+)+))?"
)
_TIMEOUTS = (10, 600)
"""Seconds to connect, and between two parts of an answer."""


def dicomweb_proxy(url: str, session: requests.Session, stored: Callable[[set[str], str], None]) -> APIRouter:
    """MONAI Label's ``/proxy/dicom/{wado,qido,stow}/...`` with the query passed on; other paths are answered 404 and reach nobody.

    url: the DICOMweb server's; session: with its credentials; stored: told the UIDs of what a signed-in user stored, and the user.
    """
    router = APIRouter(prefix="/proxy/dicom", include_in_schema=False)

    @router.get("/{path:path}")
    def read(path: str, request: Request) -> StreamingResponse:
        operation, resource = _split(path)
        if not _RESOURCE.fullmatch(resource):
            raise HTTPException(404, "no such DICOMweb resource; expected studies/..., series/... or instances/... with UIDs")
        if operation == "qido" and not resource.endswith("metadata"):
            prefix = host_settings.MONAI_LABEL_QIDO_PREFIX
        else:
            prefix = host_settings.MONAI_LABEL_WADO_PREFIX if operation else None
        answer = _ask(session, "GET", _join(url, prefix, resource), request, None)
        return StreamingResponse(_parts(answer), answer.status_code, media_type=answer.headers.get("content-type"))

    @router.post("/{path:path}")
    async def store(path: str, request: Request) -> Response:
        operation, resource = _split(path)
        if not _STORE.fullmatch(resource) or not request.headers.get("content-type", "").startswith("multipart/related"):
            raise HTTPException(404, "only DICOM objects can be stored: multipart/related to studies or studies/UID")
        prefix = host_settings.MONAI_LABEL_STOW_PREFIX if operation == "stow" else None
        with tempfile.TemporaryFile() as body:
            async for part in request.stream():
                await to_thread.run_sync(body.write, part)
            body.seek(0)
            return await to_thread.run_sync(_store, _join(url, prefix, resource), request, body)

    def _store(to: str, request: Request, body: IO[bytes]) -> Response:
        answer = _ask(session, "POST", to, request, body)
        user = current_user()
        if answer.ok and user is not None:
            stored(set(_OBJECT.findall(answer.text)), user)
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    return router


def _split(path: str) -> tuple[str, str]:
    first, _, rest = path.strip("/").partition("/")
    return (first, rest) if first in ("wado", "qido", "stow") else ("", path.strip("/"))


def _join(url: str, prefix: str | None, resource: str) -> str:
    return "/".join(part.strip("/") for part in (url, prefix or "", resource) if part)


def _ask(session: requests.Session, method: str, url: str, request: Request, body: IO[bytes] | None) -> requests.Response:
    headers = {name: request.headers[name] for name in ("accept", "content-type") if name in request.headers}
    query: Any = request.query_params.multi_items()
    answer = session.request(
        method, url, params=query, headers=headers, data=body, stream=True, timeout=_TIMEOUTS, allow_redirects=False
    )
    if answer.status_code in (401, 403):
        raise HTTPException(
            502, "the DICOMweb server refuses this server's name and password (MONAI_LABEL_DICOMWEB_USERNAME, _PASSWORD)"
        )
    return answer


def _parts(answer: requests.Response) -> Iterator[bytes]:
    with answer:
        yield from answer.iter_content(2**18)
