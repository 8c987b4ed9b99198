"""Probabilities: coded so that they agree with the mask, from the same numbers, of unions of labels, on the CT's grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from flrplan.anatomy import Mask, Structure
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.image import CT
from flrplan.method import CRLM, MASK_FROM, Probability, build_stage_input
from flrplan.method.probabilities import encode
from flrplan.nnunet.model import ModelFolder, StagePredictor

Target = Callable[[LabelManager, tuple[int, ...], torch.Tensor], tuple[Mask, Probability]]


def test_a_byte_is_above_127_exactly_where_the_probability_is_above_one_half() -> None:
    half = np.float32(0.5)
    p = np.array([0, 1 / 255, 0.25, np.nextafter(half, np.float32(0)), half, np.nextafter(half, np.float32(1)), 1], np.float32)
    assert encode(p).tolist() == [0, 1, 64, 127, 127, MASK_FROM, 255]
    assert encode(p).dtype == np.uint8


@pytest.fixture
def predictor(demo_store: ModelStore) -> StagePredictor:
    """One of its own, which a test may change."""
    return StagePredictor(ModelFolder.open(demo_store.find(CRLM, "nnunet").folder.path), torch.device("cpu"))


@pytest.fixture
def target(predictor: StagePredictor) -> Target:
    """What of some labels and values becomes of logits ``(C, Z, Y, X)``."""

    def of(labels: LabelManager, values: tuple[int, ...], logits: torch.Tensor) -> tuple[Mask, Probability]:
        predictor._predictor.label_manager = labels
        mask, probability = predictor._target(logits, values, with_probability=True)
        assert probability is not None
        return mask, probability

    return of


def voxels(*rows: list[float]) -> torch.Tensor:
    """Logits whose softmax, or sigmoid, are these: a row per output, a column per voxel."""
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 1, 1, -1).float()


def test_of_labels_that_exclude_each_other_it_is_the_sum_and_the_mask_stays_the_likeliest_label(target: Target) -> None:
    """Liver = parenchyma or tumour. 0.4 background, 0.32 and 0.28: 0.6, though the background is the likeliest label."""
    labels = LabelManager({"background": 0, "parenchyma": 1, "tumour": 2}, None)
    p = np.array([[0.4, 0.4, 0.2, 0.88], [0.32, 0.48, 0.12, 0.06], [0.28, 0.12, 0.68, 0.06]])
    logits = voxels(*np.log(p).tolist())
    mask, probability = target(labels, (1, 2), logits)
    assert probability.ravel().tolist() == [153, 153, 204, 31]  # 255 x (0.6, 0.6, 0.8, 0.12)
    assert mask.ravel().tolist() == [False, True, True, False]
    mask, probability = target(labels, (2,), logits)
    assert probability.ravel().tolist() == [71, 31, 173, 15]  # 71.4, 30.6, 173.4, 15.3
    assert mask.ravel().tolist() == [False, False, True, False]


def test_of_regions_it_is_the_greatest_of_those_inside_the_target(target: Target) -> None:
    """LiTS style: liver = [1, 2], tumour = 2. A tumour that the liver's output misses is liver, as nnU-Net's mask has it."""
    labels = LabelManager({"background": 0, "liver": [1, 2], "tumour": 2}, [1, 2])
    p = np.array([[0.8, 0.2, 0.2], [0.12, 0.6, 0.12]])
    logits = voxels(*np.log(p / (1 - p)).tolist())
    mask, probability = target(labels, (1, 2), logits)
    assert probability.ravel().tolist() == [204, 153, 51]
    assert mask.ravel().tolist() == [True, True, False]
    mask, probability = target(labels, (2,), logits)
    assert probability.ravel().tolist() == [31, 153, 31]
    assert mask.ravel().tolist() == [False, True, False]


@pytest.mark.parametrize(
    "labels",
    [
        LabelManager({"background": 0, "crlm": [1, 2]}, [1]),
        LabelManager({"background": 0, "crlm": [1, 2], "core": 2}, [1, 2]),
        LabelManager({"background": 0, "crlm": 1}, None),
        LabelManager({"background": 0, "crlm": 1, "other": 2}, None),
    ],
    ids=["region", "regions", "label", "labels"],
)
def test_the_mask_is_bit_by_bit_that_of_nnunets_own_export(predictor: StagePredictor, labels: LabelManager) -> None:
    """Another spacing, an axis order of its own and a crop: resampled, thresholded and put back as nnU-Net does it."""
    plans = predictor._predictor.plans_manager
    plans.plans.update(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    properties: dict[str, Any] = {
        "spacing": [5.0, 0.8, 1.0],
        "shape_before_cropping": (13, 9, 17),
        "bbox_used_for_cropping": [[2, 12], [0, 9], [3, 17]],
        "shape_after_cropping_and_before_resampling": (10, 9, 14),
    }
    logits = torch.randn(labels.num_segmentation_heads, 6, 7, 8, generator=torch.Generator().manual_seed(3))
    theirs = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.clone(), plans, predictor._predictor.configuration_manager, labels, properties, num_threads_torch=1
    )
    predictor._predictor.label_manager = labels
    values = (1,) if "other" in labels.label_dict else (1, 2)
    found = predictor._target(predictor._resampled(logits, properties), values, with_probability=True)
    mask, probability = (predictor._uncropped(array, properties) for array in found if array is not None)
    assert np.array_equal(mask, np.isin(theirs, values))
    assert 0.1 < mask.mean() < 0.6
    assert not probability[:, :, :2].any(), "outside the crop, in the order of the input"
    if "other" not in labels.label_dict:  # a union of one, or regions: agree by construction
        assert np.array_equal(mask, probability >= MASK_FROM)


def test_the_cascade_hands_on_each_predicted_probability_on_the_grid_of_the_ct(
    demo_store: ModelStore, small_ct: CT, small_truth: dict[Structure, Mask]
) -> None:
    cascade = Cascade(demo_store, CascadeSettings(device="cpu", largest_liver=False))
    given = {Structure.LIVER: small_truth[Structure.LIVER]}
    kept: dict[Structure, Probability] = {}
    mask = cascade.run(small_ct, given, (CRLM,), on_probability=kept.__setitem__).masks[Structure.CRLM]
    assert set(kept) == {Structure.CRLM}, "a given mask has none"
    probability = kept[Structure.CRLM]
    assert probability.dtype == np.uint8
    assert np.array_equal(probability >= MASK_FROM, mask)
    assert len(np.unique(probability)) > 50
    assert np.array_equal(cascade.run(small_ct, given, (CRLM,)).masks[Structure.CRLM], mask), "the same without a probability"
    predictor, _ = demo_store.predictor(CRLM, "nnunet", cascade.device)
    region = build_stage_input(small_ct.array_zyx, small_ct.geometry, given, CRLM, predictor.folder.input)
    seen = region.restore(np.ones(region.geometry.shape_zyx, bool))
    assert 0 < seen.mean() < 1
    assert not probability[~seen].any()


def test_each_folds_own_probability_is_that_of_the_fold_alone_and_the_ensemble_stays_as_it_is(
    demo_store: ModelStore, small_ct: CT, small_truth: dict[Structure, Mask]
) -> None:
    cascade = Cascade(demo_store, CascadeSettings(device="cpu"))
    given = {Structure.LIVER: small_truth[Structure.LIVER]}
    kept: dict[Structure, Probability] = {}
    found: list[tuple[Probability, ...]] = []
    cascade.run(small_ct, given, (CRLM,), on_probability=kept.__setitem__, on_folds={Structure.CRLM: found.append})
    predictor, _ = demo_store.predictor(CRLM, "nnunet", cascade.device)
    region = build_stage_input(small_ct.array_zyx, small_ct.geometry, given, CRLM, predictor.folder.input)
    (folds,) = found
    assert len(folds) == len(predictor.folder.folds) == 2
    for fold, own in zip(predictor.folder.folds, folds, strict=True):
        alone = StagePredictor(predictor.folder.with_folds((fold,)), cascade.device)
        assert np.array_equal(region.restore(alone.predict_with_probability(region)[Structure.CRLM][1]), own)
    assert not np.array_equal(*folds)
    again = predictor.predict_with_probability(region)[Structure.CRLM]
    assert np.array_equal(region.restore(again[1]), kept[Structure.CRLM]), "the ensemble, with or without its folds"
