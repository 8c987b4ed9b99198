"""The door: every request says who asks, and comes from a page of this server or from no page at all."""

from __future__ import annotations

import base64
from urllib.parse import SplitResult, urlsplit

from anyio import to_thread
from fastapi import APIRouter, Form, HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flrplan.server.serve.settings import is_loopback
from flrplan.server.serve.users import Users
from flrplan.server.user import current_user, set_current_user

OPEN_PATHS = ("/auth/", "/auth/token", "/favicon.ico")
"""What is answered before a log-in: that one is needed, and the log-in itself."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="flr-planning", charset="UTF-8"'}  # with Bearer beside it, Chromium asks nobody


class Door:
    """ASGI middleware. Without users, only requests that are meant for this machine come in."""

    def __init__(self, app: ASGIApp, users: Users | None) -> None:
        self._app = app
        self._users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 401 to whoever is not known, 403 to another site's page, 400 to a name that is not this machine's."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope["method"], headers)
        if refused is None and self._users is not None:
            enters, user = await to_thread.run_sync(_asked, self._users, headers.get("authorization", ""))
            set_current_user(user)
            if not enters and _path(scope) not in OPEN_PATHS:
                refused = JSONResponse({"detail": "log in with your name and password (or a token)"}, 401, _CHALLENGE)
        await (refused or self._app)(scope, receive, _closed(send))

    def _refused(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._users is None and not is_loopback(_split(f"//{host}").hostname or ""):
            return JSONResponse(
                {
                    "detail": "this server has no users, so it answers this machine alone; start it with --users FILE to let others in"
                },
                400,
            )
        if method not in _SAFE and _of_another_site(headers, host):
            return JSONResponse({"detail": "a page of another site may not change anything here"}, 403)
        return None


def _closed(send: Send) -> Send:
    """What is sent is taken for what it says it is, shown in no other site's frame, and a patient's data stay in no cache."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["X-Frame-Options"] = "SAMEORIGIN"
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sent


def _of_another_site(headers: Headers, host: str) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and _split(origin).netloc != host


def _split(url: str) -> SplitResult:
    """Its parts; none of what is no address."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root else path


def _asked(users: Users, authorization: str) -> tuple[bool, str | None]:
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return users.by_token(value.strip())
    if kind.lower() == "basic":
        try:
            sent = base64.b64decode(value, validate=True)
        except ValueError:
            return False, None
        try:
            name, _, password = sent.decode().partition(":")
        except ValueError:  # as Python's requests sends it
            name, _, password = sent.decode("latin-1").partition(":")
        return users.by_password(name, password)
    return False, None


def login_routes(users: Users | None) -> APIRouter:
    """MONAI Label's own log-in, as its clients (3D Slicer) use it: a name and a password for a Bearer token."""
    router = APIRouter(prefix="/auth", tags=["Auth"])

    @router.get("/", summary="Is a log-in needed?")
    def enabled() -> dict[str, object]:
        return {"enabled": users is not None, "client_id": "", "realm": ""}

    @router.post("/token", summary="Log in: a token for a name and a password")
    def token(username: str = Form(max_length=255), password: str = Form(max_length=255)) -> dict[str, str | None]:
        if users is None:
            return {"access_token": None, "token_type": None}
        given = users.log_in(username, password)
        if given is None:
            raise HTTPException(401, "wrong name or password", {"WWW-Authenticate": "Bearer"})
        return {"access_token": given, "token_type": "Bearer"}

    @router.get("/token/valid", summary="Who am I?")
    def valid() -> dict[str, object]:
        return {"username": current_user() or "unverified", "roles": []}

    return router
