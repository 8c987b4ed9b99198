"""Loopback is asked directly, never through a proxy, whatever ``HTTP_PROXY`` says; everything else as it says.

Where a proxy is the rule (hospitals), programs also send requests to 127.0.0.1 to it, unless ``NO_PROXY`` names that address.
"""

from __future__ import annotations

from collections.abc import Mapping

import requests

LOOPBACK = "127.0.0.1"
_HOSTS = (LOOPBACK, "localhost")
_NAMES = ("no_proxy", "NO_PROXY")
"""Programs read the one or the other; most prefer the first."""


def ask(method: str, url: str, timeout_seconds: float, data: bytes | None = None) -> requests.Response:
    """One request of ours to loopback: no proxy, and no password of a ``.netrc``. Raises: what :mod:`requests` does.

    A connection each, closed by us: told to close it (``Connection: close``), Orthanc 1.10 now and then does so unasked and unanswered.
    """
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, data=data, timeout=timeout_seconds)


def with_direct_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` for a child that shall reach loopback directly: both spellings of ``NO_PROXY``, what they said and loopback."""
    said = [host.strip() for name in _NAMES for host in environment.get(name, "").split(",") if host.strip()]
    # "*" is no proxy at all; it counts only where it stands alone.
    hosts = "*" if "*" in said else ",".join(dict.fromkeys([*said, *_HOSTS]))
    return {**environment, **dict.fromkeys(_NAMES, hosts)}
