"""Active learning on MONAI Label 0.8.5: strategies that choose by scores, the scoring method behind them, and its endpoints.

The host starts each scoring method at its start, at each ``next`` and each saved label, in a process that loads the whole app. Here
:class:`flrplan.active_learning.Scores` measures in one small process, only what the strategies that are asked for need, and once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends
from fastapi.routing import APIRoute
from monailabel.config import settings as host_settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.utils.app import app_instance

from flrplan.active_learning import CaseStrategy, Known, LabelFile, Part, Scores, choose
from flrplan.engine import CascadeSettings
from flrplan.server.client_error import errors_for_client
from flrplan.server.doors import require_known
from flrplan.server.infer import Service
from flrplan.server.studies import PlanningDatastore
from flrplan.studies.worklist import Lease

METHOD = "case_scores"
_NAMED = 3
"""Cases that cannot be scored and are named in an answer; the scoring method names all."""
_PARTS: Mapping[Part, tuple[Part, ...]] = {
    Part.IMAGE: (Part.IMAGE, Part.MODELS),  # volumes of a prediction count where there is one
    Part.LABEL: (Part.LABEL,),
    Part.MODELS: (Part.MODELS,),
}


class _Cases:
    """The cases of a datastore, as :class:`flrplan.active_learning.background.Studies`."""

    def __init__(self, datastore: PlanningDatastore) -> None:
        self._datastore = datastore

    def cases(self) -> list[str]:
        return list(self._datastore.list_images())

    def to_score(self) -> list[str]:
        now = time.time()
        free = self._datastore.get_unlabeled_images()
        return [case for case in free if Lease.of(self._datastore.get_image_info(case), now) is None]

    def at_hand(self, case: str) -> Path | None:
        return self._datastore.at_hand(case)

    def fetch(self, case: str) -> Path:
        return self._datastore.source_of(case, Path(self._datastore.get_image_uri(case)))

    def original(self, case: str) -> LabelFile | None:
        return self._datastore.original(case)


def scores_of(service: Service) -> Scores:
    """The scores of the server's cases, kept beside them, by the models that serve its inferences."""
    own, datastore = service.settings, service.datastore
    settings = CascadeSettings(own.architecture, own.device, own.mirroring, own.largest_liver, own.engine)
    return Scores(datastore.score_folder, service.store, settings, _Cases(datastore))


class ScoredStrategy(Strategy):  # type: ignore[misc]  # monailabel is untyped
    """A row of :data:`flrplan.active_learning.strategies.STRATEGIES` as the host's strategy. It takes the scores that are there."""

    def __init__(self, strategy: CaseStrategy, scores: Scores) -> None:
        super().__init__(strategy.description)
        self._strategy = strategy
        self._scores = scores

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any] | None:
        """The next image; ``score``, ``scored`` and ``of`` of the cases to choose from, and ``message``, where it chooses by scores."""
        cases = list(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        if not cases:
            return None
        needs = self._strategy.needs
        if needs is None:
            return {"id": choose(self._strategy, dict.fromkeys(cases, Known()), {}).case}
        others = sorted({*datastore.list_images()} - {*cases}) if needs is Part.IMAGE else []
        known = self._scores.known([*cases, *others], _PARTS[needs])
        choice = choose(self._strategy, {c: known[c] for c in cases}, {c: known[c] for c in others})
        message = f"{choice.scored} of {len(cases)} scored"
        if choice.case is None:
            message += f": {self._why_none(needs, cases)}; the first case by name is given"
        elif self._scores.why_stopped:
            message += f"; {self._scores.why_stopped}"
        skipped = self._scores.skipped(cases, _PARTS[needs])
        if skipped:
            named = "; ".join(f"{case}: {why}" for case, why in sorted(skipped.items())[:_NAMED])
            message += f". Not scored: {len(skipped)} ({named}{'; ...' if len(skipped) > _NAMED else ''})"
        score = None if choice.score is None else round(choice.score, 4)
        return {"id": choice.case or min(cases), "score": score, "scored": choice.scored, "of": len(cases), "message": message}

    def _why_none(self, needs: Part, cases: list[str]) -> str:
        if needs is Part.MODELS and (why := self._scores.why_no_models()):
            return why
        if needs is Part.LABEL and not self._scores.have_labels(cases):
            return "no case has an original label"
        return self._scores.why_stopped or "scores are computed in the background"


class CaseScores(ScoringMethod):  # type: ignore[misc]  # monailabel is untyped
    """The scoring method: starts what is missing of all that strategies go by, and says how far it is."""

    def __init__(self, scores: Scores) -> None:
        super().__init__(
            "what strategies go by, of each case without a label: its image, its original label, what the models say of it"
        )
        self._scores = scores

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """How far it is, at once; what is missing is measured in the background, also what was given up before."""
        self._scores.start(again=True)
        return self.state()

    def state(self) -> dict[str, Any]:
        """As :class:`flrplan.active_learning.background.State`."""
        return asdict(self._scores.state())

    def stop(self) -> None:
        """Ends what is being measured."""
        self._scores.stop()


Options = Annotated[dict[str, Any] | None, Body()]


def start_all(params: Options = None, run_sync: bool = False) -> dict[str, Any]:
    """Starts every scoring method; ``{method: {"result": ..., "detail": null}}``."""
    return {method: {"result": start_one(method, None, run_sync), "detail": None} for method in app_instance()._scoring_methods}


def start_one(method: str, params: Options = None, run_sync: bool = False) -> Any:
    """Starts a scoring method, and says how far it is; ``run_sync``: what it gives. Raises ClientError for an unknown one."""
    app = app_instance()
    with errors_for_client():
        require_known("scoring method", method, app._scoring_methods)
    if run_sync or method == METHOD:
        return app.scoring({"method": method})
    app.async_scoring(method)
    return app._scoring_methods[method].state()


def state_of_all() -> dict[str, Any]:
    """How far each scoring method is."""
    return {name: method.state() for name, method in app_instance()._scoring_methods.items()}


def stop_all() -> dict[str, Any]:
    """Stops the scoring of cases; label QC, which takes seconds, ends by itself."""
    methods = app_instance()._scoring_methods
    if METHOD in methods:
        methods[METHOD].stop()
    return state_of_all()


def serve_scoring() -> None:
    """Puts these endpoints before the host's own; does nothing where its server does not run."""
    host: Any = sys.modules.get("monailabel.app")
    if host is None:
        return
    user, annotator = host_settings.MONAI_LABEL_AUTH_ROLE_USER, host_settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR
    endpoints: list[tuple[str, str, Callable[..., Any], str, str]] = [
        ("GET", "/scoring/", state_of_all, user, "How far each scoring method is"),
        ("POST", "/scoring/", start_all, annotator, "Start every scoring method"),
        ("POST", "/scoring/{method}", start_one, annotator, "Start a scoring method"),
        ("DELETE", "/scoring/", stop_all, annotator, "Stop scoring"),
    ]
    for verb, path, endpoint, role, summary in endpoints:
        route = APIRoute(
            f"{host_settings.MONAI_LABEL_API_STR}{path}",
            endpoint,
            methods=[verb],
            summary=summary,
            tags=["Scoring"],
            dependencies=[Depends(RBAC(role))],
        )
        host.app.router.routes.insert(0, route)
