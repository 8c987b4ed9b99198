"""Options that several commands share."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from flrplan.cascade import CascadeSettings
from flrplan.models import MODEL_ROOT, ModelStore, require_models_folder
from flrplan.stages import ARCHITECTURES


def add_cascade_options(parser: argparse.ArgumentParser) -> None:
    """``--models --architecture --device --mirroring``."""
    parser.add_argument("--models", type=Path, default=MODEL_ROOT, help="folder with <stage>/<architecture>/ models")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number> (default: auto)")
    parser.add_argument("--mirroring", action="store_true", help="test-time mirroring: up to 8 times the work")


def cascade_settings(arguments: argparse.Namespace, base: CascadeSettings) -> CascadeSettings:
    """The settings that these options give."""
    return replace(base, architecture=arguments.architecture, device=arguments.device, mirroring=arguments.mirroring)


def model_store(arguments: argparse.Namespace) -> ModelStore:
    """The models of ``--models``, else the demo models of the repository. Raises ModelError for another kind of folder, or none."""
    require_models_folder(arguments.models)
    return ModelStore(arguments.models)
