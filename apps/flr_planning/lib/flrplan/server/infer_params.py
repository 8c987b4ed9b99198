"""Options of an inference that are no JSON: MONAI Label 0.8.5 answers a bare 500."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, File, Form, UploadFile
from fastapi.routing import APIRoute
from monailabel.config import settings as host_settings
from monailabel.endpoints.infer import ResultType, run_inference
from monailabel.endpoints.user.auth import RBAC, User

from flrplan.errors import SettingsError
from flrplan.server.client_error import errors_for_client


async def infer(
    background_tasks: BackgroundTasks,
    model: str,
    user: Annotated[User, Depends(RBAC(host_settings.MONAI_LABEL_AUTH_ROLE_USER))],
    image: str = "",
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: UploadFile = File(None),  # noqa: B008  # FastAPI's way
    label: UploadFile = File(None),  # noqa: B008
    output: ResultType | None = None,
) -> Any:
    """The host's own endpoint. Raises ClientError where ``params`` are no names with values."""
    with errors_for_client():
        require_object(params)
    return run_inference(background_tasks, model, image, session_id, params, file, label, output)


def require_object(params: str) -> None:
    """Raises: SettingsError unless a text is JSON names with values."""
    example = 'such as {"crlm": [[10, 20, 5]]}'
    try:
        found = json.loads(params or "{}")
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"params is no JSON ({error}); send names with values, {example}") from None
    if not isinstance(found, dict):
        raise SettingsError(f"params must be names with values, {example}; got {params[:80]}")


def serve_infer_params() -> None:
    """Puts this endpoint before the host's own; does nothing where its server does not run."""
    host: Any = sys.modules.get("monailabel.app")
    if host is not None:
        route = APIRoute(
            f"{host_settings.MONAI_LABEL_API_STR}/infer/{{model}}",
            infer,
            methods=["POST"],
            summary="Run Inference",
            tags=["Infer"],
        )
        host.app.router.routes.insert(0, route)
