"""What cannot be trained is said before the training, with the case, the file or the setting that is to blame."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

from flrplan.cli import main
from flrplan.errors import GridError, LabelError, OutputError, SettingsError, TrainingError
from flrplan.files import write_json
from flrplan.image import read_label_map, write_label_map
from flrplan.method import CRLM, FLR, LIVER, Recipe, Stage
from flrplan.nnunet.prepare import preparation
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import SPLITS_NAME, Split, find_labelled_cases, nnunet_split

CPU = torch.device("cpu")


@pytest.fixture
def cohort(tiny_cohort: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_cohort, tmp_path / "cohort"))


def labels_of(cohort: Path) -> list[Path]:
    return sorted((cohort / "labels").iterdir())


def prepare(cohort: Path, recipe: Recipe, stage: Stage = FLR, folds: int = 2) -> None:
    cases = find_labelled_cases(cohort)
    prepare_stage(cases, StageWork(cohort.parent / "work", stage), recipe, nnunet_split([c.case_id for c in cases], folds))


def edit_label(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    array, geometry = read_label_map(path)
    write_label_map(path, change(array).astype(np.uint8), geometry)


def test_no_labels(cohort: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    shutil.rmtree(cohort / "labels")
    with pytest.raises(LabelError, match=r"synth-5-0000.nii.gz has no label; expected .*labels"):
        prepare(cohort, tiny_recipe())


def test_images_that_would_not_be_used_are_refused_and_junk_is_not(cohort: Path) -> None:
    known = [c.case_id for c in find_labelled_cases(cohort)]
    (cohort / "images" / "._synth-5-0000.nii.gz").write_bytes(b"\0\5\26\7")
    (cohort / "images" / "notes.txt").write_text("x")
    assert [c.case_id for c in find_labelled_cases(cohort)] == known
    for name in ("a.nrrd", "b.NII.GZ"):
        (cohort / "images" / name).touch()
    with pytest.raises(
        LabelError, match=r"expected <case>.nii.gz alone, found a.nrrd, b.NII.GZ \(2 images that would not be used\)"
    ):
        find_labelled_cases(cohort)


def test_fewer_cases_than_folds(cohort: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(SettingsError, match="5 folds need at least 5 cases to train on, found 4"):
        prepare(cohort, tiny_recipe(), folds=5)


def test_labels_of_other_structures(cohort: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    """The first case has a liver only, so it cannot train the stage that needs the metastases."""
    first = labels_of(cohort)[0]
    array, geometry = read_label_map(first)
    case_id = first.name.removesuffix(".nii.gz")
    write_label_map(cohort / "masks" / case_id / "liver.nii.gz", (array > 0).astype(np.uint8), geometry)
    first.unlink()
    message = (
        f"case {case_id}: no file states crlm: expected {cohort / 'masks' / case_id / 'crlm.nii.gz'} or a planning map, "
        f"found {cohort / 'masks' / case_id / 'liver.nii.gz'}. Add one of them (an empty mask where "
        "there is no crlm), or take the case out of the split"
    )
    with pytest.raises(LabelError, match=f"^{re.escape(message)}$"):
        prepare(cohort, tiny_recipe(), CRLM)


def test_labels_of_another_meaning(cohort: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    path = labels_of(cohort)[1]
    edit_label(path, lambda array: np.where(array == 1, 7, array))
    message = (
        f"case synth-5-0001: {path}: a planning label map holds 0..4 (1 remnant, 2 resection, 3 crlm_in_resection, 4 crlm_in_remnant), "
        "found [7]; give these voxels one of those values and save the map again"
    )
    with pytest.raises(LabelError, match=f"^{re.escape(message)}$"):
        prepare(cohort, tiny_recipe(), LIVER)


def test_image_and_label_on_different_grids(cohort: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    path = labels_of(cohort)[0]
    array, geometry = read_label_map(path)
    x, y, z = geometry.origin_mm
    moved = replace(geometry, origin_mm=(x + 30, y, z))
    write_label_map(path, array, moved)
    image = cohort / "images" / path.name
    parts = (
        f"case synth-5-0000: {path} is not on the grid of {image}.",
        f"expected ({image}): size {'x'.join(map(str, geometry.size_xyz))}",
        f"origin ({x:.2f}, {y:.2f}, {z:.2f})",
        f"found    ({path}): size",
        f"origin ({x + 30:.2f}, {y:.2f}, {z:.2f})",
        "Resample it onto that grid with nearest neighbour",
    )
    with pytest.raises(GridError, match=r"(?s)^" + ".*".join(map(re.escape, parts))):
        prepare(cohort, tiny_recipe())


def test_an_empty_target_in_every_case(cohort: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    for path in labels_of(cohort):
        edit_label(path, lambda array: np.where(array > 2, array - 2, array))
    message = (
        f"stage crlm: the target crlm is empty in all 4 cases of {cohort / 'labels'}, expected voxels of it in some; nothing can be "
        "learned. Label crlm where it is to be seen, or add cases that show it"
    )
    with pytest.raises(LabelError, match=f"^{re.escape(message)}$"):
        prepare(cohort, tiny_recipe(), CRLM)


def test_an_empty_target_in_every_training_case_of_a_fold(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe]) -> None:
    prepared = json.loads(tiny_work.marker.read_text())
    voxels = {case_id: int(case_id not in prepared["folds"][0]["train"]) for case_id in prepared["target_voxels"]["flr"]}
    write_json(tiny_work.marker, {**prepared, "target_voxels": {"flr": voxels}})
    with pytest.raises(LabelError, match="stage flr fold 0: the target flr is empty in all 2 training cases"):
        train_fold(tiny_work, 0, tiny_recipe(), tiny_work.root / "models", CPU)


def test_held_out_ids_never_train(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe]) -> None:
    """Whether the caller holds them out, the split of the preparation did, or somebody edited nnU-Net's own file."""
    models = tiny_work.root / "models"
    path = tiny_work.preprocessed / SPLITS_NAME
    folds = json.loads(path.read_text())
    held_out = folds[0]["train"][0]
    message = rf"fold 0 holds cases that the split calls test: {held_out}; held-out cases never train"
    with pytest.raises(SettingsError, match=message):
        train_fold(tiny_work, 0, tiny_recipe(), models, CPU, held_out=[held_out])
    with pytest.raises(SettingsError, match="calls test"):
        train_fold(tiny_work, 1, tiny_recipe(), models, CPU, held_out=[held_out])  # it would validate there
    prepared = json.loads(tiny_work.marker.read_text())
    write_json(tiny_work.marker, {**prepared, "test": [held_out]})
    with pytest.raises(SettingsError, match=message):
        train_fold(tiny_work, 0, tiny_recipe(), models, CPU)
    write_json(path, [{"train": folds[0]["train"], "val": folds[0]["train"]}])
    with pytest.raises(SettingsError, match="fold 0 trains on its own validation cases"):
        train_fold(tiny_work, 0, tiny_recipe(), models, CPU)
    assert not models.exists()


def test_the_trainer_itself_asks_too(make_trainer: Callable[..., object], tiny_work: StageWork) -> None:
    trainer = make_trainer()
    train, _ = trainer.do_split()  # type: ignore[attr-defined]
    trainer.held_out = frozenset(train[:1])  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match="held-out cases never train"):
        trainer.get_dataloaders()  # type: ignore[attr-defined]


def test_held_out_cases_are_not_even_prepared(cohort: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    split = {"test": ["synth-5-0003"], "folds": [["synth-5-0000"], ["synth-5-0001", "synth-5-0002"]]}
    write_json(cohort / "splits.json", split)  # where the benchmark's work folder has it: used unasked
    write_json(cohort / "recipe.yaml", {"common": tiny_recipe(epochs=1).to_json()})
    words = ["train", "--cases", cohort, "--stage", "flr", "--fold", "0", "--work", cohort.parent / "work", "--device", "cpu"]
    words += ["--models", cohort.parent / "models", "--recipe", cohort / "recipe.yaml"]
    assert main([str(word) for word in words]) == 0
    assert not list((cohort.parent / "work").rglob("synth-5-0003*"))
    run = json.loads((cohort.parent / "models" / "flr" / "nnunet" / "fold_0" / "run.json").read_text())
    assert run["test_ids"] == ["synth-5-0003"]
    assert run["train_ids"] == ["synth-5-0001", "synth-5-0002"]


def test_a_gpu_that_is_not_there(cohort: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    words = ["train", "--cases", str(cohort), "--stage", "flr", "--work", str(cohort.parent / "work")]
    for more, message in (
        (["--device", "cuda:1"], "device cuda:1 was asked for, but 0 CUDA devices are there; use auto or cpu"),
        (["--gpus", "2"], "2 GPUs were asked for, but no CUDA device is there; --device cpu tries it on a CPU"),
        (["--gpus", "0"], "--gpus must be at least 1, got 0"),
    ):
        assert main([*words, *more]) == 1
        assert message in capsys.readouterr().err
    assert not (cohort.parent / "work").exists()


def test_a_fold_that_is_being_trained(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe]) -> None:
    def again(_: object) -> None:
        train_fold(tiny_work, 0, tiny_recipe(), tiny_work.root / "models", CPU)

    with pytest.raises(TrainingError, match="is being trained by another process; wait for it"):
        train_fold(tiny_work, 0, tiny_recipe(), tiny_work.root / "models", CPU, on_epoch=again)


def test_not_prepared(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(SettingsError, match="flr is not prepared for training"):
        train_fold(StageWork(tmp_path, FLR), 0, tiny_recipe(), tmp_path / "models", CPU)


def test_a_preprocessing_that_fails_is_not_taken_for_whole(
    cohort: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, kind, message in (
        (OSError(28, "No space left on device"), OutputError, r"work/flr: the disk is full \(.* free\); make room or use"),
        (
            ValueError("could not broadcast"),
            TrainingError,
            r"work/flr: planning or preprocessing failed, which case is not known: ValueError: could not broadcast\. Start again with one "
            r"worker \(--workers 1\): what is whole is kept$",
        ),
    ):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(preparation, "plan_and_preprocess", fail)
        with pytest.raises(kind, match=message):
            prepare(cohort, tiny_recipe())
        assert not (cohort.parent / "work" / "flr" / "prepared.json").exists()


def test_a_case_that_cannot_be_preprocessed_is_named(
    cohort: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = DefaultPreprocessor.run_case_save

    def fail_at_one(self: DefaultPreprocessor, out: str, *rest: object) -> None:
        if out.endswith("synth-5-0002"):
            raise ValueError("could not broadcast")
        run(self, out, *rest)

    monkeypatch.setattr(DefaultPreprocessor, "run_case_save", fail_at_one)
    message = (
        r"^.*work/flr: preprocessing case synth-5-0002 \(made into .*imagesTr/synth-5-0002_0000\.nii\.gz, .*_0001\.nii\.gz\) failed: "
        r"ValueError: could not broadcast\. Correct that image or label, or take the case out of the split, and start again$"
    )
    with pytest.raises(TrainingError, match=message):
        prepare(cohort, tiny_recipe())
    monkeypatch.undo()
    prepare(cohort, tiny_recipe())


def test_the_name_of_a_case_comes_through_from_another_process() -> None:
    error = ValueError("could not broadcast")
    error.add_note("case 7")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["case 7"]


@pytest.mark.parametrize("folds", [(), (("synth-5-0000",),)])
def test_a_split_that_only_evaluates(
    cohort: Path, tiny_recipe: Callable[..., Recipe], folds: tuple[tuple[str, ...], ...]
) -> None:
    work = StageWork(cohort.parent / "work", FLR)
    with pytest.raises(SettingsError, match="it can evaluate but not train; give one with at least 2 folds"):
        prepare_stage(find_labelled_cases(cohort), work, tiny_recipe(), Split(folds))


def test_a_split_without_training_cases() -> None:
    from flrplan.workfolder import require_fold

    split = Split((("a",), ()))
    with pytest.raises(SettingsError, match="fold 0 has 0 cases to train on and 1 to validate"):
        require_fold([{"train": split.train_ids(0), "val": split.validation_ids(0)}], 0)


def test_names_and_folders_of_nnunet(cohort: Path) -> None:
    first = labels_of(cohort)[0]
    case_id = first.name.removesuffix(".nii.gz")
    image = cohort / "images" / first.name
    image.rename(image.with_name(f"{case_id}_0000.nii.gz"))
    (case,) = [c for c in find_labelled_cases(cohort) if c.case_id == case_id]
    assert (case.truth.planning_map, case.image.name) == (first, f"{case_id}_0000.nii.gz")
    shutil.copy(case.image, image.with_name(f"{case_id}_0001.nii.gz"))
    with pytest.raises(LabelError, match=r"_0001.nii.gz has no label; .*a second channel of nnU-Net\? A case is one CT"):
        find_labelled_cases(cohort)
    for name in ("images", "labels"):
        (cohort / name).rename(cohort / f"{name}Tr")
    with pytest.raises(
        LabelError, match=rf"(?s){cohort} is nnU-Net's raw data: .*values: \[1, 2\].*prepare\.py folder {cohort}"
    ):
        find_labelled_cases(cohort)
