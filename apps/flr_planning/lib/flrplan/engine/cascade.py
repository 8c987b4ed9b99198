"""From a CT, and the masks that are given, to all structures: stage by stage, each mask given or predicted.

``inputs predicted`` is the paper's cascade (Fig. 1b, dotted lines); with ground truth given it is the paper's pipelined task.
An empty liver is an error, an empty CRLM is an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
import torch
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.engine.cache import Detail, StagePrediction, digest_of_array
from flrplan.engine.models import DEMO_NOTE, FINE_TUNED_NOTE, ModelStore
from flrplan.errors import DeviceMemoryError, EmptyLiverError, GridError
from flrplan.hardware import choose_device
from flrplan.image import CT
from flrplan.image.finite import require_unmasked
from flrplan.method import CASCADE, CascadeResult, Probability, Source, Stage, build_stage_input
from flrplan.method.engine import engine_named
from flrplan.networks import require_second_opinions
from flrplan.nnunet.model import StagePredictor
from flrplan.qc import liver_in_view_findings
from flrplan.workfolder import ModelIdentity

logger = logging.getLogger(__name__)

NoteStep = Callable[[str], None]
TakeProbability = Callable[[Structure, Probability], object]
TakeFolds = Mapping[Structure, Callable[[tuple[Probability, ...]], object]]
Prediction = tuple[Mask, Probability | None, tuple[Probability, ...]]


@dataclass(frozen=True)
class CascadeSettings:
    """How the cascade runs.

    mirroring: nnU-Net's test-time mirroring; on in the benchmark ("standard nnU-Net inference"), off in the app, where it
        would multiply the waiting time by up to 8.
    largest_liver: keep only the largest connected piece of a PREDICTED liver, and say what was dropped. On in the app: the
        liver has one piece, and an island would widen the region of the next stages. Off in the benchmark (raw masks).
    engine: how the networks are run; one of :data:`flrplan.method.engine.ENGINES`, with changes or without; :data:`~flrplan.method.engine.APP_ENGINE` in the app.
    also: further architectures, whose FLR models give second opinions on a predicted remnant (:mod:`flrplan.api.run_plan`); the masks stay those
        of ``architecture``.
    Raises: SettingsError for a second opinion that is unknown, named twice, or the first.
    """

    architecture: str = "nnunet"
    device: str = "auto"
    mirroring: bool = False
    largest_liver: bool = True
    engine: str = "nnunet"
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_second_opinions(self.architecture, self.also)

    @property
    def architectures(self) -> tuple[str, ...]:
        """All that take part, the masks' own first; in which order the others were named makes no difference."""
        return (self.architecture, *sorted(self.also))


@dataclass
class _Run:
    """The state of one run, filled stage by stage."""

    ct: CT
    masks: dict[Structure, Mask]
    sources: dict[Structure, Source]
    on_probability: TakeProbability | None
    on_folds: TakeFolds | None
    models: dict[str, ModelIdentity] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    digests: dict[Structure | None, bytes] = field(default_factory=dict)

    def key(self, stage: Stage, predictor: StagePredictor) -> bytes:
        """Digest of all that a prediction depends on: model and settings, the CT with its grid, and the masks that the stage takes."""
        for what in (None, *stage.needs):
            if what not in self.digests:
                self.digests[what] = (
                    digest_of_array(self.masks[what]) if what else digest_of_array(self.ct.array_zyx, self.ct.geometry)
                )
        return b"".join([predictor.decides, *(self.digests[what] for what in (None, *stage.needs))])


class Cascade:
    """Runs stages on a CT with models of a :class:`ModelStore` (None: the app's), which keeps them warm between calls.

    Raises: SettingsError for an unknown device, or a GPU that is not there.
    """

    def __init__(self, store: ModelStore | None = None, settings: CascadeSettings | None = None) -> None:
        self.store = store or ModelStore()
        self.settings = settings or CascadeSettings()
        self.device = choose_device(self.settings.device)
        self.engine = engine_named(self.settings.engine)

    def run(
        self,
        ct: CT,
        given: Mapping[Structure, Mask] | None = None,
        stages: Sequence[Stage] = CASCADE,
        on_step: NoteStep | None = None,
        on_probability: TakeProbability | None = None,
        on_folds: TakeFolds | None = None,
    ) -> CascadeResult:
        """Predicts what the stages ask for and what they need, unless it is given.

        Args:
            given: masks ``(Z, Y, X) bool`` on the CT's grid; a given mask is never predicted. CRLM without a liver: the
                liver is predicted.
            on_step: called with a short text before each step, for progress.
            on_probability: called with each predicted structure and its probability on the CT's grid, also with a liver that is
                then found empty; ``{}.__setitem__`` keeps them. Raw: pieces that are dropped from the mask are in it. None: no
                probability is made.
            on_folds: by structure what is called with the probability of each fold by itself; the mask stays the ensemble's. The
                networks run no more often for it, but each fold is resampled.

        Raises:
            EmptyLiverError: the given or the predicted liver is empty.
            GridError: a given mask has another shape. ModelError: a model is missing or damaged.
        """
        given = dict(given or {})
        for structure, mask in given.items():
            require_unmasked(mask, f"case {ct.name}: the given {structure}")
            if mask.shape != ct.geometry.shape_zyx:
                raise GridError(f"case {ct.name}: the given {structure} has shape {mask.shape}, the CT {ct.geometry.shape_zyx}")
        if Structure.LIVER in given and not given[Structure.LIVER].any():
            raise EmptyLiverError(f"case {ct.name}: the given liver mask is empty; draw the liver, or let it be predicted")
        run = _Run(ct, dict(given), dict.fromkeys(given, Source.GIVEN), on_probability, on_folds, warnings=list(ct.warnings))
        for stage in stages:
            self._provide(stage, run, on_step)
        if Structure.LIVER in run.masks:
            run.warnings += liver_in_view_findings(ct, run.masks[Structure.LIVER])
        if run.sources.get(Structure.FLR) is Source.PREDICTED and not run.masks[Structure.FLR].any():
            run.warnings.append("the predicted future liver remnant is empty; draw it by hand")
        if any(m.demo for m in run.models.values()):
            run.warnings.append(DEMO_NOTE)
        tuned = [name for name, m in run.models.items() if m.fine_tuned_from_demo]
        if tuned:
            run.warnings.append(f"{', '.join(tuned)}: {FINE_TUNED_NOTE}")
        return CascadeResult(ct, run.masks, run.sources, run.models, run.seconds, tuple(run.warnings))

    def _model(self, stage: Stage, device: torch.device) -> tuple[StagePredictor, ModelIdentity]:
        return self.store.predictor(stage, self.settings.architecture, device, self.settings.mirroring, self.engine)

    def second_opinion(self, architecture: str) -> Cascade:
        """The same cascade, store and device with the models of another architecture."""
        other = copy(self)
        other.settings = replace(self.settings, architecture=architecture, also=())
        return other

    def identity(self, stage: Stage) -> ModelIdentity:
        """Which model serves a stage here. Raises ModelError where none does."""
        return self._model(stage, self.device)[1]

    def _provide(self, stage: Stage, run: _Run, on_step: NoteStep | None) -> None:
        if all(target in run.masks for target in stage.targets):
            return
        for need in stage.needs:
            self._provide(next(s for s in CASCADE if need in s.targets), run, on_step)
        if on_step is not None:
            on_step(f"{run.ct.name}: {stage}")
        started = perf_counter()
        predictor, identity = self._model(stage, self.device)
        loaded = perf_counter()
        wanted = Detail.MASK if run.on_probability is None else Detail.PROBABILITY
        if run.on_folds is not None and not run.on_folds.keys().isdisjoint(stage.targets):
            wanted = Detail.FOLDS
        prediction = self._predicted(stage, predictor, run, wanted)
        run.warnings += prediction.said
        restore = prediction.place.restore
        for target, (mask, probability, folds) in prediction.targets.items():
            if target in run.masks:  # given, so not predicted
                continue
            if run.on_probability is not None and probability is not None:
                run.on_probability(target, restore(probability))
            if run.on_folds is not None and target in run.on_folds:
                run.on_folds[target](tuple(restore(fold) for fold in folds))
            mask = restore(mask)
            run.masks[target] = self._checked_liver(mask, run) if target is Structure.LIVER else mask
            run.sources[target] = Source.PREDICTED
        run.models[stage.name] = identity
        run.warnings += [f"{stage}: {warning}" for warning in predictor.folder.warnings]
        run.seconds[f"{stage}_load"] = round(loaded - started, 3)
        run.seconds[f"{stage}_predict"] = round(perf_counter() - loaded, 3)

    def _predicted(self, stage: Stage, predictor: StagePredictor, run: _Run, wanted: Detail) -> StagePrediction:
        """What a stage answers, as it was kept where nothing has changed; on the CPU where the accelerator's memory runs out."""

        def by(predictor: StagePredictor) -> StagePrediction:
            def compute() -> StagePrediction:
                given = build_stage_input(run.ct.array_zyx, run.ct.geometry, run.masks, stage, predictor.folder.input)
                said: list[str] = []
                targets: Mapping[Structure, Prediction]
                if wanted is Detail.FOLDS:
                    targets = predictor.predict_with_folds(given, said.append)
                elif wanted is Detail.PROBABILITY:
                    found = predictor.predict_with_probability(given, said.append)
                    targets = {target: (mask, p, ()) for target, (mask, p) in found.items()}
                else:
                    targets = {target: (mask, None, ()) for target, mask in predictor.predict(given, said.append).items()}
                return StagePrediction(given, targets, tuple(said))

            cache = self.store.cache
            return cache.get(run.key(stage, predictor), wanted, compute) if cache.most_bytes else compute()

        try:
            return by(predictor)
        except DeviceMemoryError as error:
            logger.warning("%s; predicting on the CPU", error)
        torch.cuda.empty_cache()  # out here nothing holds the failed attempt's tensors any more
        run.warnings.append(
            f"{stage}: the memory of {self.device} ran out; this stage was predicted on the CPU, which takes longer"
        )
        return by(self._model(stage, torch.device("cpu"))[0])

    def _checked_liver(self, liver: Mask, run: _Run) -> Mask:
        if not liver.any():
            raise EmptyLiverError(
                f"case {run.ct.name}: no liver was found in {run.ct.source}. Check that the CT shows the liver and that its "
                "orientation and HU are right, or give a liver mask"
            )
        if not self.settings.largest_liver:
            return liver
        box = ndimage.find_objects(liver.view(np.uint8))[0]
        pieces, count = ndimage.label(liver[box])
        if count == 1:
            return liver
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        kept = np.zeros_like(liver)
        kept[box] = pieces == sizes.argmax()
        dropped_ml = float(sizes.sum() - sizes.max()) * run.ct.geometry.voxel_volume_ml
        if dropped_ml > 0:
            what = "1 stray piece" if count == 2 else f"{count - 1} stray pieces"
            run.warnings.append(f"{what} of the predicted liver ({dropped_ml:.1f} ml) dropped")
        return kept
