"""What ``flrplan serve`` can be told, checked at start. Loads neither MONAI Label nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

import flrplan
from flrplan.errors import SettingsError
from flrplan.files import read_text
from flrplan.files.checked import checked
from flrplan.planner import PlannerSettings

LOOPBACK = "127.0.0.1"
APP = Path(flrplan.__file__).resolve().parents[2]
"""The app of this checkout: the folder with main.py."""
TOKEN_LENGTH = 16


@checked
class ServeSettings:
    """Settings of the served app.

    studies: a folder, or the URL of a DICOMweb server. app: the folder with main.py.
    users: a password file as ``htpasswd -B`` writes it; or token_file: a file with one secret that all share.
    admins: the users who alone may delete and train; none: all may.
    audit: the folder of the audit log; None is the app's ``logs``. max_upload_gib: the largest upload.
    root_path: the path under which a reverse proxy shows the server, such as ``/flr``.
    conf: settings of the app, as ``--conf KEY VALUE``. planner: of the surgeon's page.
    """

    studies: str
    app: Path = APP
    host: str = LOOPBACK
    port: int = 8000
    users: Path | None = None
    token_file: Path | None = None
    admins: frozenset[str] = frozenset()
    audit: Path | None = None
    max_upload_gib: Annotated[float, Field(gt=0)] = 2.0
    root_path: str = ""
    conf: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    planner: PlannerSettings = field(default_factory=PlannerSettings)

    def __post_init__(self) -> None:
        if not (self.app / "main.py").is_file():
            raise SettingsError(
                f"app: no main.py in {self.app}; expected the folder of a MONAI Label app, such as apps/flr_planning"
            )
        if not self.remote and not Path(self.studies).is_dir():
            raise SettingsError(f"studies: no folder {self.studies}; expected a folder of CTs or the URL of a DICOMweb server")
        if not 0 < self.port < 65536:
            raise SettingsError(f"port must be 1 to 65535, got {self.port}")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise SettingsError(f"root_path must look like /flr, got {self.root_path!r}")
        if not self.protected and not is_loopback(self.host):
            raise SettingsError(
                f"host: {self.host} lets other machines in, and nothing asks who they are; give --users FILE (or --token-file FILE), "
                f"or listen on {LOOPBACK} alone"
            )
        if self.users is not None and not self.users.is_file():
            raise SettingsError(
                f"users: no file {self.users}; make it with: flrplan serve --users {self.users} --add-user NAME"
            )
        if self.admins and self.users is None:
            raise SettingsError("admins: who has not signed in has no name; give --users FILE as well")
        if self.token_file is not None and len(self.token()) < TOKEN_LENGTH:
            raise SettingsError(
                f"token_file: the token in {self.token_file} has fewer than {TOKEN_LENGTH} characters; make one with: "
                'python -c "import secrets; print(secrets.token_urlsafe())"'
            )

    @property
    def remote(self) -> bool:
        """True where the studies are a DICOMweb server's."""
        return self.studies.startswith(("http://", "https://"))

    @property
    def protected(self) -> bool:
        """True where a client must say who it is."""
        return self.users is not None or self.token_file is not None

    @property
    def audit_folder(self) -> Path:
        """Where the audit log lies."""
        return self.app / "logs" if self.audit is None else self.audit

    def token(self) -> str:
        """The shared secret; empty where there is none. Raises SettingsError where its file cannot be read."""
        return "" if self.token_file is None else read_text(self.token_file).strip()


def is_loopback(host: str) -> bool:
    """True for an address or name that only this machine reaches."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
