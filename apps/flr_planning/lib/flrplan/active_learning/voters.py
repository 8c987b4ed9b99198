"""Who may disagree about a case: the folds of the models, else architectures, else cascade and end-to-end; whichever the models allow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from flrplan.engine import FoundModel, ModelStore
from flrplan.errors import ModelError
from flrplan.method import CASCADE, FLR, FLR_E2E, Stage
from flrplan.networks import ARCHITECTURES
from flrplan.workfolder import ModelIdentity

if TYPE_CHECKING:
    from flrplan.engine import Cascade, CascadeSettings


class Vote(StrEnum):
    """Between whom, in words."""

    FOLDS = "the folds of the models"
    ARCHITECTURES = "the architectures"
    END_TO_END = "the cascade and the end-to-end model"
    NOBODY = "nobody: one model alone"


@dataclass(frozen=True)
class Voters:
    """Who votes. architectures: all that do, the first is the one that serves. stamp: changes when any of the models' files does,
    or how they run.
    """

    vote: Vote
    architectures: tuple[str, ...]
    stamp: str

    @property
    def words(self) -> str:
        """For people."""
        named = f": {', '.join(self.architectures)}" if self.vote is Vote.ARCHITECTURES else ""
        return f"{self.vote.value}{named}"

    def models(self, cascade: Cascade) -> dict[str, ModelIdentity]:
        """The identities of all that vote, opened: as :func:`flrplan.active_learning.predictions.measure_by_models` names them. Raises ModelError."""
        from flrplan.engine import Cascade

        others = [(a, Cascade(cascade.store, replace(cascade.settings, architecture=a))) for a in self.architectures[1:]]
        found = {stage.name: cascade.identity(stage) for stage in CASCADE}
        found |= {f"{stage} {name}": other.identity(stage) for name, other in others for stage in CASCADE}
        return found | ({FLR_E2E.name: cascade.identity(FLR_E2E)} if self.vote is Vote.END_TO_END else {})


def decisive(settings: CascadeSettings) -> tuple[object, ...]:
    """What of the settings decides about masks, beside the architecture."""
    return settings.mirroring, settings.largest_liver, settings.engine


def find_voters(store: ModelStore, settings: CascadeSettings, stages: Sequence[Stage] = CASCADE) -> Voters:
    """Who votes with these models; no weights are opened. Raises ModelError where a stage has no model, or a damaged one."""
    architecture, how = settings.architecture, decisive(settings)
    models = {stage.name: store.find(stage, architecture) for stage in stages}
    if len(models[FLR.name].folder.folds) > 1:
        return Voters(Vote.FOLDS, (architecture,), _stamp(models, how))
    others = [name for name in ARCHITECTURES if name != architecture and all(_usable(store, s, name) for s in stages)]
    for name in others:
        models |= {f"{stage} {name}": store.find(stage, name) for stage in stages}
    if others:
        return Voters(Vote.ARCHITECTURES, (architecture, *others), _stamp(models, how))
    if _usable(store, FLR_E2E, architecture):
        models[FLR_E2E.name] = store.find(FLR_E2E, architecture)
        return Voters(Vote.END_TO_END, (architecture,), _stamp(models, how))
    return Voters(Vote.NOBODY, (architecture,), _stamp(models, how))


def _usable(store: ModelStore, stage: Stage, architecture: str) -> bool:
    try:
        return store.find_any(stage, architecture) is not None
    except ModelError:  # one that does not serve does not vote
        return False


def _stamp(models: dict[str, FoundModel], how: tuple[object, ...]) -> str:
    return hashlib.sha256(json.dumps([how, [[n, m.folder.fingerprint()] for n, m in models.items()]]).encode()).hexdigest()[:32]
