"""Who asks, where the server knows: ``flrplan serve`` with a user list. The plain server knows nobody."""

from __future__ import annotations

from contextvars import ContextVar

_USER: ContextVar[str | None] = ContextVar("flrplan_user", default=None)
"""Set for each request by :mod:`flrplan.server.serve.access`; threads that a request starts inherit it."""


def current_user() -> str | None:
    """The name that the present request proved by a password, or None where nobody was asked."""
    return _USER.get()


def set_current_user(name: str | None) -> None:
    """For the rest of the present request."""
    _USER.set(name)
