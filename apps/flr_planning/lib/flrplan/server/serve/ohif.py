"""OHIF as MONAI Label ships it, at ``/ohif/``, told to ask the server that it came from."""

from __future__ import annotations

import json
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response
from monailabel import app as host

from flrplan.server.ohif_colors import CONFIG_PATH, ohif_config
from flrplan.server.ohif_export import READER_KEY
from flrplan.server.user import current_user

_HERE = """
/* flrplan: the MONAI Label panel asks http://HOST:8000/ unless this cookie of its own says otherwise. */
document.cookie = "MONAILABEL_SERVER_URL=" + escape(location.origin + %s + "/") + "; path=/ohif";
"""
_READER = """
/* flrplan: labels are stored under the name that signed in. */
localStorage.setItem("%s", %s);
"""


def ohif_routes(root_path: str) -> APIRouter:
    """The viewer's files; every other path below ``/ohif/`` is a page that the viewer itself draws.

    root_path: where the server is shown. The viewer itself lies at the host's root: it is built for ``/ohif/``.
    """
    folder = (Path(host.static_dir) / "ohif").resolve()
    router = APIRouter(include_in_schema=False)

    @router.get(CONFIG_PATH)
    def config() -> Response:
        text = ohif_config((folder / "app-config.js").read_text(encoding="utf-8")) + _HERE % json.dumps(root_path)
        user = current_user()
        if user is not None:
            text += _READER % (READER_KEY, json.dumps(user))
        return Response(text, media_type="application/javascript", headers={"Cache-Control": "no-cache"})

    @router.get("/ohif/{path:path}")
    def file(path: str) -> FileResponse:
        wanted = (folder / path).resolve() if "\0" not in path else folder
        found = wanted.is_file() and wanted.is_relative_to(folder)
        page = {} if found else {"Cache-Control": "no-cache"}
        return FileResponse(
            wanted if found else folder / "index.html", headers={"Cache-Control": "private, max-age=86400", **page}
        )

    return router
