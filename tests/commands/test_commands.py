"""The other commands, as a user runs them."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk

from flrplan import cli
from flrplan.cli import main
from flrplan.commands import doctor
from flrplan.commands.say import note
from flrplan.demo.ohif import orthanc
from flrplan.engine import MODEL_ROOT


def test_doctor_finds_the_installation_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--models", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "torch 2.13.0" in printed
    assert "model liver nnunet: demo, not for patients" in printed
    assert printed.rstrip().endswith("all is well")


def test_doctor_says_what_is_wrong_and_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(doctor.EXACT, "monai", "0.0.1")
    (tmp_path / "liver" / "nnunet").mkdir(parents=True)
    (tmp_path / "liver" / "nnunet" / "plans.json").write_text("{}")
    assert main(["doctor", "--models", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "0.0.1 was tried: make install" in printed
    assert "dataset.json is missing" in printed


def test_cohort_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cohort"
    assert main(["cohort", "--cases", "2", "--seed", "9", "--out", str(out), "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert sorted(p.name for p in (out / "images").iterdir()) == ["synth-9-0000.nii.gz", "synth-9-0001.nii.gz"]
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    assert main(["cohort", "--cases", "0", "--out", str(tmp_path / "none")]) == 1
    assert "cases must be" in capsys.readouterr().err


def test_doctor_runs_where_a_library_is_broken(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is missing')")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "flrplan.cli", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "a library cannot be imported (libcudart is missing): make install" in done.stdout
    assert "Orthanc with DICOMweb, for demo-ohif: " in done.stdout


def test_doctor_finds_the_programs_of_demo_ohif_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name in (("sbin", "Orthanc"), ("bin", "chromium-browser")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # a plain user's, without Debian's sbin
    monkeypatch.setattr(orthanc, "_PLACES", str(tmp_path / "sbin"))
    monkeypatch.setattr(orthanc, "PLUGIN", tmp_path / "plugin.so")
    orthanc.PLUGIN.touch()
    assert doctor._optional_programs() == []
    printed = capsys.readouterr().out
    assert f"Orthanc with DICOMweb, for demo-ohif: {tmp_path / 'sbin' / 'Orthanc'}\n" in printed
    assert f"Chromium, for demo-ohif --drive: {tmp_path / 'bin' / 'chromium-browser'}\n" in printed

    orthanc.PLUGIN.unlink()
    (tmp_path / "bin" / "chromium-browser").unlink()
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert doctor._optional_programs() == []  # optional: no problems
    printed = capsys.readouterr().out
    assert "Orthanc with DICOMweb, for demo-ohif: optional; Orthanc has no DICOMweb plugin" in printed
    assert "apt-get install --no-install-recommends orthanc orthanc-dicomweb" in printed
    assert "Chromium, for demo-ohif --drive: optional; Chromium is not installed" in printed
    assert "playwright, for demo-ohif --drive: optional; playwright, which drives the browser, cannot be imported" in printed


def test_models_list_names_the_demo_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--models", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("demo (not for patients)") == 4
    assert "liver    stunet     none\n" in printed


def test_networks_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["networks", "--count-only", "--size", "narrow", "--patch", "32", "64", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| nnunet", "| swinunetr", "| stunet"]
    assert all("| 32 x 64 x 64 | 2 |" in line and line.endswith("| counted | counted |") for line in lines[2:5])
    assert main(["networks", "--size", "tiny"]) == 1
    assert "no architecture has size 'tiny'; known are base, huge, large, narrow, small and all" in capsys.readouterr().err
    assert main(["networks", "--size", "small", "--architecture", "nnunet", "--architecture", "swinunetr"]) == 1
    assert "no nnunet or swinunetr has size 'small'; known are base, narrow and all" in capsys.readouterr().err
    (tmp_path / "plans.json").write_text("{}")
    assert main(["networks", "--plans", str(tmp_path / "plans.json")]) == 1
    assert "expected the nnUNetPlans.json that a preparation writes" in capsys.readouterr().err


def test_one_network_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Its peak is the process's own memory, so more than what is counted for so small a network."""
    assert main(["networks", "--size", "narrow", "--patch", "32", "64", "64", "--architecture", "stunet"]) == 0
    header, _, line, *rest = capsys.readouterr().out.splitlines()
    assert not rest, "no estimate of the whole benchmark"
    row = dict(zip(header.split(" | "), line.strip(" |").split(" | "), strict=False))
    assert line.startswith("| stunet | narrow |")
    assert float(row["seconds"]) > 0
    assert float(row["peak GB |"]) > float(row["GB"])


def test_models_import_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = MODEL_ROOT / "demo" / "liver" / "nnunet"
    command = ["models", "import", str(source), "--stage", "liver", "--models", str(tmp_path)]
    assert main(command) == 0
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert json.loads((tmp_path / "liver" / "nnunet" / "dataset.json").read_text())["flrplan"]["imported_from"] == "nnunet"


def test_demo_ends_with_the_flr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path), "--device", "cpu"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("FLR ")
    assert last.endswith(" %)")
    label = next(tmp_path.glob("*/planning.nii.gz"))
    assert sitk.ReadImage(str(label)).GetSize()[0] > 100


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("plan", "doctor", "cohort", "train", "models", "demo", "demo-models"):
        with pytest.raises(SystemExit) as stop:
            cli.build_parser().parse_args([command, "--help"])
        assert stop.value.code == 0
        assert command in capsys.readouterr().out


def test_a_standard_output_that_cannot_be_written_is_told_in_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flrplan.cli", "models", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("flrplan models: could not write to standard output: No space left on device")
    assert done.stderr.count("\n") == 1


def test_without_a_standard_error_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    for stream in (Full(), None):  # None: closed from the start
        monkeypatch.setattr(sys, "stderr", stream)
        note("a step")
