"""Which masks a training gets, from the settings down to the prepared files."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from flrplan.anatomy import Structure
from flrplan.cli import main
from flrplan.errors import LabelError, SettingsError
from flrplan.image import write_label_map
from flrplan.input_masks import DEFAULT_ERRORS, errors_of_predictions, masks_for_training, with_predictions
from flrplan.input_masks.predictions import column_of
from flrplan.method import CRLM, FLR, LIVER, InputMasks, InputSettings
from flrplan.method.stage_input import AIR_HU
from flrplan.workfolder import Case, find_labelled_cases

SPACING_MM = 8


@pytest.fixture
def cohort(tiny_cohort: Path) -> Path:
    return tiny_cohort


@pytest.fixture(scope="module")
def predictions(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true liver without its outermost voxels, and no lesion at all."""
    folder = tmp_path_factory.mktemp("predictions")
    for case in find_labelled_cases(tiny_cohort):
        ct, truth = case.load((Structure.LIVER,))
        smaller = ndimage.binary_erosion(truth[Structure.LIVER])
        for structure, mask in ((Structure.LIVER, smaller), (Structure.CRLM, np.zeros_like(smaller))):
            write_label_map(folder / column_of(structure) / f"{case.case_id}.nii.gz", mask, ct.geometry)
    return folder


def loaded(case: Case) -> tuple:
    return case.load((Structure.LIVER, Structure.CRLM))


def test_predictions_are_those_of_the_cascade() -> None:
    assert column_of(Structure.LIVER) == "pipelined_liver", "the first stage takes the CT alone"
    assert column_of(Structure.CRLM) == "cascaded_crlm"


def test_ground_truth_and_a_stage_without_masks(cohort: Path) -> None:
    case = find_labelled_cases(cohort)[0]
    ct, truth = loaded(case)
    assert masks_for_training(case, ct, truth, FLR, InputMasks.GROUND_TRUTH) == truth
    assert masks_for_training(case, ct, truth, LIVER, InputMasks.PERTURBED) == {}


def test_predicted_masks(cohort: Path, predictions: Path) -> None:
    case = with_predictions(find_labelled_cases(cohort), FLR, predictions)[1]
    ct, truth = loaded(case)
    masks = masks_for_training(case, ct, truth, FLR, InputMasks.PREDICTED_OOF)
    assert np.array_equal(masks[Structure.LIVER], ndimage.binary_erosion(truth[Structure.LIVER]))
    assert not masks[Structure.CRLM].any()


def test_predicted_masks_that_are_not_there(cohort: Path, predictions: Path, tmp_path: Path) -> None:
    cases = find_labelled_cases(cohort)
    ct, truth = loaded(cases[0])
    with pytest.raises(LabelError, match=r"predicted liver of every training case.*--predictions DIR"):
        masks_for_training(cases[0], ct, truth, CRLM, InputMasks.PREDICTED_OOF)
    shutil.copytree(predictions / "pipelined_liver", tmp_path / "pipelined_liver")
    with pytest.raises(SettingsError, match=rf"4 predicted masks are missing.*cascaded_crlm.*{cases[0].case_id}"):
        with_predictions(cases, FLR, tmp_path)


def test_a_liver_that_was_not_found_leaves_the_true_masks(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = find_labelled_cases(cohort)[0]
    ct, truth = loaded(case)
    write_label_map(tmp_path / "pipelined_liver" / f"{case.case_id}.nii.gz", np.zeros(ct.geometry.shape_zyx, bool), ct.geometry)
    case = with_predictions([case], CRLM, tmp_path)[0]
    with caplog.at_level(logging.WARNING):
        masks = masks_for_training(case, ct, truth, CRLM, InputMasks.PREDICTED_OOF)
    assert np.array_equal(masks[Structure.LIVER], truth[Structure.LIVER])
    assert f"case {case.case_id}: no liver was predicted" in caplog.text


def test_perturbed_masks_are_the_same_at_every_call_and_for_every_stage(cohort: Path) -> None:
    first, second = find_labelled_cases(cohort)[:2]
    ct, truth = loaded(first)
    once, again = (masks_for_training(first, ct, truth, FLR, InputMasks.PERTURBED) for _ in range(2))
    for structure in FLR.needs:
        assert np.array_equal(once[structure], again[structure])
        assert not np.array_equal(once[structure], truth[structure])
    crlm = masks_for_training(first, ct, truth, CRLM, InputMasks.PERTURBED)
    assert np.array_equal(crlm[Structure.LIVER], once[Structure.LIVER])
    other = masks_for_training(second, *loaded(second), CRLM, InputMasks.PERTURBED)
    assert (
        other[Structure.LIVER].shape != once[Structure.LIVER].shape or (other[Structure.LIVER] != once[Structure.LIVER]).any()
    )


def test_errors_are_measured_where_there_are_predictions(cohort: Path, predictions: Path) -> None:
    cases = find_labelled_cases(cohort)
    assert errors_of_predictions(cases) == DEFAULT_ERRORS
    errors = errors_of_predictions(with_predictions(cases, FLR, predictions))
    assert errors.cases == 4
    assert errors.liver.shift_mean_mm < -1
    assert all(errors.lesions.missed[size] == 1.0 for size in errors.lesions.missed if size.value != "<10 mm")
    assert errors.lesions.invented_per_case == 0
    assert json.loads(json.dumps(errors.to_json()))["lesions"]["missed"]["10-20 mm"] == 1.0


def test_the_setting() -> None:
    assert InputSettings().input_masks is InputMasks.GROUND_TRUTH
    assert InputSettings.from_json({"input_masks": "perturbed"}).to_json()["input_masks"] == "perturbed"
    assert InputSettings.from_json({}).input_masks is InputMasks.GROUND_TRUTH, "models of before the setting"
    with pytest.raises(SettingsError, match="input_masks must be 'ground_truth', 'perturbed' or 'predicted_oof', got 'true'"):
        InputSettings.from_json({"input_masks": "true"})


def prepare(cohort: Path, work: Path, *options: str) -> int:
    recipe = work.with_suffix(".yaml")
    recipe.write_text(
        f"common: {{plan: {{spacing_zyx_mm: [{SPACING_MM}, 6, 6], patch_size_zyx: [16, 24, 24], features: [4, 8], resampling: torch}}}}"
    )
    words = ["train", "--cases", str(cohort), "--stage", "crlm", "--folds", "2", "--recipe", str(recipe), "--work", str(work)]
    return main([*words, "--prepare-only", *options])


def test_from_the_command_line_to_the_inputs(cohort: Path, predictions: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert prepare(cohort, work, "--input-masks", "predicted_oof", "--predictions", str(predictions)) == 0
    case = find_labelled_cases(cohort)[0]
    _, truth = case.load((Structure.LIVER,))
    smaller = ndimage.binary_erosion(truth[Structure.LIVER])
    channel = sitk.ReadImage(str(work / "crlm" / "raw" / "Dataset502_crlm" / "imagesTr" / f"{case.case_id}_0000.nii.gz"))
    seen = int((sitk.GetArrayViewFromImage(channel) != AIR_HU).sum())
    assert seen == np.count_nonzero(smaller)
    dataset = json.loads((work / "crlm" / "preprocessed" / "Dataset502_crlm" / "dataset.json").read_text())
    assert dataset["flrplan"]["input"]["input_masks"] == "predicted_oof"


def test_perturbed_masks_take_the_errors_of_predictions_and_record_them(
    cohort: Path, predictions: Path, tmp_path: Path
) -> None:
    assert prepare(cohort, tmp_path / "work", "--input-masks", "perturbed", "--predictions", str(predictions)) == 0
    record = json.loads((tmp_path / "work" / "crlm" / "prepared.json").read_text())
    assert record["mask_errors"]["cases"] == 4
    assert record["mask_errors"]["liver"]["shift_mean_mm"] < -1


def test_predictions_without_the_setting(
    cohort: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(cohort, tmp_path / "work", "--predictions", str(predictions)) != 0
    assert "--predictions is for --input-masks perturbed or predicted_oof" in capsys.readouterr().err
