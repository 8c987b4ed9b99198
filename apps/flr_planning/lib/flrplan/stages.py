"""The four stages of the paper as data. Everything else (training, server, benchmark, report) derives from this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from flrplan.errors import SettingsError
from flrplan.labels import Structure
from flrplan.networks.table import TABLE


@dataclass(frozen=True)
class Stage:
    """One prediction task: what it segments, which masks restrict the CT, which masks become channels.

    ``region``: the structure whose mask restricts the CT (None: the whole CT).
    ``mask_channels``: structures appended to the CT as channels of 0 and 1.
    """

    name: str
    target: Structure
    region: Structure | None = None
    mask_channels: tuple[Structure, ...] = ()

    @property
    def needs(self) -> tuple[Structure, ...]:
        """The masks that this stage takes beside the CT, in the order of the cascade."""
        return (*((self.region,) if self.region else ()), *self.mask_channels)

    def __str__(self) -> str:
        return self.name


LIVER = Stage("liver", Structure.LIVER)
CRLM = Stage("crlm", Structure.CRLM, region=Structure.LIVER)
FLR = Stage("flr", Structure.FLR, region=Structure.LIVER, mask_channels=(Structure.CRLM,))
FLR_E2E = Stage("flr_e2e", Structure.FLR)

STAGES: Mapping[str, Stage] = MappingProxyType({s.name: s for s in (LIVER, CRLM, FLR, FLR_E2E)})
"""All stages by name: stages 1 to 3 of Fig. 1b and the end-to-end model (arXiv:2604.07999, section 3.2)."""

CASCADE: tuple[Stage, ...] = (LIVER, CRLM, FLR)
"""The order of prediction; each stage's masks are given or come from the stages before it."""

ARCHITECTURES: tuple[str, ...] = tuple(TABLE)
"""Names of the architectures that can be trained and served (:mod:`flrplan.networks.table`); the first is the default."""


def stage_named(name: str) -> Stage:
    """The stage of that name. Raises SettingsError naming the known ones."""
    try:
        return STAGES[name]
    except KeyError:
        raise SettingsError(f"unknown stage {name!r}; known are {', '.join(STAGES)}") from None
