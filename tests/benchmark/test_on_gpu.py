"""The script for a GPU, in small on a CPU: every part by its command, what finished is kept, what did not is named."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest
import yaml

from gpu import on_gpu

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "benchmark" / "gpu" / "on_gpu.py"


def run(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(SCRIPT),
        "--device",
        "cpu",
        "--smoke",
        "--out",
        str(out),
        "--work",
        str(out / "work"),
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gpu") / "out"
    done = run(out, "--minutes", "5", "--only", "cohort")
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_models_are_trained_packed_and_measured(prepared: Path) -> None:
    done = run(prepared, "--minutes", "6", "--only", "demo", "--only", "measure")
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((prepared / "gpu.json").read_text())
    assert record["epochs"] == {"liver": 5}
    assert {"cohort", "prepare_liver", "try_liver_0", "train_liver_1", "measure"} <= set(record["steps"])
    assert {step["outcome"] for step in record["steps"].values()} == {0}
    with tarfile.open(prepared / "demo.tar.gz") as archive:
        names = archive.getnames()
        recipe = yaml.safe_load(archive.extractfile("demo/recipe.yaml"))  # type: ignore[arg-type]
        note = json.load(archive.extractfile("demo/liver/nnunet/training_cohort.json"))  # type: ignore[arg-type]
    assert "demo/liver/nnunet/fold_1/checkpoint_final.pth" in names
    assert "demo/crlm/nnunet/fold_0/checkpoint_final.pth" in names, "what was not trained is the repository's"
    assert recipe["liver"]["training"]["epochs"] == 5, "what was trained, so that make demo-models trains the same"
    assert (note["cases"], note["size"], note["wide"]) == (4, "small", 0.5)
    measured = json.loads((prepared / "measured.json").read_text())
    assert list(measured["cases"]) == ["0"]


def test_a_step_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("common: {training: {epochs: many}}\n")
    done = run(tmp_path / "out", "--minutes", "4", "--recipe", str(tmp_path / "recipe.yaml"), "--only", "cohort")
    assert done.returncode == 1
    assert "epochs" in done.stdout
    assert "not done: prepare_liver" in done.stdout
    steps = json.loads((tmp_path / "out" / "gpu.json").read_text())["steps"]
    assert steps["cohort"]["outcome"] == 0
    assert steps["prepare_liver"]["outcome"] == 1


def test_a_step_out_of_time_takes_its_workers_with_it(tmp_path: Path) -> None:
    """The step starts a worker, writes its number and waits; so does the worker."""
    worker = "import time; time.sleep(60)"
    parent = (
        "import subprocess, sys; from pathlib import Path; "
        f"p = subprocess.Popen([sys.executable, '-c', {worker!r}]); Path({str(tmp_path / 'part')!r}).write_text(str(p.pid)); "
        f"Path({str(tmp_path / 'part')!r}).rename({str(tmp_path / 'pid')!r}); p.wait()"
    )
    steps = on_gpu.Run(tmp_path, time.monotonic() + 60)
    step = steps.start("slow", (sys.executable, "-c", parent))
    while not (tmp_path / "pid").exists():
        assert step.process.poll() is None, step.log.read_text()
        time.sleep(0.02)
    found = psutil.Process(int((tmp_path / "pid").read_text()))
    assert not steps.wait(step, time.monotonic())
    assert steps.record["steps"]["slow"]["outcome"] == "out of time"
    found.wait(10)  # psutil.TimeoutExpired where it is still there


TRAINER = """
import sys
from pathlib import Path
import yaml
recipe, work, fold, models = sys.argv[1], Path(sys.argv[2]), sys.argv[4], Path(sys.argv[6])
state, asked = work / f"state_{fold}", yaml.safe_load(Path(recipe).read_text())["liver"]["training"]["epochs"]
done = int(state.read_text()) if state.exists() else 0
if done > asked:
    raise SystemExit(f"was trained for {done} epochs")
for epoch in range(done, asked):
    if (work / "stop").exists() and fold == "1" and epoch == 3:
        raise SystemExit("stopped")
    print(f"epoch {epoch + 1}/{asked}: loss 1, 0.1 s", flush=True)
    state.write_text(str(epoch + 1))
"""
"""A trainer that keeps its state, and ends where the settings ask for fewer epochs than it had, as ours does."""


def test_a_training_that_was_stopped_goes_on_with_the_epochs_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(stage: str, recipe: Path, device: str, work: Path) -> tuple[object, ...]:
        return (sys.executable, "-c", TRAINER, recipe, work)

    def train() -> dict[str, int]:
        run = on_gpu.Run(tmp_path, time.monotonic() + 60)
        return on_gpu.train_demo(run, on_gpu.SMOKE, tmp_path / "recipe.yaml", "cpu", tmp_path, run.deadline)

    monkeypatch.setattr(on_gpu, "train_command", command)
    monkeypatch.setattr(on_gpu, "START_SECONDS", 0)
    (tmp_path / "recipe.yaml").write_text("liver: {}")
    (tmp_path / "state_0").write_text("3")  # tried by a run that was stopped before it had tried the other fold
    (tmp_path / "try_liver_0.log").write_text("epoch 3/3: loss 1, 0.2 s")
    (tmp_path / "stop").write_text("")
    assert train() == {}
    assert [(tmp_path / f"state_{fold}").read_text() for fold in (0, 1)] == ["5", "3"]
    (tmp_path / "stop").unlink()
    assert train() == {"liver": 5}
    assert [(tmp_path / f"state_{fold}").read_text() for fold in (0, 1)] == ["5", "5"]


def test_what_stops_the_script_stops_its_steps(tmp_path: Path) -> None:
    words = [
        sys.executable,
        str(SCRIPT),
        "--device",
        "cpu",
        "--smoke",
        "--minutes",
        "5",
        "--only",
        "cohort",
        "--out",
        str(tmp_path),
    ]
    script = psutil.Popen(words, stdout=subprocess.DEVNULL)
    while not ([*tmp_path.glob("*.log")] and (steps := script.children())):  # a child before the log tells of the machine
        assert script.poll() is None
        time.sleep(0.05)
    script.terminate()
    assert script.wait(60) == 143
    psutil.wait_procs(steps, 10)
    assert not any(step.is_running() for step in steps)
    assert json.loads((tmp_path / "gpu.json").read_text())["cases"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "nan"], "--minutes: expected minutes, more than 0, got 'nan'"),
        (["--minutes", "0"], "--minutes: expected minutes, more than 0, got '0'"),
        (["--minutes", "5", "--cases", "0"], "--cases: expected 2 or more, one for each fold, got 0"),
        (["--minutes", "5", "--out", "{file}"], "cannot be made or written to"),
        (["--minutes", "5", "--out", "{damaged}"], "gpu.json: expected the record of a run, but it cannot be read"),
    ],
)
def test_what_cannot_begin_is_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "gpu.json").write_text('{"steps": ')
    (tmp_path / "file").write_text("")
    given = [word.format(file=tmp_path / "file", damaged=tmp_path / "damaged") for word in words]
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--device", "cpu", "--smoke", "--out", str(tmp_path / "out"), *given])
    with pytest.raises(SystemExit, match="2"):
        on_gpu.main()
    assert said in capsys.readouterr().err
