"""A prepared stage is taken for what it is by content: files may move; what does differ is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.method import Recipe
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import Case, find_labelled_cases, nnunet_split

Prepare = Callable[..., None]


@pytest.fixture
def cohort(tiny_cohort: Path, tmp_path: Path) -> Path:
    """A copy with other paths and times than those that were prepared."""
    return Path(shutil.copytree(tiny_cohort, tmp_path / "cohort", copy_function=shutil.copyfile))


@pytest.fixture
def prepare(cohort: Path, tiny_work: StageWork, tiny_recipe: Callable[..., Recipe]) -> Prepare:
    """Prepares the stage, which is prepared, again, from the copy; settings of the plan and the folds can be changed."""

    def again(folder: Path = cohort, folds: int = 2, **plan: object) -> None:
        cases = find_labelled_cases(folder)
        recipe = replace(tiny_recipe(), plan=replace(tiny_recipe().plan, **plan))  # type: ignore[arg-type]
        prepare_stage(cases, tiny_work, recipe, nnunet_split([c.case_id for c in cases], folds))

    return again


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the cases that were read to be hashed."""
    ids: list[str] = []
    sha256 = Case.sha256
    monkeypatch.setattr(Case, "sha256", lambda case: (ids.append(case.case_id), sha256(case))[1])
    return ids


def test_files_may_move(cohort: Path, tiny_work: StageWork, prepare: Prepare, hashed: list[str]) -> None:
    before = json.loads(tiny_work.marker.read_text())
    prepare()
    after = json.loads(tiny_work.marker.read_text())
    assert after["files"] != before["files"]
    assert {**after, "files": None} == {**before, "files": None}
    assert len(hashed) == 4
    prepare()
    assert len(hashed) == 4, "the new stamps are kept"
    os.utime(cohort / "images" / "synth-5-0002.nii.gz", (1, 1))
    prepare()
    assert hashed[4:] == ["synth-5-0002"]


def test_another_way_to_write_the_path(cohort: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare()
    monkeypatch.chdir(cohort.parent)
    prepare(Path("cohort"))


def test_changed_files_are_named(cohort: Path, prepare: Prepare) -> None:
    shutil.copyfile(cohort / "labels" / "synth-5-0000.nii.gz", cohort / "labels" / "synth-5-0001.nii.gz")
    with pytest.raises(
        SettingsError,
        match=r"what is prepared there was made of something else \(files\.synth-5-0001 was .*\); use another --work folder",
    ):
        prepare()


def test_other_settings_and_cases_are_named(cohort: Path, prepare: Prepare, hashed: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"\(plan.spacing_zyx_mm was \[8, 6, 6\], is \[9, 9, 9\]\); use another"):
        prepare(spacing_zyx_mm=(9, 9, 9))
    with pytest.raises(SettingsError, match=r"\(folds was .*\); use another"):
        prepare(folds=3)
    for part in ("images", "labels"):
        (cohort / part / "synth-5-0003.nii.gz").rename(cohort / part / "synth-5-0009.nii.gz")
    with pytest.raises(
        SettingsError, match=r"\(cases: without synth-5-0003; cases: new synth-5-0009; folds was .*\); use another"
    ):
        prepare()
    assert not hashed, "no file is read where the settings say it"
