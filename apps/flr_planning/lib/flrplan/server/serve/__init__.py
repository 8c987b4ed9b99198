"""``flrplan serve``: MONAI Label's server with our app, behind doors of our own: who may enter, how much, and what is answered."""

from __future__ import annotations

from flrplan.server.serve.settings import ServeSettings

__all__ = ["ServeSettings"]
