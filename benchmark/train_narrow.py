"""Trains the narrow networks of nnU-Net's default plan that ``speed.py`` widens: a few hundred steps each, to find a liver at all.

    python benchmark/train_narrow.py --size default-24 --cases 10 --steps 160 --work W      # half an hour on two cores

Cases of the demo models' training seed, cut to the slices of the size; nnU-Net's own plan of them for each stage; AdamW, Dice and binary
cross entropy, no augmentation, patches smaller than the plan's. Writes ``speed_models/<size>/<stage>/nnunet``, weights in float16. What
they answer is no measure of anything but agreement: docs/speed.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import blosc2  # type: ignore[import-untyped]
import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from tqdm import trange

from flrplan.cohort import case_name
from flrplan.demo.held_out import TRAIN_SEED
from flrplan.files import write_json
from flrplan.hardware import choose_device
from flrplan.image import write_label_map, write_volume
from flrplan.method import CASCADE, PlanSettings, Recipe, Stage
from flrplan.networks import NNUNET
from flrplan.networks.table import NARROW
from flrplan.nnunet.model import write_checkpoint
from flrplan.nnunet.model.checkpoint import published_content
from flrplan.nnunet.prepare import CONFIGURATION, StageWork, prepare_stage
from flrplan.nnunet.prepare.architecture_plan import architecture_plan
from flrplan.nnunet.prepare.dataset import dataset_json
from flrplan.workfolder import find_labelled_cases, nnunet_split
from script import at_least, run_script
from speed import NARROW_MODELS, SIZES, Size, make_image

FEATURES = (4, 8, 16, 16, 16, 16, 16, 16)
PATCH_VOXELS = 192
"""In plane, at most; along z the plan's, at most 32."""


def write_case(size: Size, cohort: Path) -> None:
    """Writes a case as ``images/`` and ``labels/`` of a cohort, if it is not there."""
    name = f"{case_name(*size.case[:2])}.nii.gz"
    if (cohort / "labels" / name).is_file():
        return
    hu, label, geometry = make_image(size)
    write_volume(cohort / "images" / name, hu, geometry)
    write_label_map(cohort / "labels" / name, label, geometry)


def draw_patch(case: tuple[Any, Any], patch: Sequence[int], draw: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A patch and its target, ``(1, C, Z, Y, X)`` float32; two of three hold a voxel of the target, where there is one."""
    image, target = case
    shape = np.array(target.shape)
    inside = np.argwhere(target) if draw.random() < 2 / 3 else ()
    centre = inside[draw.integers(len(inside))] if len(inside) else draw.integers(shape)
    start = np.clip(centre - draw.integers(np.array(patch)), 0, np.maximum(shape - patch, 0))
    box = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
    missing = [(0, p - min(p, n)) for p, n in zip(patch, shape, strict=True)]
    pair = (np.pad(image[(slice(None), *box)], [(0, 0), *missing]), np.pad(target[box], missing)[None])
    return tuple(torch.from_numpy(np.ascontiguousarray(a, np.float32))[None] for a in pair)  # type: ignore[return-value]


def loss_of(outputs: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy minus soft Dice at every resolution, each half the weight of the one above."""
    total = torch.zeros((), device=target.device)
    for level, output in enumerate(outputs):
        wanted = interpolate(target, output.shape[2:], mode="nearest")
        found = output.sigmoid()
        overlap = 2 * (found * wanted).sum() / (found.sum() + wanted.sum() + 1)
        total = total + (binary_cross_entropy_with_logits(output, wanted) - overlap) / 2**level
    return total


def train(stage: Stage, work: StageWork, recipe: Recipe, steps: int, device: torch.device, out: Path) -> None:
    """Trains one stage on its prepared cases and writes its model folder."""
    shared = PlansManager(str(work.preprocessed / "nnUNetPlans.json")).plans
    plans = architecture_plan(shared, NNUNET, PlanSettings(network_size=NARROW))
    configuration = plans["configurations"][CONFIGURATION]
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = list(FEATURES[: arguments["n_stages"]])
    settings = recipe.input
    channels = len(settings.channel_names(stage))
    manager = PlansManager(plans)
    torch.manual_seed(0)
    network = nnUNetTrainer.build_network_architecture(
        manager, manager.get_configuration(CONFIGURATION), channels, 1, enable_deep_supervision=True
    ).to(device)
    cases = []
    for path in sorted((work.preprocessed / configuration["data_identifier"]).glob("*[0-9].b2nd")):
        target = blosc2.open(str(path.with_name(f"{path.stem}_seg.b2nd")))[0] > 0
        cases.append((blosc2.open(str(path))[:], target))
    depth, *plane = configuration["patch_size"]
    patch = [min(depth, 32), *(min(n, PATCH_VOXELS) for n in plane)]
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=3e-5)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, 0.9)
    draw = np.random.default_rng(0)
    bar = trange(steps, desc=str(stage), mininterval=5)
    for _ in bar:
        image, target = (a.to(device) for a in draw_patch(cases[draw.integers(len(cases))], patch, draw))
        loss = loss_of(network(image), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    write_json(out / "plans.json", plans)
    write_json(out / "dataset.json", dataset_json(stage, settings, len(cases)))
    content = published_content(network.state_dict(), CONFIGURATION, 0, (), half=True)
    write_checkpoint(out / "fold_0" / "checkpoint_final.pth", content)


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the cases, prepares and trains the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", required=True, choices=[name for name, size in SIZES.items() if size.default_plan])
    parser.add_argument("--stage", action="append", choices=[stage.name for stage in CASCADE], help="only these (default: all)")
    parser.add_argument("--cases", type=at_least(1), default=10)
    parser.add_argument("--steps", type=at_least(1), default=160)
    parser.add_argument("--workers", type=at_least(1), default=1, help="cases made or prepared at once (default: 1)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, required=True, help="cohort and prepared data; kept")
    parser.add_argument("--models", type=Path, default=NARROW_MODELS)
    arguments = parser.parse_args(argv)
    size, cohort = SIZES[arguments.size], arguments.work / "cohort"
    wanted = [Size((TRAIN_SEED, index, "full"), 1, size.slices, size.slice_mm) for index in range(arguments.cases)]
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        list(pool.map(write_case, wanted, [cohort] * len(wanted)))
    cases = find_labelled_cases(cohort)
    recipe = Recipe.from_mapping({"plan": {}})
    for stage in CASCADE:
        if arguments.stage and stage.name not in arguments.stage:
            continue
        work = StageWork(arguments.work, stage)
        prepare_stage(cases, work, recipe, nnunet_split([c.case_id for c in cases]), workers=arguments.workers)
        train(
            stage,
            work,
            recipe,
            arguments.steps,
            choose_device(arguments.device),
            arguments.models / arguments.size / stage.name / "nnunet",
        )
    return 0


if __name__ == "__main__":
    run_script(main)
