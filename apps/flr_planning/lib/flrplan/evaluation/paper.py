"""The numbers of Tables 1 and 2 of arXiv:2604.07999, as transcribed in ``paper_tables.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import yaml

from flrplan.evaluation.columns import Part

CITATION = "arXiv:2604.07999v1"

ARCHITECTURE_TITLES: Mapping[str, str] = MappingProxyType({"nnunet": "nnU-Net", "swinunetr": "Swin-UNETR", "stunet": "STU-Net"})
"""The paper's architectures in the order of its tables; any other name is shown as it is."""


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    text = resources.files("flrplan.evaluation").joinpath("paper_tables.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables


def paper_value(part: Part, architecture: str, column: str, metric: str) -> tuple[float, float | None] | None:
    """The paper's mean and, in the cross-validation, its standard deviation (else None); None where it has no number."""
    cell = _tables()[part.value].get(architecture, {}).get(column, {}).get(metric)
    if cell is None:
        return None
    if isinstance(cell, list):
        return float(cell[0]), float(cell[1])
    return float(cell), None


def architecture_title(name: str) -> str:
    """How an architecture is called in tables."""
    return ARCHITECTURE_TITLES.get(name, name)


def architecture_order(names: set[str]) -> list[str]:
    """The paper's architectures first, in its order, then the others by name."""
    known = [name for name in ARCHITECTURE_TITLES if name in names]
    return known + sorted(names - set(known))
