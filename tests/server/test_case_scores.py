"""Strategies that choose by scores, as MONAI Label sees them, and the endpoints of scoring."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flrplan.active_learning import STRATEGIES, Known, Part
from flrplan.image import Geometry, write_volume
from flrplan.server.case_scores import METHOD, ScoredStrategy
from flrplan.server.studies import PlanningLocalDatastore
from flrplan.server.worklist import HandOut

GRID = Geometry((10, 8, 6), (1.0, 1.0, 2.0))
NAMES = {"label_info": [{"name": "liver", "idx": 1}]}


class FixedScores:
    """Scores that are there."""

    def __init__(
        self, known: dict[str, Known], why: str = "", skipped: dict[str, str] | None = None, why_stopped: str = ""
    ) -> None:
        self._known, self._why, self._skipped, self.why_stopped = known, why, skipped or {}, why_stopped

    def known(self, cases: Iterable[str], parts: Any) -> dict[str, Known]:
        return {case: self._known.get(case, Known()) for case in cases}

    def skipped(self, cases: Iterable[str], parts: Any) -> dict[str, str]:
        return self._skipped

    def why_no_models(self) -> str:
        return self._why

    def have_labels(self, cases: Iterable[str]) -> bool:
        return False


@pytest.fixture
def store(tmp_path: Path) -> PlanningLocalDatastore:
    folder = tmp_path / "studies"
    for case in ("c0", "c1", "c2"):
        write_volume(folder / f"{case}.nii.gz", np.full(GRID.shape_zyx, -1000, np.int16), GRID)
    return PlanningLocalDatastore(str(folder))


@pytest.fixture
def ask(store: PlanningLocalDatastore) -> Callable[..., dict[str, Any]]:
    def act(strategy: str, scores: FixedScores, who: str = "anna") -> dict[str, Any]:
        row: Any = ScoredStrategy(STRATEGIES[strategy], scores)  # type: ignore[arg-type]
        return HandOut(row, 120)({"strategy": strategy, "client_id": who}, store) or {}

    return act


def votes(flr: float) -> Known:
    return Known(models={"disagreement": {"flr": flr}, "flr_fractions": [0.25, 0.25 + flr]})


@pytest.mark.parametrize("strategy", ["disagreement", "decision"])
def test_the_best_of_those_that_are_scored_and_that_nobody_has(ask: Callable[..., dict[str, Any]], strategy: str) -> None:
    scores = FixedScores({"c1": votes(0.1), "c2": votes(0.3)})
    first, second, third = (ask(strategy, scores, who) for who in ("anna", "ben", "cleo"))
    assert [s["id"] for s in (first, second, third)] == ["c2", "c1", "c0"]
    assert first["message"] == "2 of 3 scored"
    assert (second["scored"], second["of"]) == (1, 2)
    assert third["message"] == "0 of 1 scored: scores are computed in the background; the first case by name is given"
    assert third["score"] is None


def test_what_is_missing_is_said_in_a_sentence(ask: Callable[..., dict[str, Any]]) -> None:
    none = ask("disagreement", FixedScores({}, why="no nnunet model for stage liver"))
    assert none["id"] == "c0"
    assert none["message"] == "0 of 3 scored: no nnunet model for stage liver; the first case by name is given"
    assert "no case has an original label; the first case" in ask("label_faults", FixedScores({}))["message"]
    named = ask("diverse", FixedScores({"c1": Known(image={"slice_mm": 5.0})}, skipped={"c2": "c2 is no image"}))
    assert named["message"] == "1 of 3 scored. Not scored: 1 (c2: c2 is no image)"
    assert set(ask("first", FixedScores({}))) == {"id"}
    full = "scoring stopped: the disk is full"
    assert (
        ask("disagreement", FixedScores({}, why_stopped=full))["message"]
        == f"0 of 3 scored: {full}; the first case by name is given"
    )
    assert ask("disagreement", FixedScores({"c1": votes(0.1)}, why_stopped=full))["message"] == f"1 of 3 scored; {full}"


def test_diverse_is_far_from_what_others_have(ask: Callable[..., dict[str, Any]]) -> None:
    known = {f"c{i}": Known(image={"slice_mm": mm}) for i, mm in enumerate((1.0, 1.1, 5.0))}
    assert ask("diverse", FixedScores(known), "anna")["id"] == "c1"  # the middle one, nothing is labelled
    assert ask("diverse", FixedScores(known), "ben")["id"] == "c2"


def test_the_label_that_an_image_came_with_and_its_names(store: PlanningLocalDatastore, tmp_path: Path) -> None:
    assert store.original("c0") is None
    write_volume(tmp_path / "up.nii.gz", np.ones(GRID.shape_zyx, np.uint8), GRID)
    PlanningLocalDatastore.__mro__[1].save_label(store, "c0", str(tmp_path / "up.nii.gz"), "original", NAMES)
    found = store.original("c0")
    assert found is not None
    assert (found.file.parent.name, dict(found.names)) == ("original", {"liver": 1})
    key = found.key
    write_volume(found.file, np.zeros(GRID.shape_zyx, np.uint8), GRID)
    assert found.key != key


@pytest.mark.parametrize("kind", ["plain", "served"])
def test_the_endpoints_of_scoring(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(kind)
    strategies = server.ask("GET", "/info/").json()["strategies"]
    assert {name: strategies[name]["description"] for name in strategies} == {n: s.description for n, s in STRATEGIES.items()}
    unknown = server.ask("POST", "/scoring/dice")
    assert unknown.status_code == 400
    assert "no scoring method 'dice' here; known are label_qc, case_scores" in unknown.text
    started = time.monotonic()
    every = server.ask("POST", "/scoring/").json()
    assert time.monotonic() - started < 10  # it waits for no score
    assert set(every) == {"label_qc", METHOD}
    assert set(every[METHOD]["result"]) == {"running", "scored", "of", "skipped", "models"}
    assert server.ask("POST", f"/scoring/{METHOD}", json={}).json()["running"] is True
    assert set(server.ask("POST", "/scoring/label_qc").json()) == {"running"}
    assert set(server.ask("DELETE", "/scoring/").json()) == {"label_qc", METHOD}
    while server.ask("GET", "/scoring/").json()[METHOD]["running"]:
        assert time.monotonic() - started < 60
        time.sleep(0.2)


def test_the_worst_original_label_is_next_once_the_process_has_seen_it(
    tmp_path: Path,
    cases: list[Any],
    make_studies: Callable[[Path], Path],
    make_app: Callable[..., Any],
    write_image: Callable[..., Path],
) -> None:
    studies = make_studies(tmp_path / "studies")
    (studies / "broken.nii.gz").write_bytes(b"no image")
    good, bad = sorted(cases, key=lambda case: case.case_id)
    for case, faulty in ((good, False), (bad, True)):
        label = case.planning_zyx.copy()
        if faulty:
            label[label == 1] = 2  # nothing remains
        write_image(studies / "labels" / "original" / f"{case.case_id}.nii.gz", label, case.geometry)
    names = "remnant=1,resection=2,crlm_in_resection=3,crlm_in_remnant=4"
    app = make_app(studies, {"device": "cpu", "label_names": names})
    first = app.next_sample({"strategy": "label_faults", "client_id": "anna"})
    assert first["message"] == "0 of 2 scored: scores are computed in the background; the first case by name is given"
    until = time.monotonic() + 120
    while app.case_scores.state().running:
        assert time.monotonic() < until
        time.sleep(0.1)
    worst = app.next_sample({"strategy": "label_faults", "client_id": "anna"})
    assert worst["id"] == bad.case_id
    assert worst["score"] >= 3
    state = app.scoring({"method": METHOD})
    app.case_scores.stop()
    assert list(state["skipped"]) == ["broken"]
    assert list((studies / ".scores").glob("*.score"))


def test_the_parts_that_a_strategy_needs_are_started_by_its_next(
    tmp_path: Path, make_studies: Callable[[Path], Path], make_app: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(make_studies(tmp_path / "studies"), {"device": "cpu"})
    wanted: list[set[Part]] = []
    monkeypatch.setattr(app.case_scores, "start", lambda parts: wanted.append(set(parts)))
    for strategy in STRATEGIES:
        app.next_sample({"strategy": strategy})
    assert wanted == [{Part.LABEL}, {Part.MODELS}, {Part.MODELS}, {Part.IMAGE}]
    monkeypatch.setattr(app, "_auto_update_scoring", False)
    app.next_sample({"strategy": "decision"})
    assert len(wanted) == 4
