"""Reads the YAML file of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from flrplan.errors import SettingsError
from flrplan.files import read_yaml
from flrplan.method import Variant, variants_from
from flrplan.networks import SCRATCH
from flrplan.workflow.settings import (
    BenchmarkSettings,
    DataSettings,
    Resources,
    Rule,
    SplitSettings,
    require_known,
    require_recipes,
    require_starts,
)

EXTENDS = "extends"
"""Key of a YAML that starts from another one; its own keys take the place of that one's."""
_KEYS = tuple(f.name for f in fields(BenchmarkSettings) if f.name != "variants_file")


def read_benchmark(path: Path) -> BenchmarkSettings:
    """The benchmark that a YAML file describes. Raises SettingsError naming the file, the key and the known ones."""
    values = _values(path)
    try:
        settings: BenchmarkSettings = _build(BenchmarkSettings, {**values, "variants_file": path.resolve()}, "settings")
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
        content = _mapping(content or {}, "the file")
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
    values = dict(content)
    if "data" in values:
        data = _mapping(values["data"] or {}, "data")
        data = {
            k: folder / v if k in ("root", "tcia", "images", "layout", "clinical") and v is not None else v
            for k, v in data.items()
        }
        values["data"] = _build(DataSettings, data, "data")
    split = values.get("split")
    if isinstance(split, str):
        values["split"] = SplitSettings(file=folder / split)
    elif split is not None:
        values["split"] = _build(SplitSettings, _mapping(split, "split"), "split", without=("file",))
    for name in ("architectures", "stages", "folds"):
        if name in values:
            values[name] = _tuple(values[name], name)
    if values.get("recipe") is not None:
        values["recipe"] = folder / str(values["recipe"])
    if "pretrained" in values:
        pretrained = _mapping(values["pretrained"] or {}, "pretrained")
        values["pretrained"] = {a: None if p == SCRATCH else folder / str(p) for a, p in pretrained.items() if p is not None}
    if "variants" in values:
        values["variants"] = variants_from(values["variants"] or {}, folder)
    if "ensembles" in values:
        ensembles = _mapping(values["ensembles"] or {}, "ensembles")
        values["ensembles"] = {str(name): _tuple(of, f"ensembles: {name}") for name, of in ensembles.items()}
    if "resources" in values:
        resources = _mapping(values["resources"] or {}, "resources")
        require_known("resources", resources, [str(rule) for rule in Rule])
        values["resources"] = {
            Rule(name): _build(Resources, _mapping(block, f"resources: {name}"), f"resources: {name}")
            for name, block in resources.items()
        }
    return values


def _build(cls: type[Any], values: Mapping[str, Any], what: str, without: tuple[str, ...] = ()) -> Any:
    require_known(what, values, [f.name for f in fields(cls) if f.name not in without])
    try:
        return cls(**values)
    except TypeError as error:
        raise SettingsError(f"{what}: {error}") from error


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{what}: expected names with values, found {value!r}")
    return value


def _tuple(value: Any, what: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise SettingsError(f"{what}: expected a list, found {value!r}")
    return tuple(value)
