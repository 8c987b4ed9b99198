"""The columns of the paper's Tables 1 and 2, derived from the stages: which stage, and whether its inputs are predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from flrplan.labels import Structure
from flrplan.stages import CASCADE, STAGES, Stage


class Inputs(str, Enum):
    """What a stage was given beside the CT. The value is the first word of the column's name."""

    PIPELINED = "pipelined"
    CASCADED = "cascaded"
    E2E = "e2e"

    def __str__(self) -> str:
        return self.value


class Part(str, Enum):
    """Which cases: out-of-fold predictions of the cross-validation (Table 1), or held-out ones (Table 2)."""

    CV = "cv"
    TEST = "test"

    def __str__(self) -> str:
        return self.value

    @property
    def caption(self) -> str:
        """How the part is called in tables."""
        return "cross-validation" if self is Part.CV else "held-out test"


_LETTERS = {Structure.LIVER: "L", Structure.CRLM: "T"}
_TITLES = {Structure.LIVER: "Liver", Structure.CRLM: "CRLM", Structure.FLR: "FLR", Structure.LRS: "LRS"}


@dataclass(frozen=True)
class Column:
    """One column: the stage that was predicted and where its inputs came from."""

    stage: Stage
    inputs: Inputs

    @property
    def name(self) -> str:
        """Folder name and key, for example ``cascaded_flr``."""
        return f"{self.inputs}_{self.stage.target}"

    @property
    def target(self) -> Structure:
        """The structure that is scored."""
        return self.stage.target

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages whose models make this column, in the order of the cascade."""
        if self.inputs is not Inputs.CASCADED:
            return (self.stage,)
        return CASCADE[: CASCADE.index(self.stage) + 1]

    @property
    def title(self) -> str:
        """As in the paper's tables, for example ``cascaded FLR (L+T+CT)``."""
        inputs = "+".join([*(_LETTERS[s] for s in self.stage.needs), "CT"])
        kind = "E2E" if self.inputs is Inputs.E2E else str(self.inputs)
        return f"{kind} {_TITLES[self.target]} ({inputs})"


def _all_columns() -> dict[str, Column]:
    columns = [Column(stage, Inputs.PIPELINED) for stage in CASCADE]
    # The first stage takes the CT alone: its pipelined and its cascaded result are the same prediction.
    columns += [Column(stage, Inputs.CASCADED) for stage in CASCADE if stage.needs]
    columns += [Column(stage, Inputs.E2E) for stage in STAGES.values() if stage not in CASCADE]
    return {column.name: column for column in columns}


COLUMNS: Mapping[str, Column] = MappingProxyType(_all_columns())
"""Every column by name, in the order of the paper's Table 2."""

REQUIRED: Mapping[Part, tuple[str, ...]] = MappingProxyType(
    {
        Part.CV: tuple(name for name, column in COLUMNS.items() if column.inputs is not Inputs.CASCADED),
        Part.TEST: tuple(COLUMNS),
    }
)
"""Columns in which every case of a part is expected once an architecture has the column; in others cases are optional."""


def columns_of(part: Part, stages: Iterable[Stage], cascaded_cv: bool = False) -> tuple[str, ...]:
    """The columns of a part that models of these stages can make; the cascaded ones of the cross-validation on demand."""
    given = set(stages)
    asked = tuple(COLUMNS) if cascaded_cv else REQUIRED[part]
    return tuple(name for name in asked if given.issuperset(COLUMNS[name].stages))


OWN_MASKS: Mapping[Structure, str] = MappingProxyType(
    {Structure.LIVER: f"{Inputs.PIPELINED}_{Structure.LIVER}", Structure.CRLM: f"{Inputs.CASCADED}_{Structure.CRLM}"}
)
"""The columns that hold the liver and the CRLM that an architecture predicts from the CT alone."""
