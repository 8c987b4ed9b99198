"""The stages as data: the four of the paper and one beside them. Everything else (training, server, benchmark, report) derives from this table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from flrplan.anatomy import STRUCTURES, Structure
from flrplan.errors import SettingsError


class Inputs(StrEnum):
    """What a stage was given beside the CT. The value is the first word of a column's name."""

    PIPELINED = "pipelined"
    CASCADED = "cascaded"
    E2E = "e2e"


class Kind(StrEnum):
    """How a stage comes to its inputs, and so which columns it has.

    CASCADE: masks of the truth (pipelined) or of the stages before it (cascaded). END_TO_END: the CT alone.
    """

    CASCADE = "cascade"
    END_TO_END = "end-to-end"


@dataclass(frozen=True)
class Stage:
    """One prediction task: what it segments, which masks restrict the CT, which masks become channels.

    number: of its nnU-Net data set; it stands in plans and work folders, so it is never changed or given to another stage.
    targets: the structures, each an output of its own; they may overlap. A liver among them comes first.
    region: the structure whose mask restricts the CT (None: the whole CT).
    mask_channels: structures appended to the CT as channels of 0 and 1.
    column: the last word of its columns' names, where that is not the stage's own name.
    title: how it is called in the titles of its columns, where its targets and inputs do not tell it from others.
    Raises: SettingsError for an end-to-end stage that takes a mask, or a stage without a target.
    """

    name: str
    number: int
    targets: tuple[Structure, ...]
    kind: Kind = Kind.CASCADE
    region: Structure | None = None
    mask_channels: tuple[Structure, ...] = ()
    column: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise SettingsError(f"stage {self.name}: expected one target or several different ones, got {self.targets}")
        if self.kind is Kind.END_TO_END and self.needs:
            raise SettingsError(f"stage {self.name}: an end-to-end stage sees the CT alone, this one takes {self.needs}")

    @property
    def target(self) -> Structure:
        """The target of a stage that has one. Raises: SettingsError where it has several."""
        if len(self.targets) > 1:
            raise SettingsError(f"stage {self} has several targets: {self.target_names}; expected a stage with one")
        return self.targets[0]

    @property
    def target_names(self) -> str:
        """The targets in words, for example ``liver, crlm and flr``."""
        *first, last = (str(target) for target in self.targets)
        return f"{', '.join(first)} and {last}" if first else last

    @property
    def needs(self) -> tuple[Structure, ...]:
        """The masks that this stage takes beside the CT, in the order of the cascade."""
        return (*((self.region,) if self.region else ()), *self.mask_channels)

    @property
    def inputs(self) -> tuple[Inputs, ...]:
        """The ways in which it is evaluated. One that takes the CT alone has one: pipelined and cascaded would be the same."""
        if self.kind is Kind.END_TO_END:
            return (Inputs.E2E,)
        return (Inputs.PIPELINED, Inputs.CASCADED) if self.needs else (Inputs.PIPELINED,)

    def column_name(self, inputs: Inputs, target: Structure) -> str:
        """Folder name and key of one of its columns, for example ``cascaded_flr``; of several targets, with the target."""
        return "_".join([inputs.value, self.column or self.name, *([target.value] if len(self.targets) > 1 else [])])

    def column_title(self, inputs: Inputs, target: Structure) -> str:
        """As in the paper's tables, for example ``cascaded FLR (L+T+CT)``."""
        kind = "E2E" if inputs is Inputs.E2E else str(inputs)
        seen = "+".join([*(STRUCTURES[s].letter for s in self.needs), "CT"])
        return " ".join(filter(None, (kind, self.title, STRUCTURES[target].short_title, f"({seen})")))

    def __str__(self) -> str:
        return self.name


def stage_table(stages: Iterable[Stage]) -> Mapping[str, Stage]:
    """The stages by name. Raises: SettingsError where two share a name, a number, or the name or title of a column."""
    table = tuple(stages)
    columns = [(stage, inputs, target) for stage in table for inputs in stage.inputs for target in stage.targets]
    for what, values in (
        ("name", [stage.name for stage in table]),
        ("number", [str(stage.number) for stage in table]),
        ("column", [stage.column_name(inputs, target) for stage, inputs, target in columns]),
        ("column title", [stage.column_title(inputs, target) for stage, inputs, target in columns]),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise SettingsError(f"stages: the {what} {', '.join(twice)} occurs twice; give each stage its own")
    return MappingProxyType({stage.name: stage for stage in table})


LIVER = Stage("liver", 501, (Structure.LIVER,))
CRLM = Stage("crlm", 502, (Structure.CRLM,), region=Structure.LIVER)
FLR = Stage("flr", 503, (Structure.FLR,), region=Structure.LIVER, mask_channels=(Structure.CRLM,))
FLR_E2E = Stage("flr_e2e", 504, (Structure.FLR,), Kind.END_TO_END, column="flr")
MULTI = Stage("multi", 505, (Structure.LIVER, Structure.CRLM, Structure.FLR), Kind.END_TO_END, title="multi-class")

PAPER_STAGES: tuple[Stage, ...] = (LIVER, CRLM, FLR, FLR_E2E)
"""Stages 1 to 3 of Fig. 1b and the end-to-end model (arXiv:2604.07999, section 3.2): what is trained, served and compared by default."""

STAGES: Mapping[str, Stage] = stage_table((*PAPER_STAGES, MULTI))
"""All stages by name, the paper's first. ``multi`` is not the paper's: one network for all structures, from the CT alone."""

CASCADE: tuple[Stage, ...] = (LIVER, CRLM, FLR)
"""The order of prediction; each stage's masks are given or come from the stages before it."""


def stages_before(stage: Stage) -> tuple[Stage, ...]:
    """The stages of the cascade that predict what a stage needs, in their order."""
    needed = set(stage.needs)
    for earlier in reversed(CASCADE):
        if needed & set(earlier.targets):
            needed |= set(earlier.needs)
    return tuple(earlier for earlier in CASCADE if needed & set(earlier.targets))


def stage_named(name: str) -> Stage:
    """The stage of that name. Raises SettingsError naming the known ones."""
    try:
        return STAGES[name]
    except KeyError:
        raise SettingsError(f"unknown stage {name!r}; known are {', '.join(STAGES)}") from None


def known_stage(stage: Any) -> Any:
    """The stage, for requests. Raises SettingsError for what is not one of :data:`STAGES`, a stage's name among them."""
    if stage not in STAGES.values():
        raise SettingsError(f"stage {stage!r}: expected one of flrplan.STAGES[name], where name is {', '.join(STAGES)}")
    return stage
