"""Resuming, verifying, refusing; several processes; the commands."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import SimpleITK as sitk

from flrplan.errors import SettingsError
from flrplan.image import Geometry
from flrplan.preparation import CaseSource, Prepared, PrepareSettings, SourceKind, find_tcia_cases, prepare
from flrplan.workflow import BenchmarkSettings, DataKind, Places, benchmark_jobs
from flrplan.workflow.settings import DataSettings, SplitSettings

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmark"
GRID = Geometry((16, 16, 8), (0.8, 0.9, 2.5), (-10.5, 20.25, -120.25))


def command(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARK / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(root: Path, out: Path, **settings: Any) -> Prepared:
    return prepare(find_tcia_cases(root), PrepareSettings(out, SourceKind.TCIA, progress=False, **settings))


def files(out: Path) -> dict[str, int]:
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in out.rglob("*.nii.gz")}


@pytest.fixture
def work(tree: Any, tmp_path: Path) -> Path:
    """Two prepared cases."""
    tree.add("CRLM-CT-1001")
    tree.add("CRLM-CT-1002", seed=8)
    run(tree.save(), tmp_path / "W")
    return tmp_path / "W"


def test_complete_cases_are_kept_and_others_made_again(tree: Any, work: Path) -> None:
    before = files(work)
    assert len(before) == 18  # image, map, three masks, two veins and two layers of instances a case
    assert run(tree.root, work).kept == ("CRLM-CT-1001", "CRLM-CT-1002")
    assert files(work) == before
    (work / "prepared/CRLM-CT-1001.json").unlink()  # killed before its record
    assert run(tree.root, work).kept == ("CRLM-CT-1002",)
    for name in ("masks/CRLM-CT-1002/crlm.nii.gz", "instances/CRLM-CT-1002/layer2.nii.gz"):
        changed = work / name
        changed.write_bytes(changed.read_bytes()[:-1] + b"\1")  # same size, other content
        assert run(tree.root, work).kept == ("CRLM-CT-1001",)
    assert run(tree.root, work).kept == ("CRLM-CT-1001", "CRLM-CT-1002")
    assert run(tree.root, work, force=True).kept == ()


def test_a_run_killed_while_it_wrote_its_first_case_goes_on(tree: Any, work: Path) -> None:
    for record in (work / "prepared").iterdir():
        record.unlink()
    part = work / "images/.part-0123abcd-CRLM-CT-1001.nii.gz"
    part.write_bytes(b"half")
    result = run(tree.root, work)
    assert (len(result.ready), result.kept, result.failed) == (2, (), False)
    assert not part.exists()


def test_a_case_that_broke_since_leaves_nothing_behind(tree: Any, work: Path) -> None:
    seg = tree.folder("CRLM-CT-1002", "SEG") / "1-1.dcm"
    seg.write_bytes(b"broken")
    (work / "instances/CRLM-CT-1002/.part-0123abcd-layer1.nii.gz").write_bytes(b"half")
    result = run(tree.root, work)
    assert result.ready == ("CRLM-CT-1001",)
    assert not [name for name in files(work) if "1002" in name]
    assert not (work / "instances/CRLM-CT-1002").exists()
    assert "CRLM-CT-1002" not in (work / "dataset.csv").read_text()


def test_what_was_made_stays_when_the_download_is_deleted(tree: Any, work: Path) -> None:
    for path in tree.folder("CRLM-CT-1002", "CT").iterdir():
        path.unlink()
    tree.folder("CRLM-CT-1002", "CT").rmdir()
    result = run(tree.root, work)
    assert result.kept == ("CRLM-CT-1001", "CRLM-CT-1002")
    assert not result.failed


def test_several_processes_give_the_same_files(tree: Any, work: Path, tmp_path: Path) -> None:
    result = run(tree.root, tmp_path / "W2", workers=2)
    assert result.ready == ("CRLM-CT-1001", "CRLM-CT-1002")
    assert (tmp_path / "W2/dataset.csv").read_text() == (work / "dataset.csv").read_text()
    records = [json.loads((w / "prepared/CRLM-CT-1001.json").read_text())["outputs"] for w in (work, tmp_path / "W2")]
    assert records[0] == records[1]


def test_a_folder_of_another_kind_or_origin_is_refused(work: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds cases prepared from tcia, not folder"):
        prepare([CaseSource("a")], PrepareSettings(work, SourceKind.FOLDER, progress=False))
    (tmp_path / "X/images").mkdir(parents=True)
    (tmp_path / "X/images/a.nii.gz").touch()
    with pytest.raises(SettingsError, match="images that were not prepared here, such as a"):
        prepare([CaseSource("a")], PrepareSettings(tmp_path / "X", SourceKind.FOLDER, progress=False))


@pytest.mark.parametrize("case", ["../a", ".a", "a/b", "a\\b", ""])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(SettingsError, match="case ids become file names"):
        prepare([CaseSource(case)], PrepareSettings(tmp_path, SourceKind.FOLDER, progress=False))


def test_the_command_prepares_and_its_exit_status_tells(tree: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("CRLM-CT-1001")
    root = str(tree.save())
    main = command("prepare").main
    out = str(tmp_path / "W")
    assert main(["tcia", root, "--out", out, "--cases", "CRLM-CT-1001", "--workers", "1"]) == 0
    assert "1 cases ready" in capsys.readouterr().out
    assert main(["tcia", root, "--out", out, "--workers", "1"]) == 1  # 196 of the 197 are missing
    said = capsys.readouterr()
    assert "196 left out" in said.out
    assert main(["tcia", str(tmp_path / "nothing"), "--out", out]) == 1
    assert f"{tmp_path / 'nothing'}: no such folder" in capsys.readouterr().err


def test_the_command_names_labels_without_a_ct_and_unused_files(
    masks: Any, hu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("ct", "zenodo/p1", "zenodo/p9"):
        (tmp_path / folder).mkdir(parents=True)
    sitk.WriteImage(GRID.image(hu), str(tmp_path / "ct/p1.nii.gz"))
    for name, mask in (("liver", "Liver"), ("crlm", "Tumor_1"), ("flr", "Liver Remnant"), ("vessels", "Portal")):
        for case in ("p1", "p9"):
            sitk.WriteImage(GRID.image(masks[mask]), str(tmp_path / f"zenodo/{case}/{name}.nii.gz"))
    layout = tmp_path / "layout.yaml"
    layout.write_text("structures: {" + ", ".join(f"{n}: '{{case}}/{n}{{ext}}'" for n in ("liver", "crlm", "flr")) + "}")
    arguments = ["refined", str(tmp_path / "zenodo"), "--images", str(tmp_path / "ct"), "--out", str(tmp_path / "W")]
    arguments += ["--no-split", "--workers", "1", "--layout", str(layout)]
    assert command("prepare").main(arguments) == 1
    assert "1 cases ready" in (said := capsys.readouterr().out)
    assert "1 left out" in said
    assert "p9,missing," in (tmp_path / "W/left_out.csv").read_text()
    assert f"not used: 2 image files below the labels\n  {tmp_path}/zenodo/p1/vessels.nii.gz" in caplog.text
    assert command("prepare").main([*arguments, "--allow-missing"]) == 0


def test_the_workflow_prepares_a_download_and_draws_its_split(tree: Any, tmp_path: Path) -> None:
    for number in range(1001, 1005):
        tree.add(f"CRLM-CT-{number}")
    data = DataSettings(DataKind.TCIA, root=tree.save())
    settings = BenchmarkSettings(data=data, split=SplitSettings(held_out=1, folds=2))
    jobs = benchmark_jobs(settings, Places(tmp_path / "W", BENCHMARK, "python"))
    for name, job in zip(("prepare", "draw_split"), jobs, strict=False):
        assert command(name).main(job.command[2:]) == 0
    split = json.loads((tmp_path / "W/splits.json").read_text())
    assert (len(split["test"]), [len(fold) for fold in split["folds"]]) == (1, [2, 1])


def test_a_dry_run_writes_nothing(tree: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("CRLM-CT-1001")
    root = str(tree.save())
    before = sorted(tmp_path.rglob("*"))
    assert command("prepare").main(["tcia", root, "--cases", "CRLM-CT-1001", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "'Liver Remnant' -> flr" in said
    assert "'Portal' -> portal_veins" in said
    assert "'Tumor_2' -> crlm" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_original_and_refined_side_by_side(tree: Any, masks: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("CRLM-CT-1001")
    root = str(tree.save())
    labels = tmp_path / "zenodo/CRLM-CT-1001"
    labels.mkdir(parents=True)
    for name, mask in (("liver", "Liver"), ("crlm", "Tumor_1"), ("flr", "Liver Remnant")):
        sitk.WriteImage(GRID.image(masks[mask]), str(labels / f"{name}.nii.gz"))
    main = command("prepare").main
    one, two = str(tmp_path / "W_original"), str(tmp_path / "W_refined")
    only = ["--cases", "CRLM-CT-1001", "--workers", "1"]
    assert main(["tcia", root, "--out", one, *only]) == 0
    assert main(["refined", str(tmp_path / "zenodo"), "--tcia", root, "--out", two, *only]) == 0
    assert main(["compare", one, two, "--out", str(tmp_path / "C"), "--workers", "1"]) == 0
    # CRLM: 13 voxels before, the 6 of Tumor_1 after; the focus in the lung is gone
    assert "| crlm | 1 | 0.632 | 0.632 (CRLM-CT-1001) | -0.01 | -53.8 | 0 | 7 | 2 | 1 | 1 | 1.9 |" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "C").iterdir()) == ["changes.csv", "changes.md", "changes.png"]


def test_refined_labels_do_not_need_the_seg(tree: Any, masks: Any, tmp_path: Path) -> None:
    tree.add("CRLM-CT-1001")
    tree.rows = tree.rows[:1]
    (tmp_path / "zenodo").mkdir()
    for name, mask in (("liver", "Liver"), ("crlm", "Tumor_1"), ("flr", "Liver Remnant")):
        sitk.WriteImage(GRID.image(masks[mask]), str(tmp_path / f"zenodo/CRLM-CT-1001_{name}.nii.gz"))
    arguments = ["refined", str(tmp_path / "zenodo"), "--tcia", str(tree.save()), "--out", str(tmp_path / "W")]
    assert command("prepare").main([*arguments, "--cases", "CRLM-CT-1001"]) == 0


def test_a_split_is_drawn_from_the_table_and_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "dataset.csv"
    table.write_text("case,tumours,slice_spacing_mm\n" + "".join(f"a{i},{1 + i % 2},1.0\n" for i in range(20)))
    main = command("draw_split").main
    arguments = ["--dataset", str(table), "--held-out", "4", "--out", str(tmp_path / "s.json")]
    assert main(arguments) == 0
    split = json.loads((tmp_path / "s.json").read_text())
    assert sorted(int(i[1:]) % 2 for i in split["test"]) == [0, 0, 1, 1]
    assert [len(f) for f in split["folds"]] == [4, 3, 3, 3, 3]
    assert main(arguments) == 0  # the same draw again: a workflow that goes on
    assert main([*arguments, "--seed", "99"]) == 1
    assert "exists and is another split; it stays as it is" in capsys.readouterr().err
    assert json.loads((tmp_path / "s.json").read_text()) == split
