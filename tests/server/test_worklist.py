"""Who gets which case next, and the work list."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from flrplan.image import Geometry, write_volume
from flrplan.server import worklist
from flrplan.server.durable import DurableDatastore
from flrplan.server.studies import PlanningLocalDatastore
from flrplan.server.user import set_current_user
from flrplan.server.worklist import HandOut, rows
from flrplan.studies.worklist import Lease, as_csv, as_page

GRID = Geometry((10, 8, 6), (1.0, 1.0, 2.0))
LIVER = {"label_info": [{"name": "liver", "idx": 1}]}


@pytest.fixture
def store(tmp_path: Path) -> PlanningLocalDatastore:
    """Images c0 to c3, and one that cannot be read."""
    folder = tmp_path / "studies"
    for case in range(4):
        write_volume(folder / f"c{case}.nii.gz", np.full(GRID.shape_zyx, -1000, np.int16), GRID)
    (folder / "b.nii.gz").write_bytes(b"no image")
    return PlanningLocalDatastore(str(folder))


@pytest.fixture
def ask(store: PlanningLocalDatastore) -> Callable[..., str | None]:
    """The id that an annotator is given next."""

    def act(who: str | None, strategy: Any = First, minutes: float = 120) -> str | None:
        sample = HandOut(strategy(), minutes)({"strategy": "first", "client_id": who}, store)
        return None if sample is None else str(sample["id"])

    return act


@pytest.fixture
def submit(store: PlanningLocalDatastore, tmp_path: Path) -> Callable[..., None]:
    def act(case: str, who: str, voxels: int = 50) -> None:
        array = np.zeros(GRID.shape_zyx, np.uint8)
        array.ravel()[:voxels] = 1
        write_volume(tmp_path / "up.nii.gz", array, GRID)
        DurableDatastore.save_label(store, case, str(tmp_path / "up.nii.gz"), "final", {**LIVER, "client_id": who})

    return act


def test_no_two_annotators_have_one_case(ask: Callable[..., str | None]) -> None:
    assert [ask("anna"), ask("ben"), ask("cleo")] == ["c0", "c1", "c2"]
    assert ask("anna") == "c0"
    assert ask("dora") == "c3"
    assert ask("emil") is None


@pytest.mark.parametrize("strategy", [First, Random])
def test_many_who_ask_at_once_get_cases_of_their_own(ask: Callable[..., str | None], strategy: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda who: ask(who, strategy), [f"annotator-{n}" for n in range(8)]))
    assert sorted(case for case in given if case) == ["c0", "c1", "c2", "c3"]


@pytest.mark.parametrize("nobody", [None, "", "user-xyz"])
def test_clients_without_a_name_are_given_another_case_each_time(ask: Callable[..., str | None], nobody: str | None) -> None:
    assert ask("anna") == "c0"
    assert [ask(nobody) for _ in range(4)] == ["c1", "c2", "c3", "c1"]


def test_a_case_comes_back_when_its_time_is_over_or_another_is_asked_for(
    ask: Callable[..., str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("anna", minutes=10) == "c0"
    assert ask("ben") == "c1"
    now = time.time()
    monkeypatch.setattr(worklist.time, "time", lambda: now + 601)
    assert ask("ben") == "c0"
    assert ask("cleo") == "c1"  # given back by ben


@pytest.mark.parametrize(("set_back", "held"), [(0, True), (60, True), (7199, True), (7201, False), (1e9, False)])
def test_a_lease_ends_though_the_clock_was_set_back(set_back: float, held: bool) -> None:
    lease = {"lease": {"to": "anna", "since": 2e9, "until": 2e9 + 7200}}
    assert (Lease.of(lease, 2e9 - set_back) is not None) is held
    assert Lease.of(lease, 2e9 + 7201) is None


def test_a_case_that_was_submitted_is_nobodys(
    ask: Callable[..., str | None], submit: Callable[..., None], store: PlanningLocalDatastore
) -> None:
    assert ask("anna") == "c0"
    submit("c0", "anna")
    assert store.get_image_info("c0")["lease"] is None
    assert store.labels_of("c0")["final"]["submission"]["minutes"] == pytest.approx(0, abs=1)
    assert ask("anna") == "c1"


def test_a_case_for_double_reading_goes_to_a_second_annotator(
    ask: Callable[..., str | None], submit: Callable[..., None], store: PlanningLocalDatastore
) -> None:
    submit("c0", "anna")
    store.update_image_info("c0", {"double_reading": True})
    assert ask("anna") == "c1"
    assert ask("ben") == "c0"
    assert ask("cleo") == "c2"
    submit("c0", "ben", 60)
    assert ask("dora") == "c3"
    assert [v.by for v in store.submitted("c0").versions] == ["anna", "ben"]


def test_who_has_signed_in_counts_whatever_the_client_says(ask: Callable[..., str | None]) -> None:
    try:
        set_current_user("anna")
        assert ask("ben") == "c0"
    finally:
        set_current_user(None)
    assert ask("ben") == "c1"


def test_leases_last_over_a_restart(ask: Callable[..., str | None], store: PlanningLocalDatastore) -> None:
    assert ask("anna") == "c0"
    again = PlanningLocalDatastore(store._datastore_path)
    assert HandOut(First(), 120)({"strategy": "first", "client_id": "ben"}, again) == {"id": "c1"}


def test_without_leases_everybody_gets_the_first(ask: Callable[..., str | None]) -> None:
    assert [ask("anna", minutes=0), ask("ben", minutes=0)] == ["c0", "c0"]


def test_the_work_list_says_who_has_what_and_how_far_it_is(
    ask: Callable[..., str | None], submit: Callable[..., None], store: PlanningLocalDatastore
) -> None:
    ask("anna")
    submit("c0", "anna", 50)
    submit("c0", "=ben<b>", 100)
    store.update_label_info("c0", "final", {"segmentationMeta": {"status": "flagged", "approvedBy": "cleo", "comment": "dome"}})
    ask("dora")
    lines = {line["case"]: line for line in csv.DictReader(io.StringIO(as_csv(rows(store))))}
    assert (lines["c0"]["state"], lines["c0"]["what"]) == ("sent back", "sent back by cleo: dome")
    assert (lines["c0"]["annotators"], lines["c0"]["labels"]) == ("anna, =ben<b>", "2")
    assert (lines["c1"]["state"], lines["c1"]["held by"]) == ("open", "dora")
    page = as_page(rows(store), "Work list", "worklist.csv")
    assert "5 cases: 4 open, 0 drafted, 1 sent back, 0 refined, 0 confirmed." in page.replace("\n", " ")
    assert "=ben&lt;b&gt;" in page
    assert '<td class="n">0.667</td><td class="n">0.1</td>' in page  # 2 * 50 / 150; 50 voxels of 2 mm3
