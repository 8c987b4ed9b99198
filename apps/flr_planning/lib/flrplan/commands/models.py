"""``flrplan models``: what models are there, how they are handed on, how a foreign one joins them, and how one network takes an ensemble's place."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from flrplan.commands.say import note, say
from flrplan.commands.train import show_epoch
from flrplan.engine import MODEL_ROOT, ModelStore, require_models_folder
from flrplan.engine.models import DISTILLED, IS_DEMO, describe_distilled
from flrplan.errors import ModelError, SettingsError
from flrplan.files import sha256_of_file, use_version, versions
from flrplan.method import STAGES, InputSettings, RegionMode, stage_named
from flrplan.networks import ARCHITECTURES
from flrplan.nnunet.imported.source import CHECKPOINTS

_INPUT_NUMBERS = {
    "outside_hu": "HU outside a mask (default: -1024)",
    "crop_margin_mm": "mm kept around the liver where the CT is cropped (default: 10)",
    "mask_margin_mm": "mm kept around the liver where it is masked (default: 0)",
}


def add_parser(commands: Any) -> None:
    """Adds ``models list``, ``models import``, ``models export``, ``models use`` and ``models distil`` to the command line."""
    parser = commands.add_parser("models", help="list models, import, export or distil them, or go back to a version")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="which model serves which stage")
    listing.add_argument("--models", type=Path, default=MODEL_ROOT)
    listing.set_defaults(run=run_list)
    importing = actions.add_parser(
        "import", help="take a zip of 'models export', or a trained nnU-Net 2 model (opened without running its code)"
    )
    importing.add_argument(
        "source",
        type=Path,
        help="a zip of 'models export'; or a folder with plans.json, dataset.json and fold_<k>/checkpoint_final.pth, or the zip of "
        "nnUNetv2_export_model_to_zip, with --stage and what else only who trained it knows",
    )
    importing.add_argument("--stage", choices=list(STAGES), help="what it is for; of a zip of 'models export': this one alone")
    importing.add_argument(
        "--label",
        metavar="NAME[,NAME...]",
        help="labels of its dataset.json that together are this stage's target: liver,tumor where the tumour is labelled apart "
        "(default: the target's own name)",
    )
    importing.add_argument(
        "--input",
        choices=[mode.value for mode in RegionMode],
        help="what the model was trained to see, for crlm and flr: the whole CT, the CT masked by the liver, cropped to it, or both",
    )
    for name, what in _INPUT_NUMBERS.items():
        importing.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="N", help=what)
    importing.add_argument(
        "--configuration", metavar="NAME", help="3d_fullres, for example, where the source holds several models"
    )
    importing.add_argument("--checkpoint", choices=CHECKPOINTS, help=f"the file of each fold (default: {CHECKPOINTS[0]})")
    importing.add_argument("--architecture", choices=ARCHITECTURES, help=f"default: {ARCHITECTURES[0]}")
    importing.add_argument("--models", type=Path, default=MODEL_ROOT)
    importing.add_argument("--force", action="store_true", help="replace the model that is there")
    importing.set_defaults(run=run_import)
    exporting = actions.add_parser("export", help="write models with card, licence, hashes and calibration as one zip")
    exporting.add_argument("out", type=Path, metavar="OUT.zip")
    exporting.add_argument(
        "--stage", action="append", default=[], choices=list(STAGES), help="repeatable (default: all that are there)"
    )
    exporting.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    exporting.add_argument(
        "--licence", type=Path, metavar="FILE", help="under which they may be used (default: the one beside them)"
    )
    exporting.add_argument(
        "--card", type=Path, metavar="FILE", help="what a user should know of them, in Markdown (default: theirs)"
    )
    exporting.add_argument("--models", type=Path, default=MODEL_ROOT)
    exporting.set_defaults(run=run_export)
    using = actions.add_parser("use", help="let another version of a model serve: after a retraining, the one before")
    using.add_argument("stage", choices=list(STAGES))
    using.add_argument("version", help="its number; 0 is the first. The list names those that are there")
    using.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    using.add_argument("--models", type=Path, default=MODEL_ROOT)
    using.set_defaults(run=run_use)
    distilling = actions.add_parser(
        "distil", help="train one network to answer as the folds of a model do together: as good, in a fraction of the time"
    )
    distilling.add_argument("--stage", required=True, choices=list(STAGES))
    distilling.add_argument("--cases", type=Path, required=True, help="folder with images/ and labels/, as of flrplan train")
    distilling.add_argument(
        "--work",
        type=Path,
        required=True,
        help="prepared data and training state; continue with the same, also for more epochs",
    )
    distilling.add_argument("--out", type=Path, required=True, help="the model goes to <out>/<stage>/<architecture>")
    distilling.add_argument("--models", type=Path, default=MODEL_ROOT, help="whose model of the stage is distilled")
    distilling.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    distilling.add_argument("--epochs", type=int, metavar="N", help="default: those of the recipe")
    distilling.add_argument(
        "--recipe",
        type=Path,
        help="YAML with training settings (default: those of the model's first fold). Without a learning rate: a fifth of that fold's",
    )
    distilling.add_argument(
        "--held-out", type=int, metavar="N", help="cases that do not train, on which the two are compared (default: a fifth)"
    )
    distilling.add_argument(
        "--anyway", action="store_true", help="offer the network whatever its agreement, which the list and plans then state"
    )
    distilling.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")
    distilling.add_argument("--workers", type=int, default=1, help="processes that prepare the data (default: 1)")
    distilling.add_argument("--half", action="store_true", help="publish float16 weights (half the size)")
    distilling.set_defaults(run=run_distil)


def run_list(arguments: argparse.Namespace) -> int:
    """One line per stage and architecture."""
    require_models_folder(arguments.models)
    store = ModelStore(arguments.models)
    for stage in STAGES.values():
        for architecture in ARCHITECTURES:
            if not store.has(stage, architecture):
                say(f"{stage.name:8} {architecture:10} none")
                continue
            try:
                found = store.find(stage, architecture)
            except ModelError as error:
                say(f"{stage.name:8} {architecture:10} not usable: {error}")
                continue
            kind = "demo (not for patients)" if found.demo else "fine-tuned from demo" if found.from_demo else "trained"
            if found.folder.imported_from:
                kind = f"imported from {found.folder.imported_from} ({found.folder.describe()})"
            if found.distilled:
                kind += f", {describe_distilled(found.distilled)}"
            say(f"{stage.name:8} {architecture:10} {kind}, folds {list(found.folder.folds)}: {found.folder.path}")
            there = [] if found.demo else versions(store.folder(stage, architecture))
            if there[1:]:
                of = "" if architecture == ARCHITECTURES[0] else f" --architecture {architecture}"
                use = f"flrplan models use {stage.name} NUMBER{of}"
                say(f"{'':8} {'':10} versions {', '.join(map(str, there))}; another one: {use}")
            for warning in found.folder.warnings:
                say(f"{'':8} {'':10} warning: {warning}")
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Writes the zip, and says what is in it."""
    from flrplan.api.model_zip import export_models

    require_models_folder(arguments.models)
    store = ModelStore(arguments.models)
    stages = [stage_named(name) for name in dict.fromkeys(arguments.stage)]
    found = export_models(store, arguments.out, stages, arguments.architecture, arguments.licence, arguments.card)
    say(f"exported to {arguments.out}, SHA-256 {sha256_of_file(arguments.out)}")
    for name, model in found.items():
        demo = "demo (not for patients), " if model.demo else ""
        cases = {case for fold in model.folder.folds for case in model.folder.training_cases(fold)}
        say(
            f"  {name}: {demo}folds {', '.join(map(str, model.folder.folds))}; names the ids of {len(cases)} cases that trained it"
        )
    return 0


def run_import(arguments: argparse.Namespace) -> int:
    """Imports a folder or a zip, and says what was understood."""
    from flrplan.api.model_zip import import_exported, is_exported
    from flrplan.nnunet.imported import import_model
    from flrplan.nnunet.imported.source import file_names

    stages = [stage_named(arguments.stage)] if arguments.stage else []
    if is_exported(arguments.source):
        told = ("label", "configuration", "architecture", "checkpoint")
        if any(getattr(arguments, name) for name in told) or _input_settings(arguments) is not None:
            raise SettingsError(
                f"{arguments.source} says itself what its models are; leave {', '.join(f'--{name}' for name in told)} and --input out"
            )
        for name, folder in import_exported(arguments.source, arguments.models, stages, arguments.force).items():
            say(f"imported: {arguments.models / name}, folds {', '.join(map(str, folder.folds))}")
        return 0
    if not stages:
        file_names(arguments.source)  # what is no model, or was cut short, is told first
        raise SettingsError(f"--stage is missing: which of {', '.join(STAGES)} does this model predict?")
    target = arguments.models / arguments.stage / (arguments.architecture or ARCHITECTURES[0])
    model = import_model(
        arguments.source,
        stages[0],
        target,
        arguments.label,
        arguments.force,
        _input_settings(arguments),
        arguments.configuration,
        arguments.checkpoint or CHECKPOINTS[0],
    )
    say(f"imported for stage {arguments.stage}: {target}")
    say(f"  {model.describe()}; folds {', '.join(map(str, model.folds))}")
    for warning in model.warnings:
        say(f"  warning: {warning}")
    return 0


def run_use(arguments: argparse.Namespace) -> int:
    """Lets another version serve, from the next answer of a running server on."""
    from flrplan.nnunet.train.publishing import changing

    folder = ModelStore(arguments.models).folder(stage_named(arguments.stage), arguments.architecture)
    require_models_folder(arguments.models)
    if not folder.is_dir():
        raise ModelError(f"{folder}: no model is there, so no version of it can serve; the list names what there is")
    with changing(folder):
        say(f"serves from now on: {use_version(folder, arguments.version)}")
    return 0


def run_distil(arguments: argparse.Namespace) -> int:
    """Distils, and says how far the network, and the fold that it began as, agree with the ensemble. 1 where it is not offered."""
    from tqdm import tqdm

    from flrplan.learning.distillation import LEAST_AGREEMENT, DistillationRequest, distil
    from flrplan.method import Recipe

    require_models_folder(arguments.models)
    options = {key: value for key, value in vars(arguments).items() if key in DistillationRequest.__dataclass_fields__}
    recipe = None if arguments.recipe is None else Recipe.from_yaml(arguments.recipe, arguments.stage)
    request = DistillationRequest(**{**options, "stage": stage_named(arguments.stage), "recipe": recipe})
    what = f"distilling stage {request.stage}"
    with tqdm(desc=what, unit="epoch", disable=None) as bar:
        done = distil(request, partial(show_epoch, bar=bar, what=what))
    found = done.record[DISTILLED]
    seen = found["held_out_that_trained_the_ensemble"]
    say(
        f"on {len(found['held_out_ids'])} held-out cases, mean Dice{f'; {len(seen)} of them trained the ensemble' if seen else ''}:"
    )
    say(f"{'':10} {'target':8} {'with the ensemble':>17} {'with the label':>15}")
    for model, by_target in found["dice"].items():
        for target, dice in by_target.items():
            agreement = {done.first_fold: found["agreement_before"], "distilled": found["agreement"]}.get(model, {}).get(target)
            say(f"{model:10} {target:8} {'' if agreement is None else f'{agreement:.4f}':>17} {dice:>15.4f}")
    for doubt in done.doubts:
        say(doubt)
    if done.record[IS_DEMO]:
        say("the ensemble is a demo model, and so is this: not for patients")
    if done.offered is None:
        note(
            f"not offered: the agreement must be at least {LEAST_AGREEMENT} for each target. The network is in {done.student}. The same command "
            f"with more --epochs (it had {found['epochs']}) goes on; more cases need another --work; --anyway offers it as it is"
        )
        return 1
    say(f"distilled: {done.offered}")
    note(
        "To plan with it: --models with that folder, where a stage without a model is the demo model. It has no interval before "
        "flrplan calibrate has measured it"
    )
    return 0


def _input_settings(arguments: argparse.Namespace) -> InputSettings | None:
    """What the options say of the model's input; None where they say nothing. Raises SettingsError for a number that has no use."""
    numbers = {name: value for name in _INPUT_NUMBERS if (value := getattr(arguments, name)) is not None}
    mode = None if arguments.input is None else RegionMode(arguments.input)
    used = {
        "outside_hu": mode and mode.masks,
        "crop_margin_mm": mode and mode.crops,
        "mask_margin_mm": mode not in (None, RegionMode.WHOLE),
    }
    idle = [f"--{name.replace('_', '-')}" for name in numbers if not used[name]]
    if idle:
        raise SettingsError(
            f"{', '.join(idle)} has no effect with {f'--input {mode.value}' if mode else 'no --input'}; leave it out or choose another --input"
        )
    return None if mode is None else InputSettings(region_mode=mode, **numbers)
