"""nnU-Net treats the mask channel of stage flr as an image (docs/networks.md): it is resampled and augmented like the CT."""

from __future__ import annotations

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from flrplan.method import STAGES, InputSettings
from flrplan.nnunet.prepare.dataset import dataset_json
from flrplan.nnunet.train.batches import seed_everything

BALL = (((np.mgrid[:24, :24, :24] - 12) ** 2).sum(0) < 7**2).astype(np.float32)


def test_the_channel_is_one_that_nnunet_does_not_normalise() -> None:
    assert dataset_json(STAGES["flr"], InputSettings(), 4)["channel_names"] == {"0": "CT", "1": "noNorm"}


def test_its_border_is_a_ramp_after_resampling() -> None:
    plane = resample_data_or_seg_to_shape(BALL[None], (24, 36, 36), (1.5, 1.5, 1.5), (1.5, 1, 1), order=3, order_z=0)
    assert (plane.min(), plane.max()) == (0, 1)
    between = (plane > 0.01) & (plane < 0.99)
    assert 0.1 < between.sum() / (plane > 0.5).sum() < 1.0


def test_augmentation_changes_its_values_as_those_of_the_ct() -> None:
    transforms = nnUNetTrainer.get_training_transforms(
        (24, 24, 24), (-0.5, 0.5), None, (0, 1, 2), False, use_mask_for_norm=[False, False], is_cascaded=False, regions=[[1]]
    )
    seed_everything(0, 0)
    lows, highs = [], []
    for _ in range(40):
        image = torch.from_numpy(np.stack([BALL, BALL]))
        channel = transforms(image=image, segmentation=torch.from_numpy(BALL[None].astype(np.int16)))["image"][1]
        lows.append(float(channel.min()))
        highs.append(float(channel.max()))
    assert min(lows) < -0.1
    assert max(highs) > 1.1
