"""``flrplan serve``: the MONAI Label server with this app, for this machine alone or for those who log in."""

from __future__ import annotations

import argparse
import getpass
import socket
from pathlib import Path
from typing import Any

from flrplan.commands.say import note, say
from flrplan.errors import ServiceError, SettingsError
from flrplan.planner import PlannerSettings
from flrplan.server.serve import ServeSettings
from flrplan.server.serve.settings import APP, LOOPBACK


def add_parser(commands: Any) -> None:
    """Adds ``serve`` to the command line."""
    parser = commands.add_parser("serve", help="the MONAI Label server with this app, for this machine or for those who log in")
    parser.add_argument("--studies", metavar="DIR|URL", help="a folder of CTs (CASE.nii.gz), or a DICOMweb server")
    parser.add_argument("--app", type=Path, default=APP, metavar="DIR", help="the MONAI Label app (the one of this checkout)")
    parser.add_argument("--host", default=LOOPBACK, help=f"address to listen on ({LOOPBACK}: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="(8000, which OHIF's MONAI Label panel expects)")
    parser.add_argument(
        "--users", type=Path, metavar="FILE", help="password file of those who may enter (htpasswd -B writes it as well)"
    )
    parser.add_argument("--add-user", metavar="NAME", help="ask for a password, write it to --users FILE, and end")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a secret that all share, in place of users or beside them"
    )
    parser.add_argument(
        "--admin", action="append", default=[], metavar="NAME", help="only this user may delete and train; repeatable (all may)"
    )
    parser.add_argument("--audit", type=Path, metavar="DIR", help="folder of the audit log (logs/ of the app)")
    parser.add_argument("--max-upload-gib", type=float, default=2.0, metavar="N", help="the largest upload that is taken (2)")
    parser.add_argument(
        "--root-path", default="", metavar="/PATH", help="the path under which a reverse proxy shows the server"
    )
    parser.add_argument(
        "--conf", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a setting of the app; repeatable"
    )
    page = parser.add_argument_group("the page /planner/, on which a CT is dropped and planned")
    default = PlannerSettings()
    page.add_argument(
        "--uploads", type=Path, metavar="DIR", help="where CTs and plans lie while they are kept (temporary files)"
    )
    page.add_argument(
        "--keep-hours",
        type=float,
        default=default.keep_hours,
        metavar="H",
        help=f"until a plan is deleted ({default.keep_hours:g})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C; or adds a user."""
    if arguments.add_user is not None:
        return _add_user(arguments.users, arguments.add_user)
    if arguments.studies is None:
        raise SettingsError("give --studies: a folder of CTs or the URL of a DICOMweb server")
    settings = ServeSettings(
        studies=arguments.studies,
        app=arguments.app,
        host=arguments.host,
        port=arguments.port,
        users=arguments.users,
        token_file=arguments.token_file,
        admins=frozenset(arguments.admin),
        audit=arguments.audit,
        max_upload_gib=arguments.max_upload_gib,
        root_path=arguments.root_path,
        conf=dict(arguments.conf),
        planner=PlannerSettings(arguments.uploads, arguments.max_upload_gib, arguments.keep_hours),
    )
    with _listening(settings) as listener:
        from flrplan.server.serve.run import serve

        serve(settings, listener, lambda: say(f"http://{settings.host}:{settings.port}{settings.root_path}/ (Ctrl-C stops it)"))
    return 0


def _listening(settings: ServeSettings) -> socket.socket:
    """The socket, before anything is loaded: who holds the port is the only server on it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}; end the program that does, or give "
            "another --port"
        ) from error


def _add_user(users: Path | None, name: str) -> int:
    from flrplan.server.serve.users import add_user

    if users is None:
        raise SettingsError("--add-user needs --users FILE: the password file that the user is written to")
    password = getpass.getpass(f"Password of {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise SettingsError("the two passwords differ; nothing was written")
    add_user(users, name, password)
    note(f"{name} may enter with {users}")
    return 0
