"""The measuring scripts: what cannot be measured is told in one line, before anything is computed."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from flrplan.engine import MODEL_ROOT
from flrplan.errors import SettingsError
from script import run_script

DEMO = str(MODEL_ROOT / "demo")
NO_FOLDER = "cannot be made or written to"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("redo --out FILE --slices 10", NO_FOLDER),
        ("redo --out W --slices 0", "--slices: expected a whole number, 8 or more, got '0'"),
        ("redo --out W --ct nothere", "nothere: no such file"),
        ("redo --out W --device tpu", "unknown device 'tpu'"),
        ("many_cases --out W --cases -2", "--cases: expected a whole number, 1 or more, got '-2'"),
        ("many_cases --out FILE --cases 1", NO_FOLDER),
        ("coherence --work FILE --cases 1", NO_FOLDER),
        ("coherence --work W --cases -1", "--cases: expected a whole number, 0 or more, got '-1'"),
        ("coherence --work W --cases 1 --first x", "--first: expected a whole number, 0 or more, got 'x'"),
        ("coherence --work W --cases 0 --real foo", "--real: expected NAME=CT, a name of its own for each CT, got 'foo'"),
        ("coherence --work W --cases 0 --real ../foo=FILE", "--real: expected NAME=CT"),
        ("coherence --work W --cases 0 --real foo=nothere", "nothere: no such file"),
        (f"early_stop --cases W --models {DEMO}", "W"),
        (f"early_stop --cases COHORT --models {DEMO} --first 0", "--first: expected a whole number, 1 or more, got '0'"),
        (f"early_stop --cases COHORT --models {DEMO} --out W", "--out: expected a file"),
        (f"early_stop --cases COHORT --models {DEMO} --out FILE/a.json", NO_FOLDER),
        ("early_stop --cases COHORT --models W", "no nnunet model for stage liver"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    words: str,
    said: str,
    tiny_cohort: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "FILE").touch()
    (tmp_path / "W").mkdir()
    (tmp_path / "COHORT").symlink_to(tiny_cohort)
    monkeypatch.chdir(tmp_path)
    name, *arguments = words.split(" ")
    script = import_module(name)
    monkeypatch.setattr(script, "keep_freed_memory", lambda: None, raising=False)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_script(script.main)
    assert ended.value.code in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert "error: " in lines[-1]
    assert said in lines[-1]
    assert not [*(tmp_path / "W").iterdir()], "nothing was made"


def test_an_end_is_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise SettingsError("no")

    def stopped() -> None:
        raise KeyboardInterrupt

    for main, status in ((lambda: None, 0), (lambda: 3, 3), (fails, 1), (stopped, 130)):
        with pytest.raises(SystemExit) as ended:
            run_script(main)
        assert ended.value.code == status
    assert capsys.readouterr().err == "error: no\nstopped\n"
