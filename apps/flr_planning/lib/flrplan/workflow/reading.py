"""Reads the YAML file of a benchmark."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from flrplan.errors import SettingsError
from flrplan.files import read_yaml
from flrplan.files.checked import settings_of
from flrplan.method import Variant, variants_from
from flrplan.networks import SCRATCH
from flrplan.workflow.settings import (
    BenchmarkSettings,
    SplitSettings,
    require_known,
    require_recipes,
    require_starts,
)

EXTENDS = "extends"
"""Key of a YAML that starts from another one; its own keys take the place of that one's."""
_DATA_PATHS = ("root", "tcia", "images", "layout", "clinical")
_KEYS = tuple(f.name for f in fields(BenchmarkSettings) if f.name != "variants_file")


def read_benchmark(path: Path) -> BenchmarkSettings:
    """The benchmark that a YAML file describes. Raises SettingsError naming the file, the key and the known ones."""
    values = _values(path)
    try:
        settings = settings_of(BenchmarkSettings, {**values, "variants_file": path.resolve()})
        require_starts(settings)
        require_recipes(settings)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    return settings


def read_variants(path: Path) -> dict[str, Variant]:
    """The variants of such a file, by name. Raises SettingsError as :func:`read_benchmark`."""
    variants: dict[str, Variant] = _values(path).get("variants", {})
    return variants


def _values(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The arguments of :class:`BenchmarkSettings` that a file gives, and the file that it extends."""
    content = read_yaml(path, "the YAML file of a benchmark")
    try:
        content = settings_of(dict[str, Any], content, "the file")
        base = content.pop(EXTENDS, None)
        require_known("settings", content, (*_KEYS, EXTENDS))
        own = _arguments(content, path.resolve().parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    if base is None:
        return own
    if path.resolve() in extended_by:
        raise SettingsError(f"{path}: {EXTENDS} goes round in a circle: {' -> '.join(p.name for p in (*extended_by, path))}")
    return {**_values(path.parent / str(base), (*extended_by, path.resolve())), **own}


def _arguments(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The values of a file with its paths taken from its folder."""
    values: dict[str, Any] = _placed(content, ("recipe",), folder)
    values |= {"data": _placed(values["data"], _DATA_PATHS, folder)} if "data" in values else {}
    split = values.get("split")
    if isinstance(split, str):
        values["split"] = SplitSettings(file=folder / split)
    elif isinstance(split, dict):
        require_known("split", split, ("held_out", "folds"))
    if "pretrained" in values:
        pretrained = settings_of(dict[str, str | None], values["pretrained"], "pretrained")
        values["pretrained"] = {a: None if p == SCRATCH else folder / p for a, p in pretrained.items() if p is not None}
    if "variants" in values:
        values["variants"] = variants_from(values["variants"], folder)
    return values


def _placed(block: Any, names: Collection[str], folder: Path) -> Any:
    """A block in which the paths of these names are taken from a folder."""
    if not isinstance(block, dict):
        return block
    return {k: folder / v if k in names and isinstance(v, str) else v for k, v in block.items()}
