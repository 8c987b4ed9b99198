"""The ASGI app of ``flrplan serve``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse
from monailabel import app as host
from monailabel.interfaces.utils.app import app_instance
from monailabel.main import Main

from flrplan import __version__
from flrplan.engine import Cascade, CascadeSettings
from flrplan.planner import Jobs, PlannerSettings, planner_router
from flrplan.server.serve.access import Door, login_routes
from flrplan.server.serve.audit import Audit
from flrplan.server.serve.errors import tell_errors
from flrplan.server.serve.host_routes import host_routes
from flrplan.server.serve.limits import Limits
from flrplan.server.serve.ohif import ohif_routes
from flrplan.server.serve.proxy import dicomweb_proxy
from flrplan.server.serve.settings import ServeSettings
from flrplan.server.serve.users import Users


def serve_app(settings: ServeSettings, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """MONAI Label's server with our app, behind :class:`~flrplan.server.serve.access.Door`.

    routers: pages of ours, which come before the host's endpoints and behind the same doors. In them ``request.app.state.planning``
    is the app (``FlrPlanningApp``: ``datastore()``, ``service.store``, and ``service.lock``, held while something is computed), and
    :func:`flrplan.server.user.current_user` says who asks. Links between pages must be relative: a reverse proxy may show the
    server under a path.

    Raises: SettingsError and others of ours where the app cannot be opened.
    """
    users = Users(settings) if settings.protected else None
    planning, added = _open_host(settings)
    app = FastAPI(title="FLR planning", version=__version__, docs_url=None, redoc_url=None)
    app.state.planning, app.state.settings = planning, settings
    for router in (login_routes(users), planner_of(planning, settings.planner), *routers, ohif_routes(settings.root_path)):
        app.include_router(router)
    if settings.remote:
        datastore = planning.datastore()
        app.include_router(dicomweb_proxy(planning.studies, datastore.session, datastore.note_stored))
    app.include_router(host_routes(settings.remote, added, settings.admins))

    @app.get("/", include_in_schema=False)
    def front() -> RedirectResponse:
        return RedirectResponse("/ohif/" if settings.remote else "planner/")

    tell_errors(app)
    app.add_middleware(Limits, upload_bytes=int(settings.max_upload_gib * 2**30))
    app.add_middleware(Door, users=users)
    app.add_middleware(Audit, folder=settings.audit_folder)
    return app


def planner_of(planning: Any, settings: PlannerSettings) -> APIRouter:
    """The surgeon's page, with the models of the app, which are used by one at a time; the plans of inferences can be read there as well."""
    service, own = planning.service, planning.settings

    def cascade() -> Cascade:
        settings = CascadeSettings(own.architecture, own.device, own.mirroring, own.largest_liver, own.engine, own.also)
        return Cascade(service.store, settings)

    jobs = Jobs(settings, cascade, service.lock)
    service.keep_plan = jobs.keep
    return planner_router(jobs)


def _open_host(settings: ServeSettings) -> tuple[Any, list[Any]]:
    """The app as MONAI Label opens it, and the routes that it put before the host's own."""
    os.environ.setdefault("PYTHONPATH", "")
    starter = Main()
    conf = [word for item in settings.conf.items() for word in ("--conf", *item)]
    words = ["--app", str(settings.app.resolve()), "--studies", settings.studies, "--port", str(settings.port), *conf]
    arguments = starter.args_parser().parse_args(["start_server", *words])
    starter.start_server_validate_args(arguments)
    starter.start_server_init_settings(arguments)
    planning = app_instance()
    before = list(host.app.router.routes)
    planning.server_mode(True)
    planning.on_init_complete()
    return planning, [route for route in host.app.router.routes if route not in before]
