"""The page and what it asks for, below ``/planner/``. Who may ask, and from which page, is checked before (:mod:`flrplan.server.serve.access`)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from mimetypes import guess_type
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from flrplan import __version__
from flrplan.errors import FlrError, OutputError, SettingsError
from flrplan.files.page import render_page
from flrplan.files.space import require_room, size
from flrplan.planner.form import read_form
from flrplan.planner.jobs import STEPS, Job, Jobs, PlanOptions, State
from flrplan.planner.upload import EXPECTED, too_large
from flrplan.planning import LiverState

PREFIX = "/planner"
_HERE = Path(__file__).parent
_SENT_AT_ONCE = 1 << 20

_SECURITY = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with no-referrer, a browser calls the origin of our own forms null
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
_PAGE = {
    **_SECURITY,
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'",
}
_REPORT = {
    **_SECURITY,
    # A page made of what files say: it may run its own script, and reach nothing.
    "Content-Security-Policy": "sandbox allow-scripts allow-modals allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:",
}


def planner_router(jobs: Jobs) -> APIRouter:
    """The router, which starts and stops ``jobs`` with the app that it is included in."""

    @asynccontextmanager
    async def running(_: Any) -> AsyncIterator[None]:
        jobs.start()
        try:
            yield
        finally:
            await run_in_threadpool(jobs.stop)

    def known(identity: str) -> Job:
        job = jobs.find(identity)
        if job is None:
            raise HTTPException(404, "this plan is not here: it was deleted, or the server was stopped since")
        return job

    kept = Depends(known)
    router = APIRouter(prefix=PREFIX, lifespan=running, include_in_schema=False)

    @router.get("/")
    def page() -> Response:
        limits: dict[str, Any] = {
            "largest_bytes": jobs.largest_bytes,
            "largest": size(jobs.largest_bytes),
            "keep_hours": jobs.settings.keep_hours,
        }
        return _html("upload.html", "Plan a liver resection", states=list(LiverState), expected=EXPECTED, **limits)

    @router.get("/{name}.js")
    def script(name: str) -> Response:
        if name not in ("upload", "plan"):
            raise HTTPException(404)
        return FileResponse(
            _HERE / f"{name}.js", media_type="text/javascript", headers={**_SECURITY, "Cache-Control": "no-cache"}
        )

    @router.post("/plans")
    async def upload(request: Request) -> Response:
        job = None
        try:
            length = request.headers.get("content-length", "")
            if not length.isdecimal():
                raise SettingsError("expected an upload of a stated length (Content-Length); use the page's own form")
            if int(length) > jobs.largest_bytes + 1_000_000:  # of the form around the files
                raise too_large(jobs.largest_bytes)
            job = await run_in_threadpool(jobs.new)
            require_room(job.folder, int(length), "this upload")
            fields = await read_form(request, job.upload)
            await run_in_threadpool(jobs.take, job, PlanOptions.from_fields(fields))
        except FlrError as error:
            message = str(error) if job is None else job.upload.in_words(str(error))
            if job is not None:
                await run_in_threadpool(jobs.delete, job)
            return JSONResponse({"error": message}, 507 if isinstance(error, OutputError) else 400, _SECURITY)
        except BaseException as error:  # the browser is gone, or the server is being stopped
            if job is not None:
                jobs.delete(job)
            if isinstance(error, ClientDisconnect):
                return Response(status_code=400)
            raise
        return JSONResponse({"plan": f"plans/{job.id}/"}, 201, _SECURITY)

    def gone() -> Response:
        return _html("gone.html", "This plan is not here", 404)

    @router.get("/plans/{identity}/")
    def plan_page(identity: str) -> Response:
        job = jobs.find(identity)
        if job is None:
            return gone()
        progress, until = _progress(jobs, job), job.deleted_at.astimezone()
        files = job.files()  # after its state, so that of a plan that is done none is missing
        if job.deleted:
            return gone()
        return _html(
            "plan.html",
            "Plan of a liver resection",
            job=job,
            progress=progress,
            deleted_at=f"{until.day} {until:%B %Y, %H:%M}",
            downloads=[(name, title_of(name), size(files[name])) for name in sorted(files, key=_place)],
        )

    @router.get("/plans/{identity}/state")
    def state(job: Job = kept) -> Response:
        return JSONResponse(_progress(jobs, job), headers=_SECURITY)

    @router.post("/plans/{identity}/choices/{number}")
    def choose(number: int, job: Job = kept) -> Response:
        try:
            jobs.choose(job, number)
        except SettingsError as error:
            raise HTTPException(409, str(error)) from error
        return RedirectResponse("../", 303)

    @router.post("/plans/{identity}/delete")
    def delete(job: Job = kept) -> Response:
        jobs.delete(job)
        return RedirectResponse("../../", 303)

    @router.get("/plans/{identity}/files/{name:path}")
    def file(name: str, job: Job = kept) -> Response:
        opened = job.open(name)  # not its path: it may be deleted before, and while, it is sent
        if opened is None:
            raise HTTPException(404, "this plan has no such file")
        is_page = name.endswith(".html")
        headers = {
            **(_REPORT if is_page else _SECURITY),
            "Content-Length": str(os.fstat(opened.fileno()).st_size),
            "Content-Disposition": f'{"inline" if is_page else "attachment"}; filename="{PurePosixPath(name).name}"',
        }
        return StreamingResponse(_chunks(opened), media_type=guess_type(name)[0] or "application/octet-stream", headers=headers)

    return router


def _chunks(opened: BinaryIO) -> Iterator[bytes]:
    with opened:
        while data := opened.read(_SENT_AT_ONCE):
            yield data


def _html(template: str, title: str, status: int = 200, **values: Any) -> HTMLResponse:
    page = render_page(_HERE / template, title=title, version=__version__, **values)
    return HTMLResponse(page, status, _PAGE)


def _progress(jobs: Jobs, job: Job) -> Mapping[str, Any]:
    """What the page shows while it waits."""
    text = job.step
    if job.state is State.WAITING:
        before = jobs.before(job)
        text = f"waiting for {before} other plan{'s' if before > 1 else ''}" if before else "waiting"
    return {"state": job.state, "text": text, "done": job.steps_done, "steps": STEPS}


_TITLES = {
    ".zip": "All files",
    ".pdf": "Report to print",
    ".html": "Report as a page",
    "seg.dcm": "Segmentation for PACS and viewers (DICOM SEG)",
    "sr.dcm": "Measurements for PACS (DICOM SR)",
    ".dcm": "DICOM",
    ".nii.gz": "Label map (NIfTI)",
    ".glb": "3D model",
    ".stl": "3D model",
    "crlm.mrk.json": "Metastases for 3D Slicer",
    "cut_plane.mrk.json": "Plane nearest to the cut for 3D Slicer",
    ".png": "Picture",
    ".csv": "Table",
    ".json": "Numbers for programs",
}


def title_of(name: str) -> str:
    """What a file is to a person, by how its name ends; the longest ending that is known counts."""
    return _TITLES.get(_ending(name), "File")


def _ending(name: str) -> str:
    return max((ending for ending in _TITLES if name.lower().endswith(ending)), key=len, default="")


def _place(name: str) -> int:
    """Where a file is listed: in the order of the titles."""
    return [*_TITLES, ""].index(_ending(name))
