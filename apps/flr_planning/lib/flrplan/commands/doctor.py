"""``flrplan doctor``: what is installed, which versions, which device and models; what is wrong and how to mend it."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flrplan import __version__
from flrplan.commands.say import say
from flrplan.errors import FlrError, ServiceError

# Nothing else at the top: this command must run where a library is missing or broken.

EXACT = {"torch": "2.13.0", "nnunetv2": "2.8.1", "monai": "1.6.1", "monailabel": "0.8.5"}
"""Versions that were tried together (pyproject.toml says why)."""
BELOW = {"numpy": 2, "pydicom": 3, "pynetdicom": 3}
"""First major version that MONAI Label 0.8.5 cannot import."""
MENDS = "make install"
FREE_GB = 5.0


def add_parser(commands: Any) -> None:
    """Adds ``doctor`` to the command line."""
    parser = commands.add_parser("doctor", help="check the installation, the device and the models")
    parser.add_argument("--models", type=Path, help="folder with <stage>/<architecture>/ models (default: the app's own)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints what was found; returns 1 if anything is wrong."""
    say(f"flrplan {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    problems = [*_packages(), *_commands()]
    try:
        problems += [*_optional_programs(), *_device(), *_models(arguments.models)]
    except ImportError as error:
        problems.append(f"a library cannot be imported ({error}): {MENDS}")
    problems += _disk()
    say("")
    if not problems:
        say("all is well")
        return 0
    say(f"{len(problems)} problems:")
    for problem in problems:
        say(f"  - {problem}")
    return 1


def _packages() -> list[str]:
    problems = []
    for name in (*EXACT, *BELOW, "SimpleITK", "highdicom", "scipy"):
        try:
            found = version(name)
        except PackageNotFoundError:
            say(f"  {name}: not installed")
            problems.append(f"{name} is not installed: {MENDS}")
            continue
        say(f"  {name} {found}")
        if name in EXACT and found.split("+")[0] != EXACT[name]:
            problems.append(f"{name} {found} is installed, {EXACT[name]} was tried: {MENDS}")
        if name in BELOW and int(found.split(".")[0]) >= BELOW[name]:
            problems.append(f"{name} {found} is too new for MONAI Label 0.8.5 (needs below {BELOW[name]}): {MENDS}")
    return problems


def _commands() -> list[str]:
    problems = []
    folder = Path(sys.executable).parent
    if not (folder / "monailabel").is_file():
        problems.append(f"the monailabel command is not beside {sys.executable}: {MENDS}")
    found = shutil.which("python")
    if found is None or (Path(found).resolve().parent != folder.resolve() and Path(found).parent != folder):
        say(f"  note: `monailabel` runs the `python` on PATH ({found}); activate this one first: . {folder}/activate")
    if not shutil.which("itkimage2segimage") and not (folder / "itkimage2segimage").is_file():
        problems.append(f"dcmqi's itkimage2segimage is missing, so no DICOM SEG can be written: {MENDS}")
    if importlib.util.find_spec("monailabel") is None:
        problems.append(f"monailabel is not installed: {MENDS}")
    return problems


def _optional_programs() -> list[str]:
    from flrplan.demo.ohif.browser import find_chromium, require_playwright
    from flrplan.demo.ohif.orthanc import find_orthanc

    checks: tuple[tuple[str, Callable[[], Path | None]], ...] = (
        ("Orthanc with DICOMweb, for demo-ohif", find_orthanc),
        ("Chromium, for demo-ohif --drive", find_chromium),
        ("playwright, for demo-ohif --drive", require_playwright),
    )
    for what, find in checks:
        try:
            say(f"  {what}: {find() or 'installed'}")
        except ServiceError as error:
            say(f"  {what}: optional; {error}")
    return []


def _device() -> list[str]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            say(f"  cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        say(f"  device: CPU, {torch.get_num_threads()} threads; no CUDA device")
    return []


def _models(root: Path | None) -> list[str]:
    import torch

    from flrplan.engine import MODEL_ROOT, ModelStore
    from flrplan.method import PAPER_STAGES, STAGES
    from flrplan.networks import ARCHITECTURES

    problems = []
    store = ModelStore(root or MODEL_ROOT)
    for stage in STAGES.values():
        for architecture in ARCHITECTURES:
            needed = stage in PAPER_STAGES and architecture == ARCHITECTURES[0]
            if not needed and not store.has(stage, architecture):
                continue  # not trained here, which is no fault
            try:
                found = store.find(stage, architecture)
                predictor, identity = store.predictor(stage, architecture, torch.device("cpu"))
                kind = "demo, not for patients" if found.demo else "fine-tuned from demo" if found.from_demo else "trained"
                digest = next(iter(identity.weights_sha256.values()))[:12]
                say(f"  model {stage.name} {architecture}: {kind}, folds {list(predictor.folder.folds)}, sha256 {digest}")
            except FlrError as error:
                say(f"  model {stage.name} {architecture}: not usable")
                problems.append(str(error))
    return problems


def _disk() -> list[str]:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    say(f"  free disk here: {free_gb:.0f} GB")
    return [f"only {free_gb:.1f} GB of disk are free here; results and training need more"] if free_gb < FREE_GB else []
