"""``run.json`` says what ran on which data; stages share channels; what a full disk left is made again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flrplan.errors import OutputError
from flrplan.image import read_label_map, write_label_map
from flrplan.method import CRLM, FLR, FLR_E2E, LIVER, Recipe
from flrplan.nnunet.model import checkpoint, write_checkpoint
from flrplan.nnunet.prepare.dataset import convert_dataset
from flrplan.nnunet.prepare.preprocessed import expected_bytes, is_whole, preprocess_cases, require_whole
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.provenance import commit, device_name
from flrplan.nnunet.train.training_run import StageWork
from flrplan.workfolder import find_labelled_cases

CPU = torch.device("cpu")


def test_what_a_training_leaves(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    path = train_fold(tiny_work, 1, tiny_recipe(), tmp_path / "models", CPU)
    run = json.loads((path.parent / "run.json").read_text())
    prepared = json.loads(tiny_work.marker.read_text())
    assert run["data_sha256"] == prepared["data_sha256"]
    assert (run["stage"], run["fold"], run["device"]) == ("flr", 1, "cpu")
    assert set(run["train_ids"]) | set(run["validation_ids"]) == set(prepared["cases_sha256"])
    assert run["environment"]["device_name"] == device_name(CPU)
    assert run["environment"]["peak_memory_bytes"] > 50_000_000
    resolved = run["resolved"]
    assert (resolved["batch_size"], resolved["patches_at_once"], resolved["processes"], resolved["workers"]) == (2, 2, 1, 0)
    assert (resolved["precision"], resolved["compiled"], resolved["iterations"]) == ("float32", False, 4)
    assert run["versions"]["torch"] == torch.__version__
    assert run["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(\+dirty)?", run["commit"])
    assert run["started"] <= run["finished"]
    assert run["started"].endswith("+00:00")
    assert set(run["result"]) == {"train_loss", "validation_loss", "pseudo_dice_ema"}
    assert (path.parent / "curve.png").read_bytes().startswith(b"\x89PNG")
    (events,) = tiny_work.folder.rglob("tensorboard")
    scalars = EventAccumulator(str(events)).Reload()
    assert [event.step for event in scalars.Scalars("loss/train")] == [0, 1]
    assert scalars.Scalars("loss/train")[-1].value == pytest.approx(run["result"]["train_loss"], abs=1e-3)
    assert {"loss/validation", "pseudo_dice", "learning_rate", "iterations_per_second"} <= set(scalars.Tags()["scalars"])


def test_the_data_hash_follows_the_content(tiny_cohort: Path, tmp_path: Path) -> None:
    cohort = Path(shutil.copytree(tiny_cohort, tmp_path / "cohort"))
    before, copied = find_labelled_cases(tiny_cohort)[0].sha256(), find_labelled_cases(cohort)[0]
    assert copied.sha256() == before, "neither the folder nor the time of a file matters"
    assert copied.truth.planning_map is not None
    array, geometry = read_label_map(copied.truth.planning_map)
    array[0, 0, 0] = 1
    write_label_map(copied.truth.planning_map, array, geometry)
    assert copied.sha256() != before


def test_the_commit_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "flrplan"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr("flrplan.__file__", str(package / "__init__.py"))
    assert commit() is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    clean = commit()
    assert clean is not None
    assert re.fullmatch("[0-9a-f]{40}", clean)
    (package / "__init__.py").write_text("changed")
    assert commit() == f"{clean}+dirty"


def test_stages_share_channels(tiny_cohort: Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    cases = find_labelled_cases(tiny_cohort)[:1]
    for stage in (LIVER, FLR_E2E, CRLM, FLR):
        convert_dataset(cases, stage, tiny_recipe().input, tmp_path / "raw", shared=tmp_path / "shared")
    files = {(p.parts[-3].split("_", 1)[1], p.name[-11:-7]): p.stat().st_ino for p in tmp_path.glob("raw/*/imagesTr/*")}
    assert files["liver", "0000"] == files["flr_e2e", "0000"], "the whole CT"
    assert files["crlm", "0000"] == files["flr", "0000"], "the CT in the liver"
    assert len(set(files.values())) == 3, "and the metastases, a channel of flr"
    assert len(list((tmp_path / "shared").iterdir())) == 3


def test_a_damaged_preprocessed_case_is_made_again(tiny_work: StageWork) -> None:
    plans = json.loads((tiny_work.preprocessed / "nnUNetPlans.json").read_text())
    arrays = tiny_work.preprocessed / "nnUNetPlans_3d_fullres"
    raw = tiny_work.folder / "raw" / "Dataset503_flr"
    whole, cut, missing, _ = sorted(p.stem for p in arrays.glob("*.pkl"))
    for name, size in ((f"{cut}.b2nd", 400), (f"{missing}_seg.b2nd", 0)):
        os.truncate(arrays / name, size)
    assert is_whole(arrays, whole)
    with pytest.raises(OutputError, match=rf"{cut}: the preprocessed case cannot be read back"):
        require_whole(arrays, [cut])
    assert not is_whole(arrays, missing)
    untouched = (arrays / f"{whole}.b2nd").stat().st_mtime_ns
    preprocess_cases(raw, tiny_work.preprocessed, plans, "3d_fullres", 1)
    assert is_whole(arrays, cut)
    assert is_whole(arrays, missing)
    assert (arrays / f"{whole}.b2nd").stat().st_mtime_ns == untouched


def test_expected_bytes(tmp_path: Path) -> None:
    """10 x 20 x 20 voxels of 4 x 1 x 1 mm at 2 mm are 20 x 10 x 10 voxels: two float32 channels and int16 labels each."""
    (tmp_path / "dataset_fingerprint.json").write_text('{"shapes_after_crop": [[10, 20, 20]], "spacings": [[4, 1, 1]]}')
    plan = {"spacing": [2, 2, 2], "normalization_schemes": ["a", "b"]}
    plans = {"transpose_forward": [0, 1, 2], "configurations": {"3d_fullres": plan}}
    assert expected_bytes(tmp_path, plans, "3d_fullres") == 2000 * 10 / 4


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk(tiny_work: StageWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        small, large = {"weights": torch.rand(100)}, {"weights": torch.rand(100_000)}
        path = disk / "training_state.pth"
        write_checkpoint(path, small)
        with pytest.raises(
            OutputError, match=r"disk: the checkpoint training_state.pth needs about 400 kB, but only .* are free"
        ):
            write_checkpoint(path, large)
        monkeypatch.setattr(checkpoint, "require_room", lambda *_: None)  # as if others filled the disk meanwhile
        with pytest.raises(OutputError, match=r"could not write .*training_state.pth: .*check that the disk has room"):
            write_checkpoint(path, large)
        assert torch.equal(checkpoint.load_checkpoint(path)["weights"], small["weights"])
        assert [p.name for p in disk.iterdir()] == ["training_state.pth"]
        path.unlink()
        plans = json.loads((tiny_work.preprocessed / "nnUNetPlans.json").read_text())
        plans["configurations"]["3d_fullres"]["spacing"] = [2, 2, 2]
        raw = tiny_work.folder / "raw" / "Dataset503_flr"
        with pytest.raises((OSError, RuntimeError)):
            preprocess_cases(raw, disk, plans, "3d_fullres", 1)
        assert not is_whole(disk / "nnUNetPlans_3d_fullres", "synth-5-0003")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
