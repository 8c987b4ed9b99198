"""``flrplan plan``: from CTs to liver, metastases, future liver remnant and their volumes, without a server."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flrplan.cascade import Cascade, CascadeSettings
from flrplan.commands.options import add_cascade_options, cascade_settings, model_store
from flrplan.commands.say import note, say
from flrplan.errors import FlrError, ImageError, OutputError, SettingsError
from flrplan.io import case_names, find_cases, read_ct, read_mask
from flrplan.io.listing import files_below
from flrplan.labels import Mask, Structure
from flrplan.planning.plan import REPORT_NAME, write_plan
from flrplan.planning.volumetry import Volumes
from flrplan.process_memory import keep_freed_memory
from flrplan.stages import stage_named

GIVEN = (Structure.LIVER, Structure.CRLM)


def add_parser(commands: Any) -> None:
    """Adds ``plan`` to the command line."""
    parser = commands.add_parser("plan", help="segment CTs and measure the future liver remnant")
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="CT: NIfTI, NRRD, DICOM folder, or a folder of these; a case is called after its file or PatientID, where that repeats after its folder",
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
    keep_freed_memory()
    failed: dict[Path, str] = {}
    cases = _cases(arguments.inputs, arguments.series, failed)
    masks = {s: getattr(arguments, s.value) for s in GIVEN if getattr(arguments, s.value)}
    if masks and len(cases) != 1:
        raise SettingsError(f"--{next(iter(masks))} fits one CT, but the inputs hold {len(cases)}; run them one by one")
    cascade = Cascade(model_store(arguments), cascade_settings(arguments, CascadeSettings()))
    names = case_names(cases, arguments.series)
    for number, path in enumerate(cases, 1):
        folder = arguments.out / names[path]
        note(f"[{number}/{len(cases)}] {folder.name}")
        try:
            if not arguments.force and _is_planned(folder, _request(path, masks), cascade):
                note("  already planned, kept (--force plans it again)")
                continue
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
        note(f"{len(failed)} of {len({*cases, *failed})} cases failed:")
        for path, message in failed.items():
            note(f"  {path}: {message.splitlines()[0]}")
        return 1
    return 0


def plan_one(
    path: Path, folder: Path, cascade: Cascade, masks: dict[Structure, Path], series: str | None = None
) -> tuple[Volumes, list[str]]:
    """Reads, plans and writes one case, called after ``folder``; returns its volumes and warnings. Raises FlrError."""
    ct = replace(read_ct(path, series=series), name=folder.name)
    given: dict[Structure, Mask] = {s: read_mask(p, ct, s) for s, p in masks.items()}
    result = cascade.run(ct, given, on_step=lambda step: note(f"  {step}"))
    return write_plan(result, folder, _request(path, masks))


def _cases(inputs: Sequence[Path], series: str | None, failed: dict[Path, str]) -> list[Path]:
    """The cases of the inputs; an input that is none goes into ``failed``. Raises ImageError where two share a name."""
    usable = []
    for path in inputs:
        try:
            find_cases([path])
            usable.append(path)
        except ImageError as error:
            failed[path] = str(error)
            note(f"failed: {error}")
    return find_cases(usable, series) if usable else []


def _request(path: Path, masks: Mapping[Structure, Path]) -> dict[str, Any]:
    """What is asked for one case: the files, with size and time, so that a plan of other files is never taken for it."""

    def stamp(file: Path) -> list[object]:
        parts = files_below(file) if file.is_dir() else [file] if file.is_file() else []
        return [
            str(file.resolve()),
            sum(p.stat().st_size for p in parts),
            max((p.stat().st_mtime_ns for p in parts), default=0),
        ]

    return {"ct": stamp(path), **{s.value: stamp(mask) for s, mask in masks.items()}}


def _is_planned(folder: Path, request: dict[str, Any], cascade: Cascade) -> bool:
    """True if the folder holds the plan of this request by these models. Raises SettingsError where it holds another one's."""
    report = folder / REPORT_NAME
    if not report.is_file():
        return False
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        before, models = content.get("request"), {s: m["weights_sha256"] for s, m in content.get("models", {}).items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        before, models = None, {}
    if before != request:
        raise SettingsError(
            f"{folder} holds the plan of other files (another CT, or other given masks); use another --out, or --force to replace it"
        )
    for stage, weights in models.items():
        if cascade.identity(stage_named(stage))["weights_sha256"] != weights:
            raise SettingsError(f"{folder} was planned by another {stage} model; use another --out, or --force to replace it")
    return True


def volume_line(volumes: Volumes) -> str:
    """``liver .. ml, crlm .. ml, FLR .. ml (.. %)``."""
    return f"liver {volumes.liver_ml:.0f} ml, crlm {volumes.crlm_ml:.1f} ml, {flr_line(volumes)}"


def flr_line(volumes: Volumes) -> str:
    """``FLR <n> ml (<p> %)``: remnant with its tumours, and its share of the parenchyma without tumours."""
    share = "undefined" if math.isnan(volumes.flr_fraction) else f"{100 * volumes.flr_fraction:.1f}"
    return f"FLR {volumes.flr_ml:.0f} ml ({share} %)"
