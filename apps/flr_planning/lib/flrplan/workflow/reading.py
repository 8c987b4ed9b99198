"""Reads the YAML file of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from flrplan.errors import SettingsError
from flrplan.io import read_yaml
from flrplan.networks.table import SCRATCH
from flrplan.workflow.settings import (
    BenchmarkSettings,
    DataSettings,
    Resources,
    Rule,
    SplitSettings,
    require_known,
    require_starts,
)


def read_benchmark(path: Path) -> BenchmarkSettings:
    """The benchmark that a YAML file describes. Raises SettingsError naming the file, the key and the known ones."""
    content = read_yaml(path, "the YAML file of a benchmark")
    try:
        return _benchmark(_mapping(content or {}, "the file"), path.resolve().parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def _benchmark(content: dict[str, Any], folder: Path) -> BenchmarkSettings:
    values = dict(content)
    require_known("settings", values, [f.name for f in fields(BenchmarkSettings)])
    data = _mapping(values.get("data") or {}, "data")
    data = {
        k: folder / v if k in ("root", "tcia", "images", "layout", "clinical") and v is not None else v for k, v in data.items()
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
    pretrained = _mapping(values.get("pretrained") or {}, "pretrained")
    values["pretrained"] = {a: None if p == SCRATCH else folder / str(p) for a, p in pretrained.items() if p is not None}
    resources = _mapping(values.get("resources") or {}, "resources")
    require_known("resources", resources, [str(rule) for rule in Rule])
    values["resources"] = {
        Rule(name): _build(Resources, _mapping(block, f"resources: {name}"), f"resources: {name}")
        for name, block in resources.items()
    }
    settings: BenchmarkSettings = _build(BenchmarkSettings, values, "settings")
    require_starts(settings)
    return settings


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
