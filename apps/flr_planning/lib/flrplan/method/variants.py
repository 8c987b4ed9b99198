"""Variants: an architecture under a name of its own, with settings laid over the recipe. Each is a row of the tables.

Controls (another seed, spacing or start) and recipes of one's own stand beside the paper's architectures so, and never in their place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from flrplan.errors import SettingsError
from flrplan.files.checked import EmptyBlock, checked, one_of, settings_of
from flrplan.method.recipe import PlanSettings, Recipe
from flrplan.method.stages import STAGES
from flrplan.networks import SCRATCH, TABLE, architecture_named

_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Variants are called like folders and parts of plan names."""
_PARTS = ("input", "plan", "training")
BASELINE_ROWS = frozenset(
    {
        "whole_liver",
        "liver_minus_tumour",
        "liver_minus_tumour_10mm",
        "liver_minus_tumour_side",
        "fixed_plane",
        "original_labels",
    }
)
"""Rows of the tables that no model gives (:mod:`flrplan.evaluation.baselines`, which has no other): no variant may have their name."""


@checked
class Variant:
    """One variant; its models are ``models/<stage>/<name>/``, its predictions ``predictions/<name>/``.

    architecture: of :mod:`flrplan.networks.table`.
    pretrained: a file of weights, or ``scratch``: random ones; None: what is said of the architecture.
    labels: folder with other labels of the same CTs (``labels/`` or ``masks/``), to train on; None: the benchmark's own.
    stages: the only ones that it is trained in; empty: those of the benchmark.
    input, plan, training: settings of a recipe, over those of the recipe, for all stages.
    """

    name: str
    architecture: str
    pretrained: Path | str | None = None
    labels: Path | None = None
    stages: tuple[Annotated[str, one_of(STAGES)], ...] = ()
    input: Annotated[Mapping[str, Any], EmptyBlock] = field(default_factory=dict)
    plan: Annotated[Mapping[str, Any], EmptyBlock] = field(default_factory=dict)
    training: Annotated[Mapping[str, Any], EmptyBlock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_name(self.name, "name")
        architecture_named(self.architecture).size(Recipe.from_mapping(self.over).plan.network_size)
        for what, path in (("pretrained", self.pretrained), ("labels", self.labels)):
            if isinstance(path, Path) and not path.exists():
                raise SettingsError(f"{what}: no such file or folder {path}")

    @property
    def over(self) -> dict[str, dict[str, Any]]:
        """The settings that go over a recipe's."""
        return {part: dict(getattr(self, part)) for part in _PARTS if getattr(self, part)}

    @property
    def preparation(self) -> str:
        """Folder, below that of all preparations, for arrays made with other settings or labels than the recipe's; empty: the same.

        It is called after what differs, so that variants with the same arrays share them and others never meet.
        """
        shared = {k: v for k, v in self.plan.items() if k in PlanSettings().shared()}
        differs = {"input": dict(self.input), "plan": shared, "labels": str(self.labels or "")}
        if not any(differs.values()):
            return ""
        return f"prepared_{hashlib.sha256(json.dumps(differs, sort_keys=True).encode()).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        """The variant as its YAML says it, for records; of paths the last part."""
        own = {"pretrained": self.pretrained, "labels": self.labels}
        said = {k: Path(v).name for k, v in own.items() if v is not None}
        return {
            "architecture": self.architecture,
            **said,
            **({"stages": list(self.stages)} if self.stages else {}),
            **self.over,
        }


def require_name(name: str, what: str) -> None:
    """Raises SettingsError unless a row of the tables that is no architecture may be called so."""
    if not _NAME.fullmatch(name) or name in TABLE or name in STAGES or name in BASELINE_ROWS:
        raise SettingsError(
            f"{what}: {name!r} cannot be a name: expected small letters, digits and _, and neither an architecture "
            f"({', '.join(TABLE)}) nor a stage or a baseline of the tables"
        )


def variants_from(content: Any, folder: Path) -> dict[str, Variant]:
    """The variants of a block ``variants`` in a YAML file, by name. Paths are relative to ``folder``.

    Raises: SettingsError naming the variant, the key and the known ones.
    """
    blocks = settings_of(dict[str, dict[str, Any]], content, "variants")
    for name, block in blocks.items():
        for key in ("pretrained", "labels"):
            if isinstance(block.get(key), str) and block[key] != SCRATCH:
                block[key] = folder / block[key]
        block["name"] = name
    return settings_of(dict[str, Variant], blocks, "variants")
