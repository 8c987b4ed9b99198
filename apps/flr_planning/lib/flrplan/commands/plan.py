"""``flrplan plan``: from CTs to liver, metastases, future liver remnant and their volumes, without a server."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from flrplan.cascade import Cascade, CascadeSettings
from flrplan.commands.options import add_cascade_options, cascade_settings, model_store
from flrplan.commands.say import note, say
from flrplan.errors import FlrError, OutputError, SettingsError
from flrplan.io import case_name, find_cases, read_ct, read_mask
from flrplan.labels import Mask, Structure
from flrplan.planning.plan import REPORT_NAME, write_plan
from flrplan.planning.volumetry import Volumes

GIVEN = (Structure.LIVER, Structure.CRLM)


def add_parser(commands: Any) -> None:
    """Adds ``plan`` to the command line."""
    parser = commands.add_parser("plan", help="segment CTs and measure the future liver remnant")
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="CT: NIfTI, NRRD, DICOM folder, or a folder of these"
    )
    parser.add_argument("--out", type=Path, required=True, help="one folder per case is written here")
    for structure in GIVEN:
        parser.add_argument(f"--{structure}", type=Path, metavar="MASK", help=f"take this {structure} mask (one INPUT only)")
    parser.add_argument("--series", help="SeriesInstanceUID, where a DICOM folder holds several")
    parser.add_argument("--force", action="store_true", help="plan cases again that are already in --out")
    add_cascade_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plans every input; one bad case does not stop the rest. Returns 1 if any failed."""
    cases = find_cases(arguments.inputs)
    masks = {s: getattr(arguments, s.value) for s in GIVEN if getattr(arguments, s.value)}
    if masks and len(cases) != 1:
        raise SettingsError(f"--{next(iter(masks))} fits one CT, but the inputs hold {len(cases)}; run them one by one")
    cascade = Cascade(model_store(arguments), cascade_settings(arguments, CascadeSettings()))
    failed: dict[Path, str] = {}
    for number, path in enumerate(cases, 1):
        folder = arguments.out / case_name(path)
        if (folder / REPORT_NAME).is_file() and not arguments.force:
            note(f"[{number}/{len(cases)}] {folder.name}: already planned, kept (--force plans it again)")
            continue
        note(f"[{number}/{len(cases)}] {folder.name}")
        try:
            volumes, warnings = plan_one(path, folder, cascade, masks, arguments.series)
        except OutputError:
            raise  # a full disk fails every case after it as well
        except FlrError as error:
            failed[path] = str(error)
            note(f"  failed: {error}")
            continue
        for warning in warnings:
            note(f"  warning: {warning}")
        say(f"{folder.name}: {volume_line(volumes)}")
    if failed:
        note(f"{len(failed)} of {len(cases)} cases failed:")
        for path, message in failed.items():
            note(f"  {path}: {message.splitlines()[0]}")
        return 1
    return 0


def plan_one(
    path: Path, folder: Path, cascade: Cascade, masks: dict[Structure, Path], series: str | None = None
) -> tuple[Volumes, list[str]]:
    """Reads, plans and writes one case; returns its volumes and warnings. Raises FlrError."""
    ct = read_ct(path, series=series)
    given: dict[Structure, Mask] = {s: read_mask(p, ct, s) for s, p in masks.items()}
    result = cascade.run(ct, given, on_step=lambda step: note(f"  {step}"))
    return write_plan(result, folder)


def volume_line(volumes: Volumes) -> str:
    """``liver .. ml, crlm .. ml, FLR .. ml (.. %)``."""
    return f"liver {volumes.liver_ml:.0f} ml, crlm {volumes.crlm_ml:.1f} ml, {flr_line(volumes)}"


def flr_line(volumes: Volumes) -> str:
    """``FLR <n> ml (<p> %)``: remnant with its tumours, and its share of the parenchyma without tumours."""
    share = "undefined" if math.isnan(volumes.flr_fraction) else f"{100 * volumes.flr_fraction:.1f}"
    return f"FLR {volumes.flr_ml:.0f} ml ({share} %)"
