"""The columns of the paper's Tables 1 and 2 and of the stages beside the paper's, derived from the stages.

A column is a stage, one of its targets, and whether its inputs are predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from flrplan.anatomy import Structure
from flrplan.method import CRLM, LIVER, PAPER_STAGES, STAGES, Inputs, Stage, stages_before


class Part(StrEnum):
    """Which cases: out-of-fold predictions of the cross-validation (Table 1), or held-out ones (Table 2)."""

    CV = "cv"
    TEST = "test"

    @property
    def caption(self) -> str:
        """How the part is called in tables."""
        return "cross-validation" if self is Part.CV else "held-out test"


@dataclass(frozen=True)
class Column:
    """One column: the stage that was predicted, where its inputs came from, and the target that is scored."""

    stage: Stage
    inputs: Inputs
    target: Structure

    @property
    def name(self) -> str:
        """Folder name and key, for example ``cascaded_flr``."""
        return self.stage.column_name(self.inputs, self.target)

    @property
    def title(self) -> str:
        """As in the paper's tables, for example ``cascaded FLR (L+T+CT)``."""
        return self.stage.column_title(self.inputs, self.target)

    @property
    def is_papers(self) -> bool:
        """Whether the paper has this column."""
        return self.stage in PAPER_STAGES

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages whose models make this column, in the order of the cascade."""
        return (*(stages_before(self.stage) if self.inputs is Inputs.CASCADED else ()), self.stage)

    @property
    def own_masks(self) -> dict[Structure, str]:
        """The columns that hold the liver and the CRLM that go with this one: of the same network, else of the cascade from the CT."""
        own = {s: self.stage.column_name(self.inputs, s) for s in self.stage.targets}
        return {s: own.get(s, column) for s, column in OWN_MASKS.items()}


def _all_columns() -> dict[str, Column]:
    beside = [stage for stage in STAGES.values() if stage not in PAPER_STAGES]
    columns = [
        Column(stage, inputs, target)
        for stages in (PAPER_STAGES, beside)
        for inputs in Inputs
        for stage in stages
        if inputs in stage.inputs
        for target in stage.targets
    ]
    return {column.name: column for column in columns}


COLUMNS: Mapping[str, Column] = MappingProxyType(_all_columns())
"""Every column by name: the paper's in the order of its Table 2, then those of other stages."""

REQUIRED: Mapping[Part, tuple[str, ...]] = MappingProxyType(
    {
        Part.CV: tuple(name for name, column in COLUMNS.items() if column.inputs is not Inputs.CASCADED),
        Part.TEST: tuple(COLUMNS),
    }
)
"""Columns in which every case of a part is expected once an architecture has the column; in others cases are optional."""

PAPER_COLUMNS: Mapping[Part, tuple[str, ...]] = MappingProxyType(
    {part: tuple(name for name in names if COLUMNS[name].is_papers) for part, names in REQUIRED.items()}
)
"""The columns of the paper's Tables 1 and 2, which ours always have; those of other stages stand behind them where they are predicted."""


def columns_of(part: Part, stages: Iterable[Stage], cascaded_cv: bool = False) -> tuple[str, ...]:
    """The columns of a part that models of these stages can make; the cascaded ones of the cross-validation on demand."""
    given = set(stages)
    asked = tuple(COLUMNS) if cascaded_cv else REQUIRED[part]
    return tuple(name for name in asked if given.issuperset(COLUMNS[name].stages))


OWN_MASKS: Mapping[Structure, str] = MappingProxyType(
    {
        Structure.LIVER: LIVER.column_name(Inputs.PIPELINED, Structure.LIVER),
        Structure.CRLM: CRLM.column_name(Inputs.CASCADED, Structure.CRLM),
    }
)
"""The columns that hold the liver and the CRLM that an architecture's cascade predicts from the CT alone."""
