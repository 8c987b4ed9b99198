"""Runs the app of ``flrplan serve`` on a socket until it is told to end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from monailabel.utils.others.generic import init_log_config

from flrplan.server.serve.app import serve_app
from flrplan.server.serve.private_temp import private_temp
from flrplan.server.serve.settings import ServeSettings

GRACE_SECONDS = 10


def serve(settings: ServeSettings, listener: socket.socket, up: Callable[[], object]) -> None:
    """Serves until SIGINT or SIGTERM. up: called once requests are answered.

    Only a reverse proxy on this machine is believed who it asks for (``X-Forwarded-For``, ``-Proto``).
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            up()

    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # uvicorn hands both on once it has ended, so that what follows is done
    with suppress(KeyboardInterrupt), private_temp(f"serve-{settings.host.replace(':', '_')}-{settings.port}"):
        logging = Path(init_log_config(None, str(settings.app), "app.log", "INFO"))
        config = uvicorn.Config(
            serve_app(settings),
            root_path=settings.root_path,
            http="h11",  # bounds the headers (64 KiB), which uvicorn's other one gathers before anybody is asked who it is
            log_config=str(logging),
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        logging.unlink()
        Server(config).run([listener])
