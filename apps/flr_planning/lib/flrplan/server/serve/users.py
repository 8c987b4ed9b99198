"""Passwords, the shared token, and the tokens that a log-in gives."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

import jwt
from passlib.apache import HtpasswdFile

from flrplan.errors import SettingsError
from flrplan.files import replacing
from flrplan.server.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

LOGIN_HOURS = 12
MIN_PASSWORD = 8
_SCHEME = "bcrypt"


class Users:
    """Who may enter: the names of a password file, which is read again when it changes, or whoever knows the shared token."""

    def __init__(self, settings: ServeSettings) -> None:
        self._file = None if settings.users is None else _read(settings.users)
        self._token = settings.token()
        self._secret = secrets.token_bytes(32)
        self._known: set[bytes] = set()
        if self._file is not None and not self._file.users():
            raise SettingsError(
                f"users: {settings.users} names nobody; add one with: flrplan serve --users {settings.users} --add-user NAME"
            )
        unknown = settings.admins.difference(self._file.users() if self._file is not None else ())
        if unknown:
            raise SettingsError(f"admins: {settings.users} names no {min(unknown)!r}; give --admin NAME of a user")

    def by_password(self, name: str, password: str) -> tuple[bool, str | None]:
        """Whether this enters, and as whom: None with the shared token, which tells nobody's name. Takes 0.2 s at first (bcrypt)."""
        if self._token and hmac.compare_digest(password.encode(), self._token.encode()):
            return True, None
        kept = self._hash_of(name)
        if kept is None or self._file is None:
            return False, None
        seen = hmac.digest(self._secret, b"\0".join((name.encode(), kept, password.encode())), "sha256")
        if seen not in self._known:  # bcrypt is slow on purpose, and a viewer asks hundreds of times
            try:
                if not self._file.check_password(name, password):
                    return False, None
            except ValueError:  # a password that no hash can hold
                return False, None
            self._known.add(seen)
        return True, name

    def by_token(self, token: str) -> tuple[bool, str | None]:
        """As :meth:`by_password`, for the shared token or one of :meth:`log_in`."""
        if self._token and hmac.compare_digest(token.encode(), self._token.encode()):
            return True, None
        try:
            name = str(jwt.decode(token, options={"verify_signature": False}).get("sub", ""))
            kept = self._hash_of(name)
            if kept is None:
                return False, None
            jwt.decode(token, self._key(kept), algorithms=["HS256"])
        except jwt.InvalidTokenError:
            return False, None
        return True, name

    def log_in(self, name: str, password: str) -> str | None:
        """A token for :meth:`by_token`; good for 12 hours, until the password changes or the server ends. None for a wrong password."""
        enters, user = self.by_password(name, password)
        if not enters:
            return None
        kept = None if user is None else self._hash_of(user)
        if kept is None:
            return self._token
        return jwt.encode({"sub": user, "exp": time.time() + LOGIN_HOURS * 3600}, self._key(kept), algorithm="HS256")

    def _hash_of(self, name: str) -> bytes | None:
        if self._file is None:
            return None
        try:
            self._file.load_if_changed()
        except (OSError, ValueError):
            logger.exception("the password file cannot be read: nobody enters")
            self._file.load_string("")  # else whoever stood in the one before would enter; the next request reads it again
            return None
        with suppress(ValueError):  # a name that no password file can hold
            return self._file.get_hash(name) or None
        return None

    def _key(self, kept: bytes) -> bytes:
        return hashlib.sha256(self._secret + kept).digest()


def add_user(path: Path, name: str, password: str) -> None:
    """Adds a user to a password file, or gives one a new password; the file is made where there is none, readable to its owner alone.

    Raises: SettingsError for a name that such a file cannot hold, and a password that is too short or too long.
    """
    if not MIN_PASSWORD <= len(password.encode()) <= 72:
        raise SettingsError(f"a password needs {MIN_PASSWORD} to 72 characters, this one has {len(password.encode())}")
    users = _read(path) if path.exists() else HtpasswdFile(default_scheme=_SCHEME)
    try:
        users.set_password(name, password)
    except ValueError as error:
        raise SettingsError(f"{name!r} cannot be a user's name: {error}") from None
    with replacing(path) as new:
        new.touch(mode=0o600)
        os.chmod(new, 0o600)
        new.write_bytes(users.to_string())


def _read(path: Path) -> HtpasswdFile:
    try:
        return HtpasswdFile(str(path), default_scheme=_SCHEME)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"users: {path} cannot be read: {error}; expected lines NAME:HASH as htpasswd -B writes them"
        ) from None
