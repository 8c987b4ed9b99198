"""``flrplan models``: what models are there, and how a foreign nnU-Net model joins them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flrplan.commands.say import say
from flrplan.errors import ModelError
from flrplan.models import MODEL_ROOT, ModelStore
from flrplan.nnunet.import_model import import_model
from flrplan.stages import ARCHITECTURES, STAGES, stage_named


def add_parser(commands: Any) -> None:
    """Adds ``models list`` and ``models import`` to the command line."""
    parser = commands.add_parser("models", help="list models, or import an nnU-Net model folder")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="which model serves which stage")
    listing.add_argument("--models", type=Path, default=MODEL_ROOT)
    listing.set_defaults(run=run_list)
    importing = actions.add_parser("import", help="take a trained nnU-Net v2 folder (opened without running its code)")
    importing.add_argument("folder", type=Path, help="folder with plans.json, dataset.json and fold_<k>/checkpoint_final.pth")
    importing.add_argument("--stage", required=True, choices=list(STAGES))
    importing.add_argument("--label", help="the label in its dataset.json that is this stage's target (default: same name)")
    importing.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    importing.add_argument("--models", type=Path, default=MODEL_ROOT)
    importing.add_argument("--force", action="store_true", help="replace the model that is there")
    importing.set_defaults(run=run_import)


def run_list(arguments: argparse.Namespace) -> int:
    """One line per stage and architecture."""
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
            say(f"{stage.name:8} {architecture:10} {kind}, folds {list(found.folder.folds)}: {found.folder.path}")
    return 0


def run_import(arguments: argparse.Namespace) -> int:
    """Imports a folder for a stage."""
    target = arguments.models / arguments.stage / arguments.architecture
    import_model(arguments.folder, stage_named(arguments.stage), target, arguments.label, arguments.force)
    say(f"imported for stage {arguments.stage}: {target}")
    return 0
