"""What lies beside results and says what they were made of: typed, with a version of their form, and compared in one way.

A record of flrplan 0.1.0 has no version and is of the first form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from flrplan.errors import FlrError, SettingsError
from flrplan.files import read_json, write_json

RUN_NAME = "run.json"
"""Of a :class:`RunRecord`, beside each checkpoint."""
SCHEMA = 1
_SCHEMA = "schema"


def read_record(path: Path, error: type[FlrError] = SettingsError) -> dict[str, Any]:
    """A record as plain values; nothing where there is no such file. Raises ``error`` naming a file that is damaged or too new."""
    if not path.exists():
        return {}
    try:
        content = read_json(path, "a JSON object", finite=True)
    except SettingsError as found:
        raise error(f"{path} is damaged: {found}; copy it again, or train or predict anew") from found
    if not isinstance(content, dict):
        raise error(f"{path} is damaged: expected a JSON object; copy it again, or train or predict anew")
    if content.get(_SCHEMA, SCHEMA) != SCHEMA:
        raise error(
            f"{path}: expected form {SCHEMA}, found {content[_SCHEMA]}: another version of flrplan wrote it; use that one"
        )
    return content


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a record with the version of its form. Raises OutputError."""
    write_json(path, {_SCHEMA: SCHEMA, **content})


def differences(before: Mapping[str, Any], now: Mapping[str, Any], name: str = "") -> list[str]:
    """What differs, in words and by name: ``input.crop_margin_mm was 10.0, is 5.0``. Compared as JSON holds it."""
    found = []
    for key in sorted({*before, *now}):
        old: Any = before.get(key)
        new: Any = now.get(key)
        names = isinstance(old, list) and isinstance(new, list) and all(isinstance(item, str) for item in (*old, *new))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{name}{key}.")
        elif names and {*old} != {*new}:
            changes = {"without": sorted({*old} - {*new}), "new": sorted({*new} - {*old})}
            found += [f"{name}{key}: {word} {', '.join(items)}" for word, items in changes.items() if items]
        elif _plain(old) != _plain(new):
            found.append(f"{name}{key} was {shortened(_plain(old))}, is {shortened(_plain(new))}")
    return found


def require_same(
    before: Mapping[str, Any], now: Mapping[str, Any], what: str, remedy: str, error: type[FlrError] = SettingsError
) -> None:
    """The one check of whether what is there was made of what is asked for now.

    what: what is there, with its path. remedy: what a person can do.
    Raises: ``error`` that says what differs.
    """
    if changed := differences(before, now):
        raise error(f"{what} was made of something else ({'; '.join(changed)}); {remedy}")


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answered.

    folder: ``<stage>/<architecture>``, a later version of it with ``versions/<number>``. weights_sha256: of each fold. demo: one of the models that come with the app.
    fine_tuned_from_demo: its weights began as a demo model's. imported: of a foreign model, what was said of its labels and input.
    distilled: of one that learned what an ensemble says, that ensemble's weights_sha256 and by target the mean Dice between the two (agreement).
    """

    stage: str
    folder: str
    folds: tuple[int, ...]
    weights_sha256: Mapping[str, str]
    architecture: str = ""
    demo: bool = False
    fine_tuned_from_demo: bool = False
    imported: Mapping[str, Any] | None = None
    distilled: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        optional = {
            "imported": self.imported,
            "fine_tuned_from_demo": self.fine_tuned_from_demo or None,
            "distilled": self.distilled,
        }
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in optional}
        content |= {"folds": list(self.folds), "weights_sha256": dict(self.weights_sha256)}
        return content | {name: value for name, value in optional.items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ModelIdentity:
        """From plain values. Raises KeyError, TypeError or ValueError for others."""
        return cls(**{**content, "folds": tuple(content["folds"])})

    @property
    def decides(self) -> dict[str, Any]:
        """What its answers depend on: the weights, and of an imported one what was stated."""
        return {**self.weights_sha256, **({"imported": self.imported} if self.imported is not None else {})}


@dataclass(frozen=True)
class RunRecord:
    """``run.json``: what a training was, so that its result can be judged and repeated.

    train_ids, validation_ids: None where nothing says it. inherited_train_ids: what the weights that it began as had learned from.
    pretrained: the file that they came from, and what of it was loaded; None for random weights. has_start: whether that is said.
    variant: as its YAML says it; None for an architecture as it is. details: all else, by name.
    """

    train_ids: tuple[str, ...] | None = None
    validation_ids: tuple[str, ...] | None = None
    inherited_train_ids: tuple[str, ...] = ()
    pretrained: Mapping[str, Any] | None = None
    has_start: bool = False
    variant: Mapping[str, Any] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, fold: Path, error: type[FlrError] = SettingsError) -> RunRecord:
        """The record in the folder of a fold; an empty one where there is none. Raises ``error`` for a damaged one."""
        content = read_record(fold / RUN_NAME, error)
        ids = {key: tuple(content[key]) if content.get(key) is not None else None for key in ("train_ids", "validation_ids")}
        known = {*ids, "inherited_train_ids", "pretrained", "variant", _SCHEMA}
        return cls(
            **ids,
            inherited_train_ids=tuple(content.get("inherited_train_ids") or ()),
            pretrained=content.get("pretrained") or None,
            has_start="pretrained" in content,
            variant=content.get("variant"),
            details={key: value for key, value in content.items() if key not in known},
        )

    @property
    def learned_from(self) -> frozenset[str]:
        """Ids of all cases that the weights have learned from; empty where nothing is recorded."""
        return frozenset((*(self.train_ids or ()), *self.inherited_train_ids))


@dataclass(frozen=True)
class PartRecord:
    """``predicted/<row>/<part>.json``: which models predicted which cases.

    made_of: by stage what the models' answers depend on, and whether the images were mirrored; of an ensemble its members.
    unrecorded: models of which nothing says what trained them, ``<stage>/fold_<k>``. started_from: by model, in words.
    """

    made_of: Mapping[str, Any] = field(default_factory=dict)
    cases: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    started_from: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> PartRecord:
        """The record; an empty one where there is none. Raises SettingsError for a damaged one."""
        content = read_record(path)
        known = ("cases", "unrecorded", "started_from", _SCHEMA)
        return cls(
            {key: value for key, value in content.items() if key not in known},
            tuple(content.get("cases", ())),
            tuple(content.get("unrecorded", ())),
            content.get("started_from", {}),
        )

    def write(self, path: Path) -> None:
        """Writes it, ids sorted. Raises OutputError."""
        lists = {"started_from": dict(self.started_from), "cases": sorted(self.cases), "unrecorded": sorted(self.unrecorded)}
        write_record(path, {**self.made_of, **lists})
