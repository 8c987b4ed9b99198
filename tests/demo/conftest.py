"""Shared by the tests of the demo: a proxy that must not be asked."""

from __future__ import annotations

import pytest

from flrplan.demo.ohif.background import free_port


@pytest.fixture
def closed_proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A proxy for everything, as in a hospital's environment, that refuses all connections."""
    proxy = f"http://127.0.0.1:{free_port()}"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy)
        monkeypatch.setenv(name.upper(), proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return proxy
