"""``benchmark/predict.py`` and ``evaluate.py`` as a user runs them: columns, resuming, and cases that trained the model."""

from __future__ import annotations

import io
import json
import logging
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import evaluate as evaluate_command
import predict as predict_command
from flrplan.anatomy import Structure
from flrplan.api import predict
from flrplan.cohort import CohortSettings, write_cohort
from flrplan.engine import MODEL_ROOT, CascadeSettings
from flrplan.errors import EmptyLiverError, ModelError
from flrplan.evaluation import PAPER_COLUMNS, Part
from flrplan.image import CT, Geometry
from flrplan.method import STAGES
from flrplan.nnunet.model import load_checkpoint, write_checkpoint
from flrplan.workfolder import ModelIdentity, WorkFolder

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmark"


def run(command: ModuleType, *arguments: object) -> SimpleNamespace:
    """The command in this process, for a start of its own takes seconds; ``work`` runs both as a user does."""
    said = io.StringIO()
    told = logging.StreamHandler(said)
    logging.getLogger().addHandler(told)
    try:
        with redirect_stderr(said):
            return SimpleNamespace(returncode=command.main([*map(str, arguments)]), stderr=said.getvalue())
    finally:
        logging.getLogger().removeHandler(told)


def probability_of(mask: Path, work: Path) -> Path:
    return work / "probabilities" / mask.relative_to(work / "predictions")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two held-out synthetic cases, of which the view shows little but the liver, predicted by the demo models, evaluated."""
    folder = tmp_path_factory.mktemp("demo") / "work"
    write_cohort(CohortSettings(cases=2, seed=12, size="small", wide=1.0), folder, progress=False)
    (folder / "splits.json").write_text('{"test": ["synth-12-0000", "synth-12-0001"], "folds": []}')
    for script, *options in (
        ("predict.py", "--device", "cpu", "--no-mirroring", "--probabilities"),
        ("evaluate.py", "--note", "not comparable with the paper"),
    ):
        command = [sys.executable, str(BENCHMARK / script), "--work", str(folder), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_the_demo_models_give_every_column_and_the_tables(work: Path) -> None:
    for column in PAPER_COLUMNS[Part.TEST]:
        assert len(list((work / "predictions" / "nnunet" / column).glob("*.nii.gz"))) == 2
    written = {p.name for p in (work / "evaluation").iterdir()}
    assert {"cases.csv", "summary.json", "table1.md", "table2.md", "report.html"} <= written
    summary = json.loads((work / "evaluation" / "summary.json").read_text())
    assert summary["test"]["nnunet"]["pipelined_liver"]["dice"]["mean"] > 0.8
    assert "not comparable" in (work / "evaluation" / "table2.md").read_text()


def test_every_mask_has_its_probability_on_its_grid(work: Path) -> None:
    files = sorted((work / "predictions").rglob("*.nii.gz"))
    assert len(files) == 2 * len(PAPER_COLUMNS[Part.TEST])
    for path in files:
        mask, probability = (sitk.ReadImage(str(p)) for p in (path, probability_of(path, work)))
        assert probability.GetPixelID() == sitk.sitkUInt8
        for of in (sitk.Image.GetSize, sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
            assert of(probability) == of(mask)
        assert np.array_equal(sitk.GetArrayViewFromImage(probability) >= 128, sitk.GetArrayViewFromImage(mask) == 1)


def test_a_second_run_keeps_what_is_there(work: Path) -> None:
    """A mask is gone, and the probability of another one, which is predicted again with its mask."""
    files = {p: p.stat().st_mtime_ns for name in ("predictions", "probabilities") for p in (work / name).rglob("*.nii.gz")}
    masks = sorted(p for p in files if p.is_relative_to(work / "predictions"))
    gone = [masks[0], probability_of(masks[1], work)]
    before = [sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in gone]
    for path in gone:
        path.unlink()
    assert run(predict_command, "--work", work, "--device", "cpu", "--no-mirroring", "--probabilities").returncode == 0
    for path, array in zip(gone, before, strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), array), "the same prediction again"
    assert {p for p, t in files.items() if p.stat().st_mtime_ns != t} == {
        p for m in masks[:2] for p in (m, probability_of(m, work))
    }


class FakeCascade:
    """Each run finds its target in one more voxel, with probability 1 there. From the CT alone it finds no liver in "nothing"."""

    settings = CascadeSettings()
    found = 0

    def run(self, ct: CT, given: object = None, stages: Any = (), on_probability: Any = None) -> SimpleNamespace:
        self.found += 1
        mask = np.zeros(ct.geometry.shape_zyx, bool)
        mask.ravel()[: self.found] = True
        blind = ct.name == "nothing" and not given
        if on_probability is not None:
            on_probability(stages[0].target, np.where(mask & (not blind), 255, 3).astype(np.uint8))
        if blind:
            raise EmptyLiverError("no liver")
        return SimpleNamespace(masks={stages[0].target: mask})


def fake_case(name: str) -> SimpleNamespace:
    ct = CT(np.zeros((2, 3, 4), np.int16), Geometry((4, 3, 2), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0)), name, "made here", ())
    return SimpleNamespace(load=lambda structures: (ct, dict.fromkeys(structures, np.ones((2, 3, 4), bool))))


def voxels_of(path: Path) -> int:
    return int((sitk.GetArrayFromImage(sitk.ReadImage(str(path))) >= (128 if "probabilities" in path.parts else 1)).sum())


def test_a_probability_is_always_that_of_the_mask_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = FakeCascade()
    mask = tmp_path / "predictions" / "nnunet" / "pipelined_liver" / "c1.nii.gz"
    probability = probability_of(mask, tmp_path)

    def part(with_probability: bool) -> object:
        return predict.predict_part(
            {"c1": fake_case("c1")}, ["c1"], cascade, ["pipelined_liver"], WorkFolder(tmp_path), "held-out", with_probability
        )

    assert part(with_probability=False) == []
    assert (voxels_of(mask), probability.exists(), cascade.found) == (1, False, 1)
    with monkeypatch.context() as patch:  # killed between the two files
        patch.setattr(predict, "write_volume", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            part(with_probability=True)
    assert (voxels_of(mask), probability.exists()) == (2, False), "made again because it was asked for"
    part(with_probability=True)
    assert (voxels_of(mask), voxels_of(probability), cascade.found) == (3, 3, 3)
    part(with_probability=True)
    part(with_probability=False)
    assert cascade.found == 3, "all there"
    mask.unlink()
    part(with_probability=False)
    assert (voxels_of(mask), probability.exists()) == (4, False), "that of the mask before is gone with it"


def test_a_liver_that_is_not_found_keeps_its_probability(tmp_path: Path) -> None:
    columns = ["pipelined_liver", "cascaded_crlm", "pipelined_crlm"]
    case = {"n": fake_case("nothing")}
    assert predict.predict_part(case, ["n"], FakeCascade(), columns, WorkFolder(tmp_path), "held-out", True) == []
    masks = [tmp_path / "predictions" / "nnunet" / name / "n.nii.gz" for name in columns]
    assert [voxels_of(mask) for mask in masks] == [0, 0, 2]
    liver, *crlm = (sitk.GetArrayFromImage(sitk.ReadImage(str(probability_of(mask, tmp_path)))) for mask in masks)
    assert liver.min() == 3, "as predicted"
    assert not crlm[0].any(), "no network looked"
    assert (crlm[1] == 255).sum() == 2, "with the true liver one did"


def test_the_cascade_is_one_run_and_a_network_of_several_targets_another() -> None:
    """Each mask in its own column; where the network finds no liver, all of its masks are empty, and so are their probabilities."""
    calls: list[tuple[str, ...]] = []

    class Many(FakeCascade):
        def run(self, ct: CT, given: Any = None, stages: Any = (), on_probability: Any = None) -> SimpleNamespace:
            calls.append((sorted(given), [stage.name for stage in stages]))
            masks = {t: np.full(ct.geometry.shape_zyx, k < 2) for stage in stages for k, t in enumerate(stage.targets)}
            if ct.name == "nothing" and not given:
                on_probability(stages[0].targets[0], np.full(ct.geometry.shape_zyx, 3, np.uint8))
                raise EmptyLiverError("no liver")
            return SimpleNamespace(masks=masks)

    asked = ["pipelined_liver", "cascaded_crlm", "pipelined_crlm", "e2e_multi_liver", "e2e_multi_crlm", "e2e_multi_flr"]
    ct, truth = fake_case("c1").load((Structure.LIVER, Structure.CRLM))
    found = {name: bool(mask.any()) for name, mask, _ in predict.predict_columns(ct, truth, Many(), asked)}
    assert calls == [([], ["liver", "crlm"]), (["liver"], ["crlm"]), ([], ["multi"])]
    assert [name for name in found if not found[name]] == ["e2e_multi_flr"]
    ct, _ = fake_case("nothing").load(())
    blind = list(predict.predict_columns(ct, truth, Many(), asked[3:], with_probability=True))
    assert [(name, mask.any(), p.max()) for name, mask, p in blind] == [
        (asked[3], False, 3),
        (asked[4], False, 0),
        (asked[5], False, 0),
    ]


def test_predictions_of_other_models_are_never_mixed_in(work: Path) -> None:
    record = work / "predicted" / "nnunet" / "held-out.json"
    before = record.read_text()
    record.write_text(json.dumps({**json.loads(before), "crlm": {"0": "of before"}}))
    done = run(predict_command, "--work", work, "--device", "cpu", "--no-mirroring")
    record.write_text(before)
    assert done.returncode == 1
    assert "what is predicted of this part was made of something else (crlm.0 was" in done.stderr


def test_the_record_of_a_part_names_its_cases_and_unchecked_models_and_refuses_those_of_another(tmp_path: Path) -> None:
    cascade = SimpleNamespace(
        settings=CascadeSettings(), identity=lambda stage: ModelIdentity(stage.name, "x", (0,), {"0": "abc"})
    )
    stages = (STAGES["liver"],)
    record = tmp_path / "fold-0.json"
    record.write_text('{"liver": {"0": "abc"}}')  # as an earlier version left it
    predict.require_same_models(record, cascade, stages, ["a2"], ["liver/fold_0"])
    predict.require_same_models(record, cascade, stages, ["a1"], [], {"liver/fold_0": "random weights"})
    content = json.loads(record.read_text())
    assert (content["cases"], content["unrecorded"], content["liver"]) == (["a1", "a2"], ["liver/fold_0"], {"0": "abc"})
    assert content["started_from"] == {"liver/fold_0": "random weights"}
    with pytest.raises(
        ModelError, match=r"predicted as fold-0 before, and now asked for as held-out: a2; use the split of before"
    ):
        predict.require_same_models(tmp_path / "held-out.json", cascade, stages, ["a2", "t1"], [])
    record.write_text('{"liver": {"0": "other"}}')
    with pytest.raises(ModelError, match=r"was made of something else \(liver\.0 was \'other\', is \'abc\'\)"):
        predict.require_same_models(record, cascade, stages, ["a1"], [])


def test_a_model_that_was_trained_on_a_case_is_refused(work: Path, tmp_path: Path) -> None:
    shutil.copytree(MODEL_ROOT / "demo", tmp_path / "models")
    record = tmp_path / "models" / "crlm" / "nnunet" / "fold_0" / "run.json"
    run_json = json.loads(record.read_text())
    record.write_text(json.dumps({**run_json, "train_ids": [*run_json["train_ids"], "synth-12-0001"]}))
    (tmp_path / "splits.json").write_text('{"test": ["synth-12-0000", "synth-12-0001"], "folds": []}')
    done = run(predict_command, "--work", work, "--models", tmp_path / "models", "--splits", tmp_path / "splits.json")
    assert done.returncode == 1
    assert "fold 0 was trained on synth-12-0001, which it is to predict" in done.stderr


def test_a_split_that_does_not_cover_the_cases_is_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text('{"test": ["synth-12-0000"], "folds": []}')
    done = run(predict_command, "--work", work, "--splits", tmp_path / "splits.json")
    assert done.returncode == 1
    assert f"{tmp_path / 'splits.json'} does not fit the cases of {work}:" in done.stderr
    assert "1 cases are not in the split: synth-12-0001" in done.stderr


def test_models_that_are_asked_for_are_never_replaced_by_the_demo_models(work: Path, tmp_path: Path) -> None:
    shutil.copytree(MODEL_ROOT / "demo", tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "flr")
    done = run(predict_command, "--work", work, "--models", tmp_path / "models")
    assert done.returncode == 1
    assert "no nnunet model for stage flr" in done.stderr


def test_an_ensemble_that_lacks_a_fold_is_refused_unless_it_is_stated(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(work, folder, ignore=shutil.ignore_patterns("predict*", "evaluation"))
    for file in [*folder.glob("*/synth-12-0001.nii.gz")]:
        for other in ("b", "c"):
            shutil.copy(file, file.with_name(f"{other}.nii.gz"))
    (folder / "splits.json").write_text('{"test": ["synth-12-0000"], "folds": [["synth-12-0001"], ["b"], ["c"]]}')
    options = ("--work", folder, "--device", "cpu", "--no-mirroring", "--part", "held-out", "--stage", "liver")
    done = run(predict_command, *options)
    assert done.returncode == 1
    assert "fold 2 of the split is not trained" in done.stderr
    assert run(predict_command, *options, "--fold", 0, "--fold", 1).returncode == 0
    assert [p.name for p in (folder / "predictions" / "nnunet").iterdir()] == ["pipelined_liver"], "only what the stage makes"


def test_a_part_that_the_split_has_not(work: Path) -> None:
    done = run(predict_command, "--work", work, "--part", "fold-3")
    assert done.returncode == 1
    assert "no part fold-3; it has held-out" in done.stderr


def test_an_empty_predicted_liver_gives_empty_masks_that_count_as_zero(tmp_path: Path) -> None:
    """A liver model whose logits are far below zero finds nothing. The truth is full, so recall and Dice are 0, not undefined."""
    write_cohort(CohortSettings(cases=1, seed=12, size="small", wide=1.0), tmp_path, progress=False)
    shutil.copytree(MODEL_ROOT / "demo", tmp_path / "models")
    for path in (tmp_path / "models" / "liver").rglob("checkpoint_final.pth"):
        content = load_checkpoint(path)
        for name, tensor in content["network_weights"].items():
            if "seg_layers" in name and name.endswith("bias"):
                content["network_weights"][name] = torch.full_like(tensor, -100)
        write_checkpoint(path, content)
    (tmp_path / "splits.json").write_text('{"test": ["synth-12-0000"], "folds": []}')
    done = run(predict_command, "--work", tmp_path, "--models", tmp_path / "models", "--device", "cpu", "--no-mirroring")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no liver found; its liver, CRLM and FLR are empty" in done.stderr
    for column in ("pipelined_liver", "cascaded_crlm", "cascaded_flr"):
        path = tmp_path / "predictions" / "nnunet" / column / "synth-12-0000.nii.gz"
        assert not sitk.GetArrayFromImage(sitk.ReadImage(str(path))).any()
    assert run(evaluate_command, "--work", tmp_path).returncode == 0
    test = json.loads((tmp_path / "evaluation" / "summary.json").read_text())["test"]["nnunet"]
    assert test["pipelined_liver"]["dice"]["mean"] == test["cascaded_flr"]["dice"]["mean"] == 0.0
