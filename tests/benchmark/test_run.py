"""``benchmark/run.py`` as a user runs it: one architecture, four stages, two folds, killed in the middle and called again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from flrplan.method import PAPER_STAGES
from flrplan.networks import ARCHITECTURES
from flrplan.workflow.engine import only_run

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = REPOSITORY / "benchmark" / "run.py"
CONFIG = f"""
data: {{kind: synthetic, cases: 5, seed: 6}}
split: {{held_out: 1, folds: 2}}
architectures: [{ARCHITECTURES[0]}]
recipe: recipe.yaml
train_size: narrow
device: cpu
mirroring: false
probabilities: true
trainings_per_job: 2
predictions_per_job: 3
note: Smoke run, not comparable with the paper.
"""


@pytest.fixture(scope="module")
def snakemake() -> str:
    own = REPOSITORY / ".venv-workflow" / "bin" / "snakemake"
    found = str(own) if own.is_file() else shutil.which("snakemake")
    if found is None:
        pytest.skip("Snakemake is not installed: make workflow")
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    shutil.copy(REPOSITORY / "benchmark" / "configs" / "smoke_recipe.yaml", folder / "recipe.yaml")
    (folder / "ci.yaml").write_text(CONFIG)
    return folder / "ci.yaml"


def command(config: Path, work: Path, *options: object) -> list[str]:
    return [sys.executable, str(RUN), "--config", str(config), "--work", str(work), *map(str, options)]


def run(config: Path, work: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(config, work, *options), capture_output=True, text=True, timeout=550, check=False)


def published(work: Path) -> dict[Path, int]:
    """What a model folder holds under its own name; a hidden folder is a training that is not published yet."""
    models = (p for p in (work / "models").rglob("checkpoint_final.pth") if not any(part.startswith(".") for part in p.parts))
    return {p: p.stat().st_mtime_ns for p in models}


def files(work: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in work.rglob("*")}


@pytest.fixture(scope="module")
def killed(snakemake: str, config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, int]]:
    """A work folder whose run was killed, without a chance to clean up, once the first model was there."""
    work = tmp_path_factory.mktemp("run") / "work"
    with (work.parent / "log").open("w") as log:
        process = subprocess.Popen(
            command(config, work, "--cores", 2), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + 400
        while not published(work) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with suppress(ProcessLookupError):  # a loaded machine takes a while until all are gone, and their lock with them
            for _ in range(150):
                os.killpg(process.pid, 0)
                time.sleep(0.2)
    assert published(work), (work.parent / "log").read_text()[-3000:]
    return work, published(work)


@pytest.fixture(scope="module")
def work(killed: tuple[Path, dict[Path, int]], config: Path) -> Path:
    """The same folder after the same command was called again and ended well."""
    done = run(config, killed[0], "--cores", 2)
    assert done.returncode == 0, done.stderr[-4000:]
    return killed[0]


def test_a_killed_run_goes_on_and_keeps_what_was_trained(killed: tuple[Path, dict[Path, int]], work: Path) -> None:
    before, after = killed[1], published(work)
    assert len(before) < len(after) == len(PAPER_STAGES) * 2
    assert {p: after[p] for p in before} == before


def test_tables_hold_every_column_and_say_what_they_are(work: Path) -> None:
    summary = json.loads((work / "evaluation" / "summary.json").read_text())
    assert set(summary["test"]["nnunet"]) == {
        "pipelined_liver", "pipelined_crlm", "pipelined_flr", "cascaded_crlm", "cascaded_flr", "e2e_flr"
    }  # fmt: skip
    assert summary["cv"]["nnunet"]["pipelined_liver"]["dice"]["n"] == 4, "out-of-fold predictions of all four cases"
    assert summary["gaps"] == summary["absent_columns"] == []
    for name in ("table1.md", "table2.md"):
        assert "not comparable with the paper" in (work / "evaluation" / name).read_text()


def test_every_prediction_has_its_probability(work: Path) -> None:
    there = [{p.relative_to(work / name) for p in (work / name).rglob("*.nii.gz")} for name in ("predictions", "probabilities")]
    assert len(there[0]) == 6 + 4 * 4
    assert there[1] == there[0]


def test_models_never_saw_what_they_predict(work: Path) -> None:
    split = json.loads((work / "splits.json").read_text())
    for path in published(work):
        trained = set(json.loads((path.parent / "run.json").read_text())["train_ids"])
        fold = int(path.parent.name.removeprefix("fold_"))
        assert not trained & {*split["test"], *split["folds"][fold]}


def test_when_all_is_done_nothing_remains_until_a_file_is_gone(work: Path, config: Path) -> None:
    done = run(config, work, "--dry-run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Nothing to be done" in done.stderr + done.stdout
    assert "train: 4 of 4 jobs done; 8 of 8 files there" in done.stdout
    gone = next((work / "predictions" / "nnunet" / "e2e_flr").iterdir())
    content = gone.read_bytes()
    gone.unlink()
    before = files(work)
    with only_run(work):
        done = run(config, work, "--dry-run")
    assert files(work) == before, "a dry run writes nothing, and looks at a benchmark that runs"
    gone.write_bytes(content)
    assert "done/predict/nnunet-held-out-fold-1: files of this job, or of one before it, are gone; it runs again" in done.stderr
    assert "predict: 0 of 1 jobs done" in done.stdout
    assert "evaluate: 0 of 1 jobs done; 8 of 8 files there" in done.stdout
    assert "train: 4 of 4 jobs done" in done.stdout
    assert "--dry-run" in done.stderr, "the exact command is shown"
    assert "rule predict:" in done.stderr + done.stdout
    assert "rule train:" not in done.stderr + done.stdout


def test_a_dry_run_makes_no_work_folder(snakemake: str, config: Path, tmp_path: Path) -> None:
    done = run(config, tmp_path / "work", "--dry-run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "train: 0 of 4 jobs done; 0 of 8 files there" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_another_recipe_in_the_same_folder_is_refused(work: Path, config: Path) -> None:
    recipe = config.with_name("recipe.yaml")
    before = recipe.read_text()
    recipe.write_text(before.replace("epochs: 2", "epochs: 3"))
    done = run(config, work)
    recipe.write_text(before)
    assert done.returncode == 1
    assert "was made of something else (recipe." in done.stderr
    assert "epochs was 2, is 3" in done.stderr


def test_a_job_that_fails_is_named_with_its_log(snakemake: str, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "data: {kind: folder, root: nowhere}\nsplit: {held_out: 1, folds: 2}\narchitectures: [nnunet]"
    )
    done = run(tmp_path / "b.yaml", tmp_path / "work", "--cores", 1)
    assert done.returncode == 1
    assert str(tmp_path / "work" / "workflow" / "logs") in done.stderr
    assert "nowhere" in done.stdout + done.stderr, "what prepare.py said"


def test_a_prepared_folder_that_is_not_there_or_does_not_fit_the_split(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("data: {kind: prepared}\nsplit: s.json\narchitectures: [nnunet]")
    (tmp_path / "s.json").write_text('{"test": ["a"], "folds": [["b"], ["c"]]}')
    done = run(tmp_path / "b.yaml", tmp_path / "work")
    assert done.returncode == 1
    assert "no such work folder; prepare it (benchmark/prepare.py)" in done.stderr
    (tmp_path / "work" / "images").mkdir(parents=True)
    (tmp_path / "work" / "labels").mkdir()
    for folder in ("images", "labels"):
        for case in "abd":
            (tmp_path / "work" / folder / f"{case}.nii.gz").write_bytes(b"")
    done = run(tmp_path / "b.yaml", tmp_path / "work")
    assert done.returncode == 1
    assert f"{tmp_path / 's.json'} does not fit the cases of {tmp_path / 'work'}:" in done.stderr
    assert "1 cases are not in the split: d\n" in done.stderr
    assert "1 ids of the split are not among the cases: c\n" in done.stderr
