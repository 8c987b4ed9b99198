"""An image that is uploaded without an id is called what its file is called, dots and all.

MONAI Label 0.8.5 takes the name up to the first dot: ``1.2.840.113.nii.gz`` became image ``1``, and the next one took its place.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, File, Form, UploadFile
from fastapi.routing import APIRoute
from monailabel.config import settings as host_settings
from monailabel.endpoints.datastore import add_image
from monailabel.endpoints.user.auth import RBAC, User

from flrplan.studies.names import split_name


def upload(
    background_tasks: BackgroundTasks,
    user: Annotated[User, Depends(RBAC(host_settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))],
    image: str | None = None,
    params: Annotated[str, Form()] = "{}",
    file: UploadFile = File(...),  # noqa: B008  # FastAPI's way
) -> Any:
    """The host's own endpoint, with the id of the file's name where none was given."""
    named = split_name((file.filename or "").replace("\\", "/").rpartition("/")[2])
    return add_image(background_tasks, image or (named[0] if named else None), params, file, user.username)


def serve_uploads() -> None:
    """Puts this endpoint before the host's own; does nothing where its server does not run."""
    host: Any = sys.modules.get("monailabel.app")
    if host is None:
        return
    for path in ("/datastore/", "/datastore/image"):
        route = APIRoute(f"{host_settings.MONAI_LABEL_API_STR}{path}", upload, methods=["PUT"], summary="Upload new Image")
        host.app.router.routes.insert(0, route)
