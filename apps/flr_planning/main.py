"""The app that ``monailabel start_server --app apps/flr_planning --studies <folder or DICOMweb URL>`` loads.

A registry without model logic; everything it names lives in ``flrplan.server``. MONAI Label 0.8.5 takes the first class of this
file with a DIRECT base called ``MONAILabelApp``: keep it that way, and keep it the only one.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from monailabel.config import settings as host_settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy

from flrplan import __version__
from flrplan.active_learning import STRATEGIES, Scores
from flrplan.anatomy import KNOWN_LABEL_NAMES
from flrplan.clicks import BACKGROUND
from flrplan.engine import DEMO_NAME, ModelStore
from flrplan.errors import SettingsError
from flrplan.server.batch import PlanningBatch
from flrplan.server.case_scores import METHOD as CASE_SCORES
from flrplan.server.case_scores import CaseScores, ScoredStrategy, scores_of, serve_scoring
from flrplan.server.clicks import click_tasks
from flrplan.server.client_error import errors_for_client
from flrplan.server.dicomweb import PlanningDICOMWebDatastore, open_dicomweb
from flrplan.server.doors import require_known
from flrplan.server.host import find_seg_writer, name_segments, with_image_id
from flrplan.server.infer import Service, infer_tasks
from flrplan.server.infer_params import serve_infer_params
from flrplan.server.label_check import last_summary
from flrplan.server.label_qc import METHOD, LabelQc
from flrplan.server.label_table import label_colors, names_in_setting
from flrplan.server.ohif_colors import serve_ohif_colors
from flrplan.server.sessions import PlanningSessions
from flrplan.server.settings import AppSettings
from flrplan.server.studies import open_studies
from flrplan.server.train import StageTrainTask, TrainService, newest_first, train_tasks
from flrplan.server.train_queue import serve_train_queue
from flrplan.server.uploads import serve_uploads
from flrplan.server.worklist import HandOut, serve_worklist


class FlrPlanningApp(MONAILabelApp):  # type: ignore[misc]  # monailabel is untyped
    """Planning of liver surgery: infer tasks for liver, metastases and future liver remnant. For research use only."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str] | None) -> None:
        self.settings = AppSettings.from_conf(conf)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=dict(conf or {}),
            name="FLR planning",
            description="Liver, colorectal liver metastases and future liver remnant from a CT. For research use only.",
            version=__version__,
            labels=[
                *KNOWN_LABEL_NAMES,
                BACKGROUND,
            ],  # a list: OHIF appends to it; 3D Slicer's SmartEdit clicks no label but these
        )

    def init_infers(self) -> dict[str, InferTask]:
        """One task per stage and the cascade, which share one model store, ``measure``, and those that correct a plan."""
        self.service = Service(self.settings, self._store(), self.datastore())
        return {**infer_tasks(self.service), **click_tasks(self.service)}

    def init_trainers(self) -> dict[str, StageTrainTask]:
        """One task per stage, and the cascade in order; a new model is served from its next inference on."""
        return train_tasks(TrainService(self.settings, self._store(), self.studies))

    def init_strategies(self) -> dict[str, Strategy]:
        """Those of the table, among the cases that no other annotator has."""
        minutes = self.settings.lease_minutes
        return {name: HandOut(ScoredStrategy(row, self.case_scores), minutes) for name, row in STRATEGIES.items()}

    def init_batch_infer(self) -> PlanningBatch:
        """One image after the other, whatever becomes of the others."""
        return PlanningBatch()

    @cached_property
    def case_scores(self) -> Scores:
        """What strategies choose by."""
        return scores_of(self.service)

    def init_scoring_methods(self) -> dict[str, LabelQc | CaseScores]:
        """Label QC of the final labels, and the scores of the cases without one."""
        return {METHOD: LabelQc(), CASE_SCORES: CaseScores(self.case_scores)}

    def async_scoring(self, method: str | None, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Called by the host at its start, at each ``next`` and each saved label: a thread for label QC, not a process that loads the app."""
        scoring = self._scoring_methods.get(METHOD)  # the host has none with MONAI_LABEL_TASKS_SCORING=false
        if scoring is not None:
            scoring.in_background(self.datastore())
        return {}

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """What the stored label holds, for the answer of the host's endpoint, which 3D Slicer shows."""
        super().on_save_label(image_id, label_id)
        return last_summary(image_id)

    def on_init_complete(self) -> None:
        """Called by the host once its server is up."""
        super().on_init_complete()
        serve_ohif_colors()
        serve_infer_params()
        serve_uploads()
        serve_train_queue()
        serve_worklist(self.datastore)
        serve_scoring()

    def info(self) -> dict[str, Any]:
        """What clients ask first; with the labels' colours (RGB 0..255), for which MONAI Label has no field."""
        info: dict[str, Any] = super().info()
        return {**info, "train_stats": newest_first(info["train_stats"]), "label_colors": label_colors(KNOWN_LABEL_NAMES)}

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Runs a task; an error of ours reaches the client as its message."""
        with errors_for_client():
            require_known("model", request.get("model"), self._infers)
            sessions = None if self._sessions is None else self._sessions.store_path
            result: dict[str, Any] = super().infer(with_image_id(request, sessions), datastore)
        name_segments(request, result["params"])
        return result

    def infer_wsi(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Refused: this app plans from CTs; the host would open whatever path the request names."""
        with errors_for_client():
            raise SettingsError("this app has no models for whole-slide images; ask /infer/ with the id of a CT")

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The next image of a strategy."""
        with errors_for_client():
            require_known("strategy", request.get("strategy") or "random", self._strategies)
        sample: dict[str, Any] = super().next_sample(request)
        needs = STRATEGIES[request.get("strategy") or "random"].needs
        if needs is not None and self._auto_update_scoring:
            self.case_scores.start({needs})
        return sample

    def scoring(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Runs a scoring method."""
        with errors_for_client():
            require_known("scoring method", request.get("method"), self._scoring_methods)
            result: dict[str, Any] = super().scoring(request, datastore)
        return result

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Runs a batch; an error of ours reaches the task's log, or the client that waits, as its message."""
        with errors_for_client():
            require_known("model", request.get("model"), self._infers)
            result: dict[str, Any] = super().batch_infer(request, datastore)
        return result

    def bundle_path(self, model: str | None) -> str:
        """Called by the host before each task that it starts: only of models that there are, and with no folder of a client's.

        The host puts a request's ``bundle_path`` on the Python path of the task's process, unless it has one of its own.
        """
        with errors_for_client():
            if model is not None:
                require_known("model", model, {**self._infers, **self._trainers})
        return str(Path(self.app_dir) / "lib")

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs a training; an error of ours reaches the task's log, or the client that waits, as its message."""
        with errors_for_client():
            require_known("model", request.get("model"), self._trainers)
            result: dict[str, Any] = super().train(request)
        return result

    def _load_sessions(self, load: bool = False) -> PlanningSessions | None:
        if not load:
            return None
        return PlanningSessions(host_settings.MONAI_LABEL_SESSION_PATH, host_settings.MONAI_LABEL_SESSION_EXPIRY)

    def _store(self) -> ModelStore:
        own = Path(self.app_dir) / "model"
        return ModelStore(self.settings.models or own, own / DEMO_NAME, cache_mb=self.settings.cache_mb)

    def init_datastore(self) -> Datastore:
        """A folder's datastore that survives kills; a server's as the host opens it."""
        remote = self.studies.startswith(("http://", "https://"))
        return super().init_datastore() if remote else open_studies(self.studies, names_in_setting(self.settings.label_names))

    def _init_dicomweb_datastore(self) -> PlanningDICOMWebDatastore:
        self._download_dcmqi_tools()
        return open_dicomweb(self.studies)

    def _download_dcmqi_tools(self) -> None:
        find_seg_writer()
