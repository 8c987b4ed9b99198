"""Errors as JSON, ``{"detail": <a sentence that says what to do>}``, where MONAI Label answers a bare 500."""

from __future__ import annotations

import errno
import logging
import tempfile

import requests
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

from flrplan.errors import FlrError
from flrplan.server.client_error import ClientError

logger = logging.getLogger(__name__)


def tell_errors(app: FastAPI) -> None:
    """Adds a handler for each kind of error that an endpoint may raise."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(FlrError, _ours)
    app.add_exception_handler(MONAILabelException, _hosts)
    app.add_exception_handler(requests.RequestException, _dicomweb)
    app.add_exception_handler(OSError, _system)
    app.add_exception_handler(Exception, _unexpected)


def _told(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return _told(
        422, "; ".join(f"{' '.join(map(str, e['loc']))}: {e['msg']}" for e in found)[:1000] or "the request cannot be read"
    )


async def _ours(_: Request, error: Exception) -> JSONResponse:
    logger.error("%s: %s", type(error).__name__, error)
    return _told(ClientError(error).status_code if isinstance(error, FlrError) else 500, str(error))


async def _hosts(_: Request, error: Exception) -> JSONResponse:
    lacking = isinstance(error, (ImageNotFoundException, LabelNotFoundException))
    return _told(getattr(error, "status_code", 404 if lacking else 400), str(getattr(error, "msg", error)))


async def _dicomweb(_: Request, error: Exception) -> JSONResponse:
    logger.error("DICOMweb: %s", error)
    return _told(
        502, "the DICOMweb server that holds the studies does not answer as it should; is it running? The log says more"
    )


async def _system(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _told(507, f"no room on the server's disk (of the studies, or of {tempfile.gettempdir()}); nothing was saved")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _told(500, "the server may not write there; an administrator must make the studies folder writable to it")
    return await _unexpected(_, error)


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    logger.error("unexpected", exc_info=error)
    return _told(500, f"the server failed ({type(error).__name__}); its log says where, please tell an administrator")
