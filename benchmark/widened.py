"""A trained narrow network widened to nnU-Net's default widths so that its function stays: what ``speed.py`` times at the default plan.

Random weights answer noise, and no two sides agree on noise. Training a network of 43 million weights takes a GPU for a day. A narrow
one of the same topology (strides, kernels, convolutions) is trained in minutes; the channels that are added to it read every channel,
so they cost what they cost, and no old channel and no output reads them. Instance normalization acts on each channel alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from flrplan.files import write_json
from flrplan.nnunet.model import load_checkpoint, write_checkpoint
from flrplan.nnunet.model.checkpoint import published_content
from flrplan.nnunet.model.model_folder import read_json_object
from flrplan.nnunet.prepare import CONFIGURATION
from flrplan.workfolder import FINAL_CHECKPOINT

_AFTER_SKIP = re.compile(r"decoder\.stages\.\d+\.convs\.0\.(conv|all_modules\.0)\.weight$")
"""Convolutions whose input is half from below, half from the encoder."""


def widen(narrow: Mapping[str, torch.Tensor], wide: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a wide ``PlainConvUNet`` with the function of a narrow one of the same topology.

    wide: weights of the wide network as initialised; those of the added channels stay, but where an old channel or an output would
    read an added one they are 0. Raises: KeyError or RuntimeError where the topologies differ.
    """
    widened = {}
    for name, initial in wide.items():
        old, new = narrow[name].to(initial.dtype), initial.clone()
        if old.ndim == 1:
            new[: len(old)] = old
        else:
            outputs_first = (lambda w: w.transpose(0, 1)) if ".transpconvs." in name else (lambda w: w)
            source, target = outputs_first(old), outputs_first(new)
            inputs = torch.arange(source.shape[1])
            if _AFTER_SKIP.search(name):
                inputs[len(inputs) // 2 :] += (target.shape[1] - source.shape[1]) // 2
            target[: len(source)] = 0
            target[: len(source), inputs] = source
        widened[name] = new
    return widened


def write_widened(narrow: Path, target: Path, folds: int, seed: int = 0) -> bool:
    """A model folder of nnU-Net's default widths from a narrow one; folds beyond those of the narrow one are the same files once more.

    Where ``narrow`` has a plan only, the weights are random and every voxel is foreground, so that each stage has all of its work.
    Returns: whether there was a trained network. Raises: ModelError where plan or checkpoint are damaged.
    """
    plans, dataset = (read_json_object(narrow / name) for name in ("plans.json", "dataset.json"))
    arguments = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [min(320, 32 * 2**i) for i in range(arguments["n_stages"])]
    write_json(target / "plans.json", plans)
    write_json(target / "dataset.json", dataset)
    manager = PlansManager(plans)
    torch.manual_seed(seed)
    network = nnUNetTrainer.build_network_architecture(
        manager, manager.get_configuration(CONFIGURATION), len(dataset["channel_names"]), 1, enable_deep_supervision=False
    )
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = sorted(narrow.glob(f"fold_*/{FINAL_CHECKPOINT}"))
    for fold in range(folds):
        path = target / f"fold_{fold}" / FINAL_CHECKPOINT
        if fold >= max(1, len(trained)):
            path.parent.mkdir()
            os.link(target / f"fold_{fold % max(1, len(trained))}" / FINAL_CHECKPOINT, path)
            continue
        if trained:
            network.load_state_dict(widen(load_checkpoint(trained[fold])["network_weights"], initial))
        else:
            with torch.no_grad():
                network.decoder.seg_layers[-1].bias.fill_(100)  # far from 0, and nnU-Net's sums in float16 hold it
        write_checkpoint(path, published_content(network.state_dict(), CONFIGURATION, fold, (), half=False))
    return bool(trained)
