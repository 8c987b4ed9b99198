"""How an error of ours reaches a client of MONAI Label 0.8.5."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from flrplan.errors import FlrError, ModelError, OutputError

logger = logging.getLogger(__name__)


class ClientError(MONAILabelException, HTTPException):  # type: ignore[misc]  # monailabel is untyped
    """An error whose message reaches the client.

    The plain server has no handler for ``MONAILabelException``: it answers a bare "500 Internal Server Error", and the reason
    stays in the log. FastAPI answers an ``HTTPException`` with its status and ``{"detail": message}``; this is both.
    ``MONAILabelClient`` and 3D Slicer show that text, OHIF shows only that it failed.
    """

    def __init__(self, error: FlrError) -> None:
        ours = isinstance(error, (ModelError, OutputError))
        kind = MONAILabelError.APP_INFERENCE_FAILED if ours else MONAILabelError.INVALID_INPUT
        MONAILabelException.__init__(self, kind, str(error))
        HTTPException.__init__(self, status_code=500 if ours else 400, detail=str(error))


@contextmanager
def errors_for_client() -> Iterator[None]:
    """Turns an FlrError into the host's own exception and logs its message; other errors stay as they are."""
    try:
        yield
    except FlrError as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise ClientError(error) from error
