"""Names of a package that are imported when they are first asked for (PEP 562), so that importing the package is cheap."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any


def import_at_first_use(package: str, homes: Mapping[str, Sequence[str]]) -> None:
    """Gives a package, from within its ``__init__``, the names that stand in these modules: ``homes`` is module to names.

    The package also imports them under ``TYPE_CHECKING``, for mypy and editors; ``tests/test_imports.py`` holds both lists together.
    """
    own = vars(sys.modules[package])
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        own[name] = getattr(import_module(home_of[name]), name)  # the next look finds it without this function
        return own[name]

    own["__getattr__"] = get
    own["__dir__"] = lambda: sorted({*own, *home_of})
