"""Runs the app of ``flrplan serve`` on a socket until it is told to end."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from monailabel.utils.others.generic import init_log_config

from flrplan.server.serve.app import serve_app
from flrplan.server.serve.settings import ServeSettings

GRACE_SECONDS = 10


def serve(settings: ServeSettings, listener: socket.socket, up: Callable[[], object]) -> None:
    """Serves until SIGINT or SIGTERM. up: called once requests are answered.

    Only a reverse proxy on this machine is believed who it asks for (``X-Forwarded-For``, ``-Proto``).
    """
    app = serve_app(settings)
    config = uvicorn.Config(
        app,
        root_path=settings.root_path,
        log_config=init_log_config(None, str(settings.app), "app.log", "INFO"),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            up()

    Server(config).run([listener])
