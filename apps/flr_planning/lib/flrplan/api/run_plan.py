"""From what a cascade predicts to a plan: coherent, with second opinions and its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from flrplan.anatomy import Mask, Structure
from flrplan.engine import Cascade, NoteStep, TakeProbability
from flrplan.errors import ModelError
from flrplan.image import CT
from flrplan.method import CASCADE, FLR, CascadeResult, Probability, Stage
from flrplan.planning import Interval, Plan
from flrplan.planning.calibration import CALIBRATION_NAME, Calibration, settings_of_run, uncalibrated
from flrplan.planning.evidence import Evidence, disagreement_of, evidence_of
from flrplan.workfolder import ModelIdentity


def run_plan(
    cascade: Cascade,
    ct: CT,
    given: Mapping[Structure, Mask],
    stages: Sequence[Stage] = CASCADE,
    on_step: NoteStep | None = None,
    raw: bool = False,
    disagreement: bool = False,
    on_probability: TakeProbability | None = None,
) -> Plan:
    """The plan of what a cascade gives for these stages, coherent unless ``raw``; arguments and Raises as :meth:`flrplan.engine.cascade.Cascade.run`.

    A predicted remnant is shown to the second opinions of the cascade's settings: each architecture's FLR model predicts it on the plan's own liver
    and metastases. The masks stay as they are; the interval, the disagreement and a warning know of them. Of a raw plan the disagreement alone does.
    """
    if raw:
        folds: list[Probability] = []
        if disagreement:
            _require_opinions(cascade, stages, given)
        plan = Plan(
            cascade.run(ct, given, stages, on_step, on_probability, {Structure.FLR: folds.extend} if disagreement else None)
        )
        if cascade.settings.also and FLR.name in plan.result.models:
            if not disagreement:
                note = (
                    "second opinions were not asked for: a raw plan has no interval; plan without --raw, or with --disagreement"
                )
                return replace(plan, result=replace(plan.result, warnings=(*plan.result.warnings, note)))
            for name, second, _ in _second_opinions(cascade, plan.result, on_step, folds):
                plan = _with_opinion(plan, name, second)
        return _with_disagreement(plan, folds)
    plan, evidence = coherent_plan(cascade, ct, given, stages, on_step, disagreement, on_probability)
    return plan if evidence is None else replace(plan, interval=interval_of(cascade, evidence, plan.result.models))


def coherent_plan(
    cascade: Cascade,
    ct: CT,
    given: Mapping[Structure, Mask],
    stages: Sequence[Stage] = CASCADE,
    on_step: NoteStep | None = None,
    disagreement: bool = False,
    on_probability: TakeProbability | None = None,
) -> tuple[Plan, Evidence | None]:
    """The coherent plan without its interval, and what there is to be sure or unsure of it; None unless its FLR is predicted."""
    flr: list[Probability] = []
    folds: list[Probability] = []
    _require_opinions(cascade, stages, given)

    def keep_flr(structure: Structure, probability: Probability) -> None:
        if structure is Structure.FLR:
            flr.append(probability)
        if on_probability is not None:
            on_probability(structure, probability)

    result = cascade.run(ct, given, stages, on_step=on_step, on_probability=keep_flr, on_folds={Structure.FLR: folds.extend})
    plan = Plan.coherent(result, flr[0] if flr else None)
    evidence = None
    if plan.raw is not None and flr and Structure.CRLM in result.masks:
        evidence = evidence_of(result, plan.masks[Structure.FLR], flr[0], folds, plan.checked)
    if evidence is not None and cascade.settings.also and FLR.name in result.models:
        fractions = {cascade.settings.architecture: evidence.flr_fraction}
        for name, second, probability in _second_opinions(cascade, result, on_step, folds if disagreement else None):
            fractions[name] = Plan.coherent(second, probability).volumes.flr_fraction
            plan = _with_opinion(plan, name, second)
        evidence = replace(evidence, architecture_fractions=fractions)
    return _with_disagreement(plan, folds if disagreement else []), evidence


def _require_opinions(cascade: Cascade, stages: Sequence[Stage], given: Mapping[Structure, Mask]) -> None:
    """Raises ModelError where the FLR model of a second opinion that will be asked for is missing: before minutes of work, not after."""
    if FLR not in stages or Structure.FLR in given:
        return
    for name in cascade.settings.architectures[1:]:
        try:
            cascade.store.find(FLR, name)
        except ModelError as error:
            raise ModelError(f"second opinion by {name}: {error}; or plan without it") from error


def _second_opinions(
    cascade: Cascade, first: CascadeResult, on_step: NoteStep | None, folds: list[Probability] | None
) -> Iterator[tuple[str, CascadeResult, Probability]]:
    """By each further architecture, what it gives on the liver and metastases of ``first``, and its FLR's probability.

    folds: is filled with its folds'; None: they are not asked for.
    """
    given = {structure: first.masks[structure] for structure in FLR.needs}
    for name in cascade.settings.architectures[1:]:
        found: dict[Structure, Probability] = {}
        tell = None if on_step is None else (lambda step, name=name: on_step(f"{step}, second opinion by {name}"))
        of_folds = None if folds is None else {Structure.FLR: folds.extend}
        second = cascade.second_opinion(name).run(first.ct, given, (FLR,), tell, found.__setitem__, of_folds)
        yield name, second, found[Structure.FLR]


def _with_opinion(plan: Plan, name: str, second: CascadeResult) -> Plan:
    """The same plan, with the model of a second opinion in its record, and what must be said of it."""
    first = plan.result
    place = f"{FLR}/{name}"
    of_model = f"{FLR}: "  # what is said of a model is said of each
    told = [f"{name}: {said}" for said in second.warnings if said.startswith(of_model) or said not in first.warnings]
    joined = replace(
        first,
        models={**first.models, place: second.models[FLR.name]},
        seconds={**first.seconds, **{step.replace(FLR.name, place, 1): s for step, s in second.seconds.items()}},
        warnings=(*first.warnings, *told),
    )
    return replace(plan, result=joined)


def _with_disagreement(plan: Plan, folds: Sequence[Probability]) -> Plan:
    liver = plan.masks.get(Structure.LIVER)
    return replace(plan, disagreement_zyx=disagreement_of(liver, folds)) if folds and liver is not None else plan


def interval_of(cascade: Cascade, evidence: Evidence, models: Mapping[str, ModelIdentity]) -> Interval:
    """The interval by the calibration of these very models, run as the cascade runs them, or why there is none. Raises: ModelError."""
    settings = cascade.settings
    ran = settings_of_run(settings.mirroring, settings.largest_liver)
    for path in cascade.store.files(CALIBRATION_NAME):
        calibration = Calibration.read(path, *settings.architectures)
        if calibration is not None and calibration.is_of(models, ran):
            return calibration.interval(evidence)
    also = f" --also {','.join(settings.architectures[1:])}" if settings.also else ""
    return uncalibrated(
        evidence, f"there is no calibration of these models, run in this way (flrplan calibrate{also} makes one)"
    )
