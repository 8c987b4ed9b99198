"""``flrplan models``: what models are there, how they are handed on, and how a foreign nnU-Net model joins them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flrplan.commands.say import say
from flrplan.engine import MODEL_ROOT, ModelStore, require_models_folder
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
    """Adds ``models list``, ``models import``, ``models export`` and ``models use`` to the command line."""
    parser = commands.add_parser("models", help="list models, import or export them, or go back to a version")
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
    importing.add_argument(
        "--checkpoint", choices=CHECKPOINTS, default=CHECKPOINTS[0], help="the file of each fold (default: %(default)s)"
    )
    importing.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
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
        if arguments.label or arguments.configuration or _input_settings(arguments) is not None:
            raise SettingsError(
                f"{arguments.source} says itself what its models are; leave --label, --configuration and --input out"
            )
        for name, folder in import_exported(arguments.source, arguments.models, stages, arguments.force).items():
            say(f"imported: {arguments.models / name}, folds {', '.join(map(str, folder.folds))}")
        return 0
    if not stages:
        file_names(arguments.source)  # what is no model, or was cut short, is told first
        raise SettingsError(f"--stage is missing: which of {', '.join(STAGES)} does this model predict?")
    target = arguments.models / arguments.stage / arguments.architecture
    model = import_model(
        arguments.source,
        stages[0],
        target,
        arguments.label,
        arguments.force,
        _input_settings(arguments),
        arguments.configuration,
        arguments.checkpoint,
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
    with changing(folder):
        say(f"serves from now on: {use_version(folder, arguments.version)}")
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
