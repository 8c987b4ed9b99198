"""Options that several commands share. As every parser, it imports nothing heavy: a wrong option answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flrplan.engine import MODEL_ROOT, ModelStore, require_models_folder
from flrplan.errors import SettingsError
from flrplan.method.engine import APP_ENGINE, ENGINES
from flrplan.networks import ARCHITECTURES, names_in

if TYPE_CHECKING:
    from flrplan.engine import CascadeSettings
    from flrplan.method import Variant


def add_cascade_options(parser: argparse.ArgumentParser) -> None:
    """``--models --architecture --also --device --mirroring --engine``."""
    parser.add_argument("--models", type=Path, default=MODEL_ROOT, help="folder with <stage>/<architecture>/ models")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument(
        "--also",
        type=names_in,
        default=(),
        metavar="NAMES",
        help="further architectures, such as swinunetr,stunet, whose FLR models give a second opinion on a predicted remnant: how far they differ is "
        "told, and part of how sure the plan is (docs/uncertainty.md)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number> (default: auto)")
    parser.add_argument(
        "--engine",
        default=APP_ENGINE,
        metavar="NAME",
        help=f"how the networks are run: {', '.join(ENGINES)}, or with changes: fast,bfloat16=false (default: %(default)s; docs/speed.md)",
    )
    parser.add_argument("--mirroring", action="store_true", help="test-time mirroring: up to 8 times the work")


def add_variants_option(parser: argparse.ArgumentParser) -> None:
    """``--variants``: names beside those of the architectures."""
    parser.add_argument(
        "--variants",
        type=Path,
        metavar="FILE",
        help="YAML of a benchmark whose variants can be named where an architecture can (benchmark/README.md)",
    )


def known_variants(path: Path | None) -> dict[str, Variant]:
    """The variants of ``--variants``, by name."""
    if path is None:
        return {}
    from flrplan.workflow import read_variants

    return read_variants(path)


def require_known_name(name: str, variants: Mapping[str, Variant], what: str) -> None:
    """Raises SettingsError where ``name`` is neither an architecture nor one of the variants."""
    if name not in ARCHITECTURES and name not in variants:
        more = f" and the variants {', '.join(variants)}" if variants else "; variants need --variants FILE"
        raise SettingsError(f"{what}: unknown {name!r}; known are {', '.join(ARCHITECTURES)}{more}")


def cascade_settings(arguments: argparse.Namespace) -> CascadeSettings:
    """How the cascade runs, by the options of :func:`add_cascade_options`. Raises SettingsError for second opinions that are none."""
    from flrplan.engine import CascadeSettings

    a = arguments
    return CascadeSettings(a.architecture, a.device, a.mirroring, engine=a.engine, also=a.also)


def model_store(arguments: argparse.Namespace) -> ModelStore:
    """The models of ``--models``, else the demo models of the repository. Raises ModelError for another kind of folder, or none.

    No prediction is kept: a command predicts nothing twice.
    """
    require_models_folder(arguments.models)
    return ModelStore(arguments.models, cache_mb=0)
