"""``calibration.json``: what the errors of some models were on cases with a known remnant; from it the interval of a new case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.errors import ModelError
from flrplan.planning.coherent import COHERENT, METHOD
from flrplan.planning.conformal import PredictiveDistribution, predictive_distribution
from flrplan.planning.evidence import Evidence
from flrplan.planning.interval import COVERAGE, THRESHOLDS_PERCENT, Bounds, Interval
from flrplan.workfolder import ModelIdentity
from flrplan.workfolder.records import read_record, write_record

CALIBRATION_NAME = "calibration.json"
"""In a folder of models, beside their stages."""

LEAST_CASES = 30
"""Below this there is no interval. Of 19 cases the outermost ends are a 90 % interval; the rest is for what is learned from them."""

_BEYOND = 0.1
"""A case is like the others up to so much of their range beyond it, and up to a hundredth of its end, where they are all the same."""
_CASES = "cases"


@dataclass(frozen=True)
class KnownCase:
    """What a case with a known remnant adds: the evidence of its plan, and the truth (remnant parenchyma, ml and over all parenchyma)."""

    evidence: Evidence
    true_flr_ml: float
    true_flr_fraction: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.evidence.to_json(),
            "true_flr_ml": round(self.true_flr_ml, 2),
            "true_flr_fraction": round(self.true_flr_fraction, 5),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> KnownCase:
        """From plain values. Raises TypeError, KeyError or ValueError for others, and for shares and volumes that are none."""
        rest = dict(content)
        truth = {name: rest.pop(name) for name in ("true_flr_ml", "true_flr_fraction")}
        known = cls(Evidence.from_json(rest), **truth)
        of = known.evidence
        shares = [of.flr_fraction, of.raw_flr_fraction, of.soft_fraction, of.undecided, known.true_flr_fraction]
        shares += [*of.fold_fractions, *of.architecture_fractions.values()]
        volumes = [known.true_flr_ml, of.crlm_ml, of.slice_mm]
        if not (all(0 <= share <= 1 for share in shares) and all(v >= 0 for v in volumes) and of.parenchyma_ml > 0):
            raise ValueError("expected shares of 0 to 1, volumes of 0 ml and more, and parenchyma")
        return known


@dataclass(frozen=True)
class Calibration:
    """The known cases of one set of models.

    models: of each stage, what its answers depend on (:attr:`flrplan.workfolder.records.ModelIdentity.decides`), of a second opinion under
    ``flr/<architecture>``. settings: how they ran.
    calibrated_on: what the cases are, in words, plural. cases: by id, of each kind of inputs.
    """

    models: Mapping[str, Any]
    settings: Mapping[str, Any]
    calibrated_on: str
    cases: Mapping[str, Mapping[str, KnownCase]]

    @classmethod
    def read(cls, path: Path, *architectures: str) -> Calibration | None:
        """That of an architecture, or of one and its second opinions; None where it is not there. Raises ModelError for a damaged one."""
        content = read_record(path, ModelError).get(_together(architectures))
        if content is None:
            return None
        try:
            cases = {
                case: {kind: KnownCase.from_json(known) for kind, known in kinds.items()}
                for case, kinds in content[_CASES].items()
            }
            _require_opinions(cases, _together(architectures).split("+"))
            return cls(content["models"], content["settings"], str(content["calibrated_on"]), cases)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ModelError(f"{path} is damaged ({error}); copy it again, or make it anew: flrplan calibrate") from error

    def write(self, path: Path, *architectures: str) -> None:
        """Writes it beside those of others. Raises OutputError."""
        cases = {case: {kind: known.to_json() for kind, known in kinds.items()} for case, kinds in sorted(self.cases.items())}
        own = {"models": self.models, "settings": self.settings, "calibrated_on": self.calibrated_on, _CASES: cases}
        write_record(path, {**read_record(path, ModelError), _together(architectures): own})

    def is_of(self, models: Mapping[str, ModelIdentity], settings: Mapping[str, Any]) -> bool:
        """Whether these models, run in this way, are those of the known cases: all that ran, and no second opinion more or less."""
        opinions, own = ({name for name in of if "/" in name} for of in (models, self.models))
        same = opinions == own and all(self.models.get(stage) == model.decides for stage, model in models.items())
        return same and dict(self.settings) == dict(settings)

    def of_kind(self, inputs: str) -> list[KnownCase]:
        """The known cases with these inputs that label QC has nothing against, by id."""
        found = (kinds[inputs] for _, kinds in sorted(self.cases.items()) if inputs in kinds)
        return [known for known in found if not known.evidence.unlike]

    def interval(self, evidence: Evidence) -> Interval:
        """The interval of a new case, or why there is none."""
        known = self.of_kind(evidence.inputs)
        unsure = Interval(
            evidence.inputs,
            len(known) >= LEAST_CASES,
            len(known),
            calibrated_on=self.calibrated_on,
            fold_fractions=evidence.fold_fractions,
            architecture_fractions=evidence.architecture_fractions,
        )
        if not unsure.calibrated:
            there = f"{len(known)} {self.calibrated_on} with these inputs ({evidence.inputs})"
            return replace(unsure, not_valid=(f"the models met {there}, at least {LEAST_CASES} are needed",))
        if reasons := (*evidence.unlike, *_out_of_range(evidence, [k.evidence for k in known])):
            return replace(unsure, not_valid=tuple(reasons))
        fraction = _distribution(known, evidence, [k.true_flr_fraction for k in known])
        # Over the plan's own parenchyma, so that a liver of another size is no error by itself.
        of_plan = _distribution(known, evidence, [k.true_flr_ml / k.evidence.parenchyma_ml for k in known])
        low, high = of_plan.bounds(COVERAGE)
        return replace(
            unsure,
            flr_fraction=Bounds(*(float(np.clip(end, 0, 1)) for end in fraction.bounds(COVERAGE))),
            flr_ml=Bounds(max(low, 0.0) * evidence.parenchyma_ml, high * evidence.parenchyma_ml),
            below={t: fraction.below(t / 100) for t in THRESHOLDS_PERCENT},
        )


def _together(architectures: Sequence[str]) -> str:
    """What a calibration is filed under: the architecture, or it and its second opinions: ``nnunet+stunet``."""
    return "+".join(architectures)


def _require_opinions(cases: Mapping[str, Mapping[str, KnownCase]], architectures: Sequence[str]) -> None:
    """Raises ValueError unless every case has the FLR of each of several architectures, or of none where there is one."""
    expected = {*architectures} if len(architectures) > 1 else set()
    for case, kinds in cases.items():
        for known in kinds.values():
            if {*known.evidence.architecture_fractions} != expected:
                raise ValueError(f"case {case} is not of the architectures {', '.join(architectures)}")


def settings_of_run(mirroring: bool, largest_liver: bool) -> dict[str, Any]:
    """What, beside the models, an error depends on."""
    return {"mirroring": mirroring, "largest_liver": largest_liver, "coherent": {**asdict(COHERENT), "method": METHOD}}


def features_of(evidence: Evidence) -> NDArray[np.float64]:
    """What location and scale of the error are learned from; the folds' spread and the tumours' volume added nothing (docs/uncertainty.md).

    With second opinions also how far the mean of all architectures lies from the plan, and their spread (standard deviation).
    """
    own = [evidence.flr_fraction, evidence.soft_fraction - evidence.flr_fraction, evidence.undecided]
    of_all = [*evidence.architecture_fractions.values()]
    return np.array([*own, np.mean(of_all) - evidence.flr_fraction, np.std(of_all)] if of_all else own)


def _distribution(known: list[KnownCase], new: Evidence, true: list[float]) -> PredictiveDistribution:
    features = np.array([features_of(k.evidence) for k in known])
    predicted = np.array([k.evidence.flr_fraction for k in known])
    return predictive_distribution(features, predicted, np.array(true), features_of(new), new.flr_fraction)


def _out_of_range(new: Evidence, known: list[Evidence]) -> list[str]:
    """In what a case lies outside the known ones. Thinner slices than theirs are no reason: the networks see them at their own spacing."""
    found = []
    for name, words, scale, both in (
        ("slice_mm", "slices of {:.1f} mm, theirs {:.1f} to {:.1f} mm", 1, False),
        ("liver_hu", "a liver of {:.0f} HU, theirs {:.0f} to {:.0f} HU", 1, True),
        ("aorta_hu", "an aorta of {:.0f} HU, theirs {:.0f} to {:.0f} HU", 1, True),
        ("parenchyma_ml", "a liver without metastases of {:.0f} ml, theirs {:.0f} to {:.0f} ml", 1, True),
        ("crlm_ml", "metastases of {:.0f} ml, theirs {:.0f} to {:.0f} ml", 1, True),
        ("undecided", "networks that are undecided about {:.0f} % of the liver, there about {:.0f} to {:.0f} %", 100, False),
    ):
        values = [scale * of for k in known if (of := getattr(k, name)) is not None]
        if getattr(new, name) is None or not values:
            continue
        value, low, high = scale * getattr(new, name), min(values), max(values)
        slack = max(_BEYOND * (high - low), 0.01 * abs(high))
        if value > high + slack or (both and value < low - slack):
            found.append(words.format(value, low, high))
    return found


def uncalibrated(evidence: Evidence, reason: str) -> Interval:
    """No interval, since there is no calibration."""
    return Interval(
        evidence.inputs,
        False,
        0,
        not_valid=(reason,),
        fold_fractions=evidence.fold_fractions,
        architecture_fractions=evidence.architecture_fractions,
    )
