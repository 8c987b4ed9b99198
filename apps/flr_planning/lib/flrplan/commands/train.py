"""``flrplan train``: one stage, some of its folds, on labelled cases."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.commands.options import add_variants_option, known_variants, require_known_name
from flrplan.commands.say import note, say
from flrplan.engine import MODEL_ROOT
from flrplan.errors import SettingsError
from flrplan.method import STAGES, InputMasks, stage_named
from flrplan.networks import ARCHITECTURES, SCRATCH, TABLE

if TYPE_CHECKING:
    from flrplan.api.train import TrainingRequest
    from flrplan.method import Recipe, Variant
    from flrplan.nnunet.train import EpochReport


def add_parser(commands: Any) -> None:
    """Adds ``train`` to the command line."""
    parser = commands.add_parser("train", help="train one stage on labelled cases")
    parser.add_argument("--stage", required=True, choices=list(STAGES))
    parser.add_argument(
        "--architecture",
        default=ARCHITECTURES[0],
        metavar="NAME",
        help=f"{', '.join(ARCHITECTURES)} (default: {ARCHITECTURES[0]}), or a variant",
    )
    add_variants_option(parser)
    parser.add_argument(
        "--pretrained",
        type=start_weights,
        metavar="FILE",
        help=f"start from the official STU-Net weights, or a model of ours; {SCRATCH}: from random weights, on purpose",
    )
    parser.add_argument("--fold", type=int, action="append", metavar="K", help="fold to train; repeatable (default: all)")
    parser.add_argument(
        "--split",
        type=Path,
        help='split file {"test": [ids], "folds": [[ids], ...]} instead of that draw; a splits.json beside images/ is used unasked',
    )
    parser.add_argument("--work", type=Path, required=True, help="prepared data and training states; continue with the same")
    parser.add_argument("--models", type=Path, default=MODEL_ROOT, help="the model goes to <models>/<stage>/<NAME>")
    add_training_options(parser)
    parser.set_defaults(run=run)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Those that say how to train, whatever is trained: ``train-many`` takes them for all its trainings."""
    parser.add_argument("--cases", type=Path, required=True, help="folder with images/ and labels/ (planning label maps)")
    sizes = list(dict.fromkeys(size for row in TABLE.values() for size in row.sizes))
    parser.add_argument("--size", choices=sizes, help="size of the network (default: the recipe's network_size, else base)")
    parser.add_argument("--folds", type=int, default=5, help="number of folds of nnU-Net's own draw (default: 5)")
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
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that train together (with --device cpu: processes)")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare the data (default: 1)")
    parser.add_argument("--half", action="store_true", help="publish float16 weights (half the size)")
    parser.add_argument("--prepare-only", action="store_true", help="prepare the stage, train nothing")


def start_weights(text: str) -> Path | str:
    """The value of ``--pretrained``: a file, or the word for random weights (``./scratch`` is a file of that name)."""
    return text if text == SCRATCH else Path(text)


def run(arguments: argparse.Namespace) -> int:
    """Prepares the stage if needed, trains the folds, publishes the model."""
    return train_folds(arguments, known_variants(arguments.variants))


def train_folds(arguments: argparse.Namespace, variants: Mapping[str, Variant]) -> int:
    """As :func:`run`, with the variants of ``--variants`` read. Returns the exit status."""
    from tqdm import tqdm

    from flrplan.api.train import check, prepare, split_of, train
    from flrplan.hardware import choose_device
    from flrplan.nnunet.train.distributed import is_launched, launch, launched_rank, process_group
    from flrplan.nnunet.train.publishing import require_writable
    from flrplan.workfolder import find_labelled_cases

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
    request = _request(arguments, variants)
    said = arguments.pretrained or (request.variant and request.variant.pretrained)
    if tell and said is None and TABLE[request.network].pretrained:
        note(
            f"{request.network}: the paper starts from published weights; without --pretrained FILE this starts at random "
            f"(--pretrained {SCRATCH} says that it is meant)"
        )
    cases = find_labelled_cases(arguments.cases)
    split = split_of(arguments.cases, cases, arguments.split, arguments.folds)
    request = replace(request, cases=cases, split=split)
    folds = arguments.fold if arguments.fold is not None else range(len(split.folds))
    for fold in folds or [0]:
        check(replace(request, fold=fold))
    if tell:
        note(f"stage {request.stage}: {len(cases)} cases, {len(split.folds)} folds, {len(split.test)} held out, on {device}")
    if not arguments.prepare_only:
        require_writable(request.model_folder)
    prepare(request)  # before the processes of several GPUs wait for each other, which has a time limit
    if arguments.prepare_only:
        return 0
    with process_group(device) as own:
        for fold in folds:
            what = f"stage {request.stage} fold {fold}"
            with tqdm(total=request.recipe.training.epochs, desc=what, unit="epoch", disable=None if tell else True) as bar:
                path = train(replace(request, fold=fold, device=own), partial(show_epoch, bar=bar, what=what))
            if tell:
                say(str(path))
    return 0


def _request(arguments: argparse.Namespace, variants: Mapping[str, Variant]) -> TrainingRequest:
    """What these options ask for; its fold and its split are still to be said."""
    from flrplan.api.train import TrainingRequest

    stage = stage_named(arguments.stage)
    require_known_name(arguments.architecture, variants, "--architecture")
    variant = variants.get(arguments.architecture)
    return TrainingRequest(
        stage,
        fold=0,
        cases=arguments.cases,
        work=arguments.work,
        models=arguments.models,
        architecture=arguments.architecture,
        variant=variant,
        recipe=_recipe(arguments, stage.name, variant),
        pretrained=arguments.pretrained,
        predictions=arguments.predictions,
        half=arguments.half,
        workers=arguments.workers,
    )


def _recipe(arguments: argparse.Namespace, stage: str, variant: Variant | None) -> Recipe:
    """The recipe file, then what the options say, then the variant."""
    from flrplan.method import Recipe

    options: dict[str, dict[str, Any]] = {}
    if arguments.size:
        options["plan"] = {"network_size": arguments.size}
    if arguments.input_masks:
        options["input"] = {"input_masks": arguments.input_masks}
    over = (options, variant.over if variant else {})
    return Recipe.from_yaml(arguments.recipe, stage, *over) if arguments.recipe else Recipe.layered(*over)


def show_epoch(report: EpochReport, bar: Any, what: str) -> None:
    """One epoch, on a bar of tqdm, else as a line."""
    bar.n, bar.total = report.epoch + 1, report.epochs
    bar.set_postfix_str(f"loss {report.train_loss:.4f}, pseudo Dice {report.pseudo_dice:.3f}")
    if bar.disable:
        note(
            f"{what}, epoch {report.epoch + 1}/{report.epochs}: loss {report.train_loss:.4f}, "
            f"validation {report.validation_loss:.4f}, pseudo Dice {report.pseudo_dice:.3f}, {report.seconds:.1f} s"
        )
