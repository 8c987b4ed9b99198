"""Requests of bounded size."""

from __future__ import annotations

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PLAIN_BYTES = 2**20
"""The largest body that is no upload: settings of a call are a few hundred bytes."""
_TOO_LARGE = "the request is larger than the {} MiB that are taken; an administrator can raise it with --max-upload-gib"


class Limits:
    """ASGI middleware: an upload (``multipart/...``) of at most ``upload_bytes``, any other body of at most 1 MiB; else 413."""

    def __init__(self, app: ASGIApp, upload_bytes: int) -> None:
        self._app = app
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses by the stated length before the body is read, and by what comes where none is stated."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        most = self._upload_bytes if headers.get("content-type", "").lower().startswith("multipart/") else PLAIN_BYTES
        told = _TOO_LARGE.format(most // 2**20)
        stated = headers.get("content-length", "0")
        if not stated.isdecimal() or int(stated) > most:
            await JSONResponse({"detail": told}, 413, {"Connection": "close"})(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise HTTPException(413, told)
            return message

        await self._app(scope, counted, send)
