"""``flrplan train``: one stage, some of its folds, on labelled cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flrplan.commands.options import add_variants_option, known_variants, require_known_name
from flrplan.commands.say import note, say
from flrplan.device import choose_device
from flrplan.errors import SettingsError
from flrplan.input_masks import with_predictions
from flrplan.models import MODEL_ROOT
from flrplan.networks.table import SCRATCH, TABLE, architecture_named
from flrplan.nnunet.distributed import is_launched, launch, launched_rank, process_group
from flrplan.nnunet.lineage import require_unseen
from flrplan.nnunet.pretrained import learned_from, require_weights_of
from flrplan.nnunet.publishing import require_writable
from flrplan.nnunet.settings import Recipe
from flrplan.nnunet.trainer import EpochReport
from flrplan.nnunet.training_run import StageWork, prepare_stage, train_fold
from flrplan.splits import SPLIT_FILE, Split, nnunet_split, read_split, require_fold
from flrplan.stage_input import InputMasks
from flrplan.stages import ARCHITECTURES, STAGES, Stage, stage_named
from flrplan.training_cases import LabelledCase, find_labelled_cases, with_labels_of
from flrplan.variants import Variant


def add_parser(commands: Any) -> None:
    """Adds ``train`` to the command line."""
    parser = commands.add_parser("train", help="train one stage on labelled cases")
    parser.add_argument("--cases", type=Path, required=True, help="folder with images/ and labels/ (planning label maps)")
    parser.add_argument("--stage", required=True, choices=list(STAGES))
    parser.add_argument(
        "--architecture",
        default=ARCHITECTURES[0],
        metavar="NAME",
        help=f"{', '.join(ARCHITECTURES)} (default: {ARCHITECTURES[0]}), or a variant",
    )
    add_variants_option(parser)
    sizes = list(dict.fromkeys(size for row in TABLE.values() for size in row.sizes))
    parser.add_argument("--size", choices=sizes, help="size of the network (default: the recipe's network_size, else base)")
    parser.add_argument(
        "--pretrained",
        type=start_weights,
        metavar="FILE",
        help=f"start from the official STU-Net weights, or a model of ours; {SCRATCH}: from random weights, on purpose",
    )
    parser.add_argument("--fold", type=int, action="append", metavar="K", help="fold to train; repeatable (default: all)")
    parser.add_argument("--folds", type=int, default=5, help="number of folds of nnU-Net's own draw (default: 5)")
    parser.add_argument(
        "--split",
        type=Path,
        help='split file {"test": [ids], "folds": [[ids], ...]} instead of that draw; a splits.json beside images/ is used unasked',
    )
    parser.add_argument("--recipe", type=Path, help="YAML with settings (input, plan, training); default: the paper's")
    parser.add_argument(
        "--input-masks",
        choices=[m.value for m in InputMasks],
        help="masks to train on (default: the recipe's, else ground_truth)",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="out-of-fold predictions <column>/<case>.nii.gz for --input-masks predicted_oof; perturbed takes their errors",
    )
    parser.add_argument("--work", type=Path, required=True, help="prepared data and training states; continue with the same")
    parser.add_argument("--models", type=Path, default=MODEL_ROOT, help="the model goes to <models>/<stage>/<NAME>")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that train together (with --device cpu: processes)")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare the data (default: 1)")
    parser.add_argument("--half", action="store_true", help="publish float16 weights (half the size)")
    parser.add_argument("--prepare-only", action="store_true", help="prepare the stage, train nothing")
    parser.set_defaults(run=run)


def start_weights(text: str) -> Path | str:
    """The value of ``--pretrained``: a file, or the word for random weights (``./scratch`` is a file of that name)."""
    return text if text == SCRATCH else Path(text)


def run(arguments: argparse.Namespace) -> int:
    """Prepares the stage if needed, trains the folds, publishes the model."""
    device = choose_device(arguments.device)
    if arguments.gpus < 1:
        raise SettingsError(f"--gpus must be at least 1, got {arguments.gpus}")
    if arguments.gpus > 1 and not is_launched():
        if arguments.device == "auto" and device.type != "cuda":
            raise SettingsError(
                f"{arguments.gpus} GPUs were asked for, but no CUDA device is there; --device cpu tries it on a CPU"
            )
        return launch(arguments.gpus, device, arguments.words)
    tell = launched_rank() == 0
    stage = stage_named(arguments.stage)
    variants = known_variants(arguments.variants)
    require_known_name(arguments.architecture, variants, "--architecture")
    variant = variants.get(arguments.architecture)
    recipe = _recipe(arguments, stage, variant)
    architecture = architecture_named(variant.architecture if variant else arguments.architecture)
    architecture.size(recipe.plan.network_size)
    start = variant.pretrained if variant and arguments.pretrained is None else arguments.pretrained
    pretrained = start if isinstance(start, Path) else None
    if tell and architecture.pretrained and start is None:
        note(
            f"{architecture.name}: the paper starts from published weights; without --pretrained FILE this starts at random "
            f"(--pretrained {SCRATCH} says that it is meant)"
        )
    if pretrained is not None:
        require_weights_of(architecture, recipe.plan.network_size, pretrained)  # told now, not after the preparation
    cases = find_labelled_cases(arguments.cases)
    split = _split(arguments, [c.case_id for c in cases])
    folds = arguments.fold if arguments.fold is not None else range(len(split.folds))
    split.require_training()
    for fold in folds:
        require_fold(split.nnunet_folds(), fold, split.test)
    if pretrained is not None:
        seen = learned_from(pretrained)
        for fold in folds:
            require_unseen(seen, str(pretrained), split.test, split.validation_ids(fold))
    if variant and variant.labels:
        cases = with_labels_of([c for c in cases if c.case_id not in split.test], variant.labels)
    if arguments.predictions is not None:
        cases = _with_predictions(arguments.predictions, cases, split, stage, recipe)
    work = StageWork(arguments.work / variant.preparation if variant else arguments.work, stage)
    if tell:
        note(f"stage {stage}: {len(cases)} cases, {len(split.folds)} folds, {len(split.test)} held out, on {device}")
    target = arguments.models / stage.name / arguments.architecture
    if not arguments.prepare_only:
        require_writable(target)
    prepare_stage(cases, work, recipe, split, arguments.workers)
    if arguments.prepare_only:
        return 0
    with process_group(device) as own:
        for fold in folds:
            with tqdm(
                total=recipe.training.epochs, desc=f"{stage} fold {fold}", unit="epoch", disable=None if tell else True
            ) as bar:
                show = partial(_show, bar=bar, what=f"{stage} fold {fold}")
                path = train_fold(
                    work,
                    fold,
                    recipe,
                    target,
                    own,
                    arguments.half,
                    show,
                    split.test,
                    architecture.name,
                    pretrained,
                    variant=variant,
                )
            if tell:
                say(str(path))
    return 0


def _recipe(arguments: argparse.Namespace, stage: Stage, variant: Variant | None) -> Recipe:
    """The recipe file, then what the options say, then the variant."""
    options: dict[str, dict[str, Any]] = {}
    if arguments.size:
        options["plan"] = {"network_size": arguments.size}
    if arguments.input_masks:
        options["input"] = {"input_masks": arguments.input_masks}
    over = (options, variant.over if variant else {})
    return Recipe.from_yaml(arguments.recipe, stage.name, *over) if arguments.recipe else Recipe.layered(*over)


def _with_predictions(
    folder: Path, cases: Sequence[LabelledCase], split: Split, stage: Stage, recipe: Recipe
) -> list[LabelledCase]:
    """The cases of the folds with their predicted masks; the others never train."""
    if recipe.input.input_masks is InputMasks.GROUND_TRUTH:
        raise SettingsError("--predictions is for --input-masks perturbed or predicted_oof; ground_truth would not read them")
    used = {case_id for fold in split.folds for case_id in fold}
    return with_predictions([c for c in cases if c.case_id in used], stage, folder)


def _split(arguments: argparse.Namespace, case_ids: list[str]) -> Split:
    """``--split``, else the split file of a benchmark's work folder (each must fit the cases), else nnU-Net's own draw over all cases."""
    beside = arguments.cases / SPLIT_FILE
    path = arguments.split or (beside if beside.is_file() else None)
    if path is None:
        return nnunet_split(case_ids, arguments.folds)
    split = read_split(path)
    split.require_cover(case_ids, path, arguments.cases)
    return split


def _show(report: EpochReport, bar: Any, what: str) -> None:
    bar.n = report.epoch + 1
    bar.set_postfix_str(f"loss {report.train_loss:.4f}, pseudo Dice {report.pseudo_dice:.3f}")
    if bar.disable:
        note(
            f"{what}, epoch {report.epoch + 1}/{report.epochs}: loss {report.train_loss:.4f}, "
            f"validation {report.validation_loss:.4f}, pseudo Dice {report.pseudo_dice:.3f}, {report.seconds:.1f} s"
        )
