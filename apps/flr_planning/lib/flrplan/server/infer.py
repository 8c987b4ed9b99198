"""The infer tasks: one class for the stages of the paper, one for the cascade."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from flrplan.anatomy import Structure
from flrplan.api.plan import patient_of_ct
from flrplan.api.run_plan import run_plan
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.errors import FlrError
from flrplan.image import read_ct
from flrplan.method import CASCADE, PAPER_STAGES, CascadeResult, Probability, Stage
from flrplan.planning import Clinical, Plan
from flrplan.server.annotations import given_masks, used_label
from flrplan.server.answer import answer, models_said
from flrplan.server.current import CurrentPlans, current_of, image_stamp_of
from flrplan.server.host import IMAGE_ID, image_path
from flrplan.server.label_table import COMPARTMENT_NAMES
from flrplan.server.measure import MEASURE, MeasureTask
from flrplan.server.options import InferOptions, PlanKind, client_config, inputs_for
from flrplan.server.result_file import ResultFormat, write_result
from flrplan.server.settings import AppSettings
from flrplan.server.studies import PlanningDatastore

logger = logging.getLogger(__name__)

CASCADE_TASK = "cascade"


@dataclass
class Service:
    """What all tasks share: models stay warm in one store, and one inference runs at a time (endpoints may use threads).

    keep_plan: keeps the plan of an answer to be read, and returns its place below the server's address; ``flrplan serve`` sets it.
    current: the plans that clients work on, which clicks correct.
    """

    settings: AppSettings
    store: ModelStore
    datastore: PlanningDatastore
    lock: threading.Lock = field(default_factory=threading.Lock)
    keep_plan: Callable[[Plan], str] | None = None
    current: CurrentPlans = field(default_factory=CurrentPlans)


class PlanningTask(InferTask):  # type: ignore[misc]  # monailabel is untyped
    """A CT of the datastore, and perhaps the annotator's masks, to one label file and its ``params``.

    plans: the answer holds a remnant inside a liver, of a coherent plan or raw.
    """

    plans = False

    def __init__(
        self, stages: Sequence[Stage], needs: Sequence[Structure], names: Mapping[str, int], description: str, service: Service
    ) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=dict(names),
            dimension=3,
            description=description,
            config=client_config(service.settings, inputs_for(needs), self.plans),
        )
        self._stages = tuple(stages)
        self._names = dict(names)
        self._service = service

    def is_valid(self) -> bool:
        """Always: a model may be put in place later, and one that is missing is a clear error of the call."""
        return True

    @abstractmethod
    def label_map(self, result: CascadeResult) -> NDArray[np.uint8]:
        """The label ``(Z, Y, X) uint8`` that this task answers with; values are those of its ``labels``."""

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Path of the label file and its params. Raises FlrError, whose message is meant for the user."""
        options = InferOptions.from_request(request, self.config())
        wanted = ResultFormat.from_request(request)
        settings = self._service.settings
        with self._service.lock:
            started = perf_counter()
            path = image_path(request, self._service.datastore)
            image_stamp = image_stamp_of(path)
            ct = read_ct(path)
            patient, notes = patient_of_ct(options.patient, path, None) if self.plans else (options.patient, [])
            ct = replace(ct, warnings=(*ct.warnings, *notes))
            given = given_masks(self._service.datastore, request.get(IMAGE_ID), ct, options.inputs)
            label_used, warnings = used_label(self._service.datastore, request.get(IMAGE_ID), options.inputs)
            read = perf_counter()
            cascade = Cascade(
                self._service.store,
                CascadeSettings(
                    options.architecture,
                    options.device,
                    settings.mirroring,
                    settings.largest_liver,
                    settings.engine,
                    tuple(name for name in settings.also if name != options.architecture),
                ),
            )
            raw = options.plan is PlanKind.RAW
            probabilities: dict[Structure, Probability] = {}
            plan = run_plan(cascade, ct, given, self._stages, logger.info, raw, on_probability=probabilities.__setitem__)
            plan = replace(plan, clinical=Clinical(patient, options.liver_state))
            predicted = perf_counter()
            label = self.label_map(plan.result)
            path = write_result(label, ct.geometry, self._names, wanted)
            self._keep_current(request, plan, probabilities, image_stamp)
        params = answer(plan, label, self._names, options, {"read": read - started, "write": perf_counter() - predicted})
        params |= {"label": label_used, "warnings": [*warnings, *params["warnings"]]}
        params["seconds"]["total"] = round(perf_counter() - started, 3)  # with the checks of the plan, which the answer makes
        if self.plans and self._service.keep_plan is not None:
            try:
                params["report"] = self._service.keep_plan(plan)
            except FlrError as error:
                params["warnings"].append(f"no report of this answer can be read: {error}")
        return str(path), params

    def _keep_current(
        self, request: Mapping[str, Any], plan: Plan, probabilities: Mapping[Structure, Probability], image_stamp: str
    ) -> None:
        """What clicks correct from now on."""
        datastore, image_id = self._service.datastore, request.get(IMAGE_ID)
        stamp = None if image_id is None else datastore.label_stamp(image_id)
        current = current_of(plan, probabilities, models_said(plan.result), image_stamp, stamp)
        if current is not None:
            self._service.current.keep(request, image_path(dict(request), datastore), current)


class StageTask(PlanningTask):
    """One stage: its target as label 1. Masks that it takes and nobody gives are predicted by the stages before it."""

    def __init__(self, stage: Stage, service: Service) -> None:
        takes = f" from the CT and {', '.join(s.value for s in stage.needs)}" if stage.needs else " from the CT alone"
        self.plans = stage.target is Structure.FLR and Structure.LIVER in stage.needs
        super().__init__((stage,), stage.needs, {stage.target.value: 1}, f"{stage.target}{takes}", service)
        self._target = stage.target

    def label_map(self, result: CascadeResult) -> NDArray[np.uint8]:
        """The target's mask as 0 and 1; it may be empty for a tumour or a remnant."""
        return result.masks[self._target].astype(np.uint8)


class CascadeTask(PlanningTask):
    """Liver, metastases and future liver remnant in one go, as the four compartments of the planning map."""

    plans = True

    def __init__(self, service: Service) -> None:
        needs = tuple(dict.fromkeys(structure for stage in CASCADE for structure in stage.needs))
        description = f"compartments of the plan: {', then '.join(stage.name for stage in CASCADE)}"
        super().__init__(CASCADE, needs, COMPARTMENT_NAMES, description, service)

    def label_map(self, result: CascadeResult) -> NDArray[np.uint8]:
        """The planning map; what does not nest is left out here and named in the warnings."""
        return result.planning_map()[0]


def infer_tasks(service: Service) -> dict[str, PlanningTask | MeasureTask]:
    """All tasks by name: the stages of the paper, the cascade, and ``measure``."""
    stages = {stage.name: StageTask(stage, service) for stage in PAPER_STAGES}
    return {**stages, CASCADE_TASK: CascadeTask(service), MEASURE: MeasureTask(service.datastore)}
