"""Who read and wrote what: one line of JSON for each request, in a file a month, without names of patients."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flrplan.errors import OutputError
from flrplan.server.user import current_user

logger = logging.getLogger(__name__)

FIELDS = ("image", "label", "id", "tag", "model", "session_id", "strategy", "output")
"""What is kept of a request beside its path; a search for a patient's name is none of them."""
_LONGEST = 200
_SILENT = ("/ohif/", "/static/", "/favicon.ico")
"""The viewer's own files: no data."""
_NOTED: ContextVar[dict[str, str] | None] = ContextVar("flrplan_audit", default=None)


def audit_note(values: Mapping[str, object]) -> None:
    """Adds those of :data:`FIELDS` that the present request names elsewhere than in its address, such as in its form."""
    noted = _NOTED.get()
    if noted is not None:
        noted.update({key: str(values[key])[:_LONGEST] for key in FIELDS if values.get(key) not in (None, "")})


class Audit:
    """ASGI middleware, outermost, so that who is refused is written down as well.

    folder: gets ``audit-<year>-<month>.jsonl``, readable to the server's user alone. A line: ``time`` (UTC), ``user`` (null where
    nobody was asked), ``from`` (address), ``method``, ``path`` (without its query), what :data:`FIELDS` say, ``status``, ``seconds``.

    Raises: OutputError where the folder cannot be written to.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self._folder = folder
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._write("")
        except OSError as error:
            raise OutputError(
                f"cannot write the audit log to {folder}: {error.strerror}; give another folder with --audit"
            ) from error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, then writes its line."""
        if scope["type"] != "http" or scope["path"].removeprefix(scope.get("root_path", "")).startswith(_SILENT):
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500
        noted = {
            key: values[0][:_LONGEST]
            for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()
            if key in FIELDS
        }
        _NOTED.set(noted)

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            line = {
                "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "user": current_user(),
                "from": (scope.get("client") or ["?"])[0],
                "method": scope["method"],
                "path": scope["path"][:_LONGEST],
                **noted,
                "status": status,
                "seconds": round(time.monotonic() - begun, 3),
            }
            try:
                self._write(json.dumps(line) + "\n")
            except OSError:
                logger.exception("the audit log could not be written")

    def _write(self, line: str) -> None:
        path = self._folder / f"audit-{datetime.now(timezone.utc):%Y-%m}.jsonl"
        with self._lock:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
