"""The table of rules, and the one function that applies them. A new rule is a file in :mod:`flrplan.qc.rules` and a row here."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flrplan.errors import SettingsError
from flrplan.qc.case import QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule
from flrplan.qc.rules import (
    contrast_phase,
    flr_pieces,
    grids,
    in_view,
    islands,
    missed,
    not_liver,
    outside,
    oversegmented,
    partition,
    punctate,
    rough,
    shell,
    swapped,
    voids,
    volumes,
)

_LOG = logging.getLogger(__name__)

RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        grids.RULE,
        swapped.RULE,
        volumes.RULE,
        not_liver.RULE,
        in_view.RULE,
        in_view.THICK_RULE,
        contrast_phase.RULE,
        islands.RULE,
        voids.RULE,
        rough.LIVER_RULE,
        outside.CRLM_RULE,
        punctate.RULE,
        missed.RULE,
        oversegmented.RULE,
        outside.FLR_RULE,
        partition.RULE,
        flr_pieces.RULE,
        rough.FLR_RULE,
        shell.RULE,
    )
}
"""By name, in the order in which they are told."""

Settings = Mapping[str, Mapping[str, float]]
"""Thresholds by rule and name, where they are not the defaults."""


@dataclass(frozen=True)
class Checked:
    """What was said about one case. not_checked: for each rule that lacked something, what it lacked."""

    case: str
    findings: tuple[Finding, ...]
    not_checked: Mapping[str, str]

    def count(self, severity: Severity) -> int:
        """How many findings of one severity."""
        return sum(f.severity is severity for f in self.findings)

    @property
    def score(self) -> float:
        """How bad, for sorting: 3 to 4 with errors, 2 to 3 with warnings at worst, 1 to 2 with notes, 0 without; more findings are more."""
        for severity in Severity:
            if count := self.count(severity):
                return len(Severity) - severity.rank + 1 - 1 / count
        return 0.0


def check_case(case: QcCase, settings: Settings | None = None, rules: Collection[str] | None = None) -> Checked:
    """Applies the rules (None: all) to a case; the worst findings come first.

    A rule that fails unexpectedly is a warning, and among those not checked. What a rule found in this case is kept, and not looked for again
    with the same thresholds. Raises: SettingsError for an unknown rule or threshold.
    """
    chosen = check_settings(settings or {}, RULES if rules is None else rules)
    found: list[Finding] = []
    not_checked: dict[str, str] = {}
    for name, thresholds in chosen.items():
        rule = RULES[name]
        if lacking := rule.lacks(case):
            not_checked[name] = lacking
            continue
        same = (name, *thresholds.values())
        try:
            if same not in case.found:
                case.found[same] = list(rule.find(case, **thresholds))
            said = case.found[same]
        except Exception as error:  # a label nobody thought of: it costs one rule, not the plan or the case; the log says where
            _LOG.exception("case %s, rule %s", case.name, name)
            not_checked[name] = f"failed: {type(error).__name__}: {error}"
            message = (
                f"{rule.title}: not checked, the rule failed ({type(error).__name__}: {error}); look yourself, and report it"
            )
            said = [Finding(case.name, name, Severity.WARNING, message)]
        found += [replace(f, rule=rule.name, source=rule.source) for f in said]
    return Checked(case.name, tuple(sorted(found, key=lambda f: f.severity.rank)), not_checked)


def check_settings(settings: Settings, rules: Collection[str] = tuple(RULES)) -> dict[str, dict[str, float]]:
    """The thresholds of each rule. Raises: SettingsError for an unknown rule or threshold, or one that is no number."""
    unknown = sorted(map(str, {*settings, *rules} - set(RULES)))
    if unknown:
        raise SettingsError(f"unknown rules {', '.join(unknown)}; known are {', '.join(RULES)}")
    result = {}
    for name in RULES:
        if name not in rules:
            continue
        own: dict[str, float] = {t.name: t.value for t in RULES[name].thresholds}
        given: Mapping[str, Any] = settings.get(name, {})
        for key, value in given.items():
            if key not in own:
                raise SettingsError(f"rule {name}: unknown threshold {key}; known are {', '.join(own) or 'none'}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise SettingsError(f"rule {name}: {key} must be a finite number, got {value!r}")
            own[key] = float(value)
        result[name] = own
    return result
