"""The cascade beside nnU-Net's own commands, in one run, on the same weights and the same CT: time, memory, agreement, what bounds it.

    python benchmark/speed.py --size demo --out speed                     # CPU: minutes
    python benchmark/speed.py --size demo default-24 --device cuda --out speed
    python benchmark/speed.py --slices 24 48 96 --sides cold --out speed  # how the time grows with the voxels
    python benchmark/speed.py --size demo --ct DICOM_OR_FILE --out speed  # a CT of yours, without a truth

Sides, each in processes of its own (benchmark/speed_side.py), one after the other:
chain      nnUNetv2_predict_from_modelfolder once a stage, all folds, no mirroring, one worker each to read and to write; in between, files
           by our stage input
predictor  nnU-Net's predictor class, all stages in one process, on arrays
cold       flrplan plan as a process
warm       the same in a process that has planned the case once before
single     cold with the first fold alone: the time of a distilled network; only where it is asked for
Ours run with each --engine: ``cold fast`` and so on.

Writes <out>/<size>.json as soon as a side is measured, and <out>/<size>.png. docs/speed.md says what each figure is.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from flrplan.anatomy import Mask, Structure, structure_mask, to_compartments
from flrplan.cohort import make_case
from flrplan.engine import DEMO_NAME, MODEL_ROOT
from flrplan.errors import FlrError, SettingsError
from flrplan.files import make_writable, write_json
from flrplan.hardware import choose_device
from flrplan.image import CT, Geometry, read_ct, read_label_map, write_label_map, write_volume
from flrplan.method import CASCADE, build_stage_input
from flrplan.method.engine import engine_named
from flrplan.nnunet.model import ModelFolder
from script import run_script
from speed_report import OURS, STRUCTURES, compare, reached, table, write_chart
from speed_side import largest_piece
from speed_work import gemm_peak, machine, stage_work
from widened import write_widened

SIDES = ("chain", "predictor", "cold", "warm", "single")
BY_DEFAULT = SIDES[:-1]
NARROW_MODELS = Path(__file__).resolve().with_name("speed_models")
"""Trained narrow networks of nnU-Net's default plan, ``<size>/<stage>/nnunet``; how they were trained: docs/speed.md."""
SIDE_SCRIPT = Path(__file__).resolve().with_name("speed_side.py")
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Size:
    """What is timed. case: (seed, index, size) of the cohort. slices, slice_mm: its nearest slices at this spacing, around the liver.

    default_plan: with the models of :data:`NARROW_MODELS`, widened; else the demo models.
    """

    case: tuple[int, int, str]
    folds: int
    slices: int | None = None
    slice_mm: float | None = None
    default_plan: bool = False


FULL = (3, 35, "full")
"""512 x 512 x 164 voxels of 0.85 x 0.85 x 1.25 mm, portal venous, the whole liver; no model has seen it."""
SIZES = {
    "small": Size((3, 35, "small"), 1, 16, 7.5),
    "demo": Size(FULL, 2, 82, 2.5),
    "default-24": Size(FULL, 5, 24, 7.5, default_plan=True),
    "default-80": Size(FULL, 1, 80, 2.5, default_plan=True),
}


@dataclass(frozen=True)
class Bench:
    """What every side gets."""

    ct: Path
    models: Path
    device: str
    engine: str = "fast"


SHOWN_MM = 180.0
"""The height that --slices cuts into slices."""


def in_slices(number: int) -> Size:
    """The CT of size demo in so many slices over the same height: how the time grows with the voxels. Raises: SettingsError below 8."""
    if number < 8:
        raise SettingsError(f"--slices: expected 8 or more, got {number}")
    return replace(SIZES["demo"], slices=number, slice_mm=SHOWN_MM / number)


def make_image(size: Size) -> tuple[NDArray[np.int16], NDArray[np.uint8], Geometry]:
    """The synthetic case of a size: HU and planning map ``(Z, Y, X)``, their grid."""
    case = make_case(*size.case)
    hu, label, geometry = case.hu_zyx, case.planning_zyx, case.geometry
    if size.slices and size.slice_mm:
        shown = np.flatnonzero(label.any(axis=(1, 2)))
        apart = size.slice_mm / geometry.spacing_mm[2]
        wanted = (shown[0] + shown[-1]) / 2 + (np.arange(size.slices) - (size.slices - 1) / 2) * apart
        nearest = np.clip(np.rint(wanted), 0, len(hu) - 1).astype(int)
        hu, label = hu[nearest], label[nearest]
        x, y, z = geometry.origin_mm
        geometry = Geometry(
            (*geometry.size_xyz[:2], size.slices),
            (*geometry.spacing_mm[:2], size.slice_mm),
            (x, y, z + float(wanted[0]) * geometry.spacing_mm[2]),
            geometry.direction,
        )
    return hu, label, geometry


def copy_folds(model: ModelFolder, folds: int, target: Path) -> None:
    """The same model with its first folds only."""
    left_out = shutil.ignore_patterns(*(f"fold_{k}" for k in model.folds[folds:]))
    shutil.copytree(model.path, target, ignore=left_out)


def make_models(name: str, size: Size, folder: Path) -> list[str]:
    """Writes the models of a size into ``<folder>/<stage>/nnunet``; returns what a reader of the figures must know of them."""
    untrained = []
    for stage in CASCADE:
        target = folder / stage.name / "nnunet"
        if not size.default_plan:
            copy_folds(ModelFolder.open(MODEL_ROOT / DEMO_NAME / stage.name / "nnunet"), size.folds, target)
        elif not write_widened(NARROW_MODELS / name / stage.name / "nnunet", target, size.folds):
            untrained.append(stage.name)
    notes = []
    if untrained:
        notes.append(
            f"random weights for {', '.join(untrained)} that call every voxel foreground: their times are real, and longer than a liver's; "
            f"their agreement says nothing (to train narrow networks: benchmark/train_narrow.py --size {name})"
        )
    if size.default_plan and len(untrained) < len(CASCADE):
        notes.append(
            "networks of nnU-Net's default widths, widened from narrow ones that were trained for minutes so that their function stays: the "
            "agreement of the sides is real, that with the truth is those minutes'; the folds are the same weights and always agree"
        )
    return notes


# --- running a side ---------------------------------------------------------------------------------------------------------------


@dataclass
class Used:
    """What processes took. peak_bytes: resident memory of the whole tree at its highest, what they share (libraries) counted once."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0


@contextmanager
def _watched(used: Used, pid: int) -> Iterator[None]:
    """Samples the memory of a process and all below it while the block runs."""
    done = threading.Event()

    def sample() -> None:
        root = psutil.Process(pid)
        while not done.wait(SAMPLE_SECONDS):
            own, shared = 0, 0
            with suppress(psutil.Error):  # processes end while they are looked at
                for process in (root, *root.children(recursive=True)):
                    with suppress(psutil.Error):
                        memory = process.memory_info()
                        own += memory.rss - memory.shared
                        shared = max(shared, memory.shared)
            used.peak_bytes = max(used.peak_bytes, own + shared)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run_process(side: str, arguments: Sequence[object], work: Path) -> tuple[Used, dict[str, Any]]:
    """Runs :mod:`speed_side`; what it used, and what it wrote. Raises: RuntimeError with the end of its output where it failed.

    ``OMP_NUM_THREADS`` and its like are taken from its environment: nnU-Net's command ignores them, so all sides do.
    """
    work.mkdir(parents=True, exist_ok=True)
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in threads}
    environment |= {name: str(work) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    result, log = work / "side.json", work / "log.txt"
    used = Used()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with log.open("w") as output:
        command = [sys.executable, str(SIDE_SCRIPT), side, str(result), *map(str, arguments)]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        with _watched(used, process.pid):
            code = process.wait()
    used.wall_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if code:
        raise RuntimeError(f"{side} ended with {code}: {' | '.join(log.read_text(errors='replace').strip().splitlines()[-3:])}")
    return used, json.loads(result.read_text(encoding="utf-8"))


def run_chain(bench: Bench, out: Path) -> dict[str, Any]:
    """nnU-Net's commands with files in between; those are written and read here, and counted as ``between``."""
    total, between, cpu_between = Used(), 0.0, 0.0
    seconds: dict[str, float] = {}
    stages, masks = {}, dict[Structure, Mask]()
    device_peak = 0
    own = time.perf_counter(), time.process_time()

    def pause() -> None:
        nonlocal between, cpu_between
        between += time.perf_counter() - own[0]
        cpu_between += time.process_time() - own[1]

    ct = read_ct(bench.ct)
    for stage in CASCADE:
        folder = ModelFolder.open(bench.models / stage.name / "nnunet")
        given = build_stage_input(ct.array_zyx, ct.geometry, masks, stage, folder.input)
        source, target = out / stage.name / "in", out / stage.name / "out"
        source.mkdir(parents=True)
        for index, channel in enumerate(given.channels_czyx):
            image = given.geometry.image(channel.astype(np.int16))
            sitk.WriteImage(image, str(source / f"case_{index:04d}.nii.gz"), useCompression=True)
        pause()
        arguments = ["-i", source, "-o", target, "-m", folder.path, "-f", *folder.folds, "--disable_tta", "-npp", 1, "-nps", 1]
        used, inside = run_process("command", [*arguments, "-device", bench.device, "--disable_progress_bar"], out / stage.name)
        own = time.perf_counter(), time.process_time()
        stages[stage.name] = {**used.__dict__, "network_calls": inside["network_calls"]}
        total.wall_s += used.wall_s
        total.cpu_s += used.cpu_s
        total.peak_bytes = max(total.peak_bytes, used.peak_bytes)
        device_peak = max(device_peak, inside["device_peak_bytes"] or 0)
        for phase, value in inside["seconds"].items():
            seconds[phase] = seconds.get(phase, 0.0) + value
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(target / "case.nii.gz"))) > 0
        mask = given.restore(found)
        masks[stage.target] = largest_piece(mask) if stage.target is Structure.LIVER else mask
    label, _ = to_compartments(masks[Structure.LIVER], masks[Structure.CRLM], masks[Structure.FLR])
    write_label_map(out / "planning.nii.gz", label, ct.geometry)
    pause()
    seconds["between"] = between
    return {
        "wall_s": total.wall_s + between,
        "cpu_s": total.cpu_s + cpu_between,
        "peak_bytes": total.peak_bytes,
        "device_peak_bytes": device_peak or None,
        "network_calls": sum(s["network_calls"] for s in stages.values()),
        "seconds": seconds,
        "stages": stages,
    }


def run_one(side: str, bench: Bench, out: Path) -> dict[str, Any]:
    """The other sides."""
    side = "cold" if side == "single" else side
    if side == "cold":
        arguments: list[object] = ["plan", bench.ct, "--out", out / "plans", "--models", bench.models, "--device", bench.device]
        arguments += ["--engine", bench.engine]
    else:
        arguments = [bench.ct, bench.models, bench.device, *([bench.engine] if side == "warm" else []), out]
    used, inside = run_process(side, arguments, out)
    if side == "cold":  # a user writes no second map to compare
        used.wall_s, used.cpu_s = used.wall_s - inside["compared_wall_s"], used.cpu_s - inside["compared_cpu_s"]
    if side == "warm":  # its second time, without the start of the process
        used.wall_s, used.cpu_s = inside["wall_s"], inside["cpu_s"]
    return {**used.__dict__, **{key: inside[key] for key in ("device_peak_bytes", "network_calls", "seconds")}}


def needed(bench: Bench, label: NDArray[np.uint8]) -> dict[str, Any]:
    """The work of each stage where the stages before it answered ``label``."""
    ct: CT = read_ct(bench.ct)
    masks = {s: structure_mask(label, s) for s in STRUCTURES}
    stages = {}
    for stage in CASCADE:
        folder = ModelFolder.open(bench.models / stage.name / "nnunet")
        given = build_stage_input(ct.array_zyx, ct.geometry, masks, stage, folder.input)
        stages[stage.name] = stage_work(folder, given, given.crop(masks[Structure.LIVER]))
    return {
        "stages": stages,
        "gflop": sum(s["gflop"] for s in stages.values()),
        "gflop_with_liver": sum(s["gflop_with_liver"] for s in stages.values()),
    }


# --- one size --------------------------------------------------------------------------------------------------------------------------


def measure(
    name: str, sides: Sequence[str], engines: Sequence[str], device: torch.device, given_ct: Path | None, out: Path, work: Path
) -> dict[str, Any]:
    """Measures one size; the report is written after each side. A side that fails is named in it, the others go on."""
    size = SIZES[name] if name in SIZES else in_slices(int(name.removeprefix("slices-")))
    for engine in engines:
        engine_named(engine)
    if given_ct is not None and size.default_plan:
        raise SettingsError("a CT of yours is planned by the demo models; use --ct with --size demo")
    if given_ct is not None and name not in SIZES:
        raise SettingsError("--slices is of the synthetic CT; leave it out, or --ct")
    make_writable(out, "give another --out")
    truth = None
    if given_ct is None:
        path = work / "case.nii.gz"
        hu, truth, geometry = make_image(size)
        write_volume(path, hu, geometry)
    else:
        path = given_ct.resolve()
    notes = make_models(name, size, work / "models")
    bench = Bench(path, work / "models", device.type)
    if "single" in sides:
        make_models(name, replace(size, folds=1), work / "first_folds")
    ct = read_ct(path)
    extent = " x ".join(map(str, ct.geometry.size_xyz))
    report: dict[str, Any] = {
        "size": name,
        "image": f"{extent} of {' x '.join(f'{s:.3g}' for s in ct.geometry.spacing_mm)} mm",
        "command": ["python", "benchmark/speed.py", *sys.argv[1:]],
        "machine": machine(device),
        "gemm_peak": gemm_peak(device),
        "sides": {},
        "notes": notes,
    }
    labels: dict[str, NDArray[np.uint8]] = {}
    for side, engine in {f"{s} {e}".strip(): e for s in sides for e in (engines if s in OURS else [""])}.items():
        folder = work / side
        sys.stderr.write(f"{name}: {side}\n")
        try:
            folder.mkdir()
            models = work / "first_folds" if side.startswith("single") else bench.models
            ours = replace(bench, engine=engine, models=models)
            report["sides"][side] = run_chain(bench, folder) if side == "chain" else run_one(side.split()[0], ours, folder)
            labels[side] = read_label_map(folder / "planning.nii.gz")[0].astype(np.uint8)
        except (FlrError, RuntimeError, OSError, StopIteration, KeyError) as error:
            report["sides"][side] = {"failed": f"{type(error).__name__}: {error}"}
        good = {k: v for k, v in report["sides"].items() if "failed" not in v}
        report |= compare(good, labels, truth)
        reference = next(iter(labels.values()), truth)
        if "needed" not in report and reference is not None and structure_mask(reference, Structure.LIVER).any():
            report["needed"] = needed(bench, reference)
        if "needed" in report:
            reached(report)
        write_json(out / f"{name}.json", report)
    write_chart(report, out / f"{name}.png")
    return report


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["demo"])
    parser.add_argument(
        "--slices",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help=f"in place of --size: the CT of size demo in so many slices over {SHOWN_MM:g} mm, one after the other",
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(BY_DEFAULT))
    parser.add_argument(
        "--engine",
        nargs="+",
        default=["fast"],
        metavar="NAME",
        help="how ours runs the networks: docs/speed.md (default: fast)",
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda (default: cpu)")
    parser.add_argument(
        "--ct", type=Path, metavar="DICOM_OR_FILE", help="this CT in place of the synthetic one, with the demo models"
    )
    parser.add_argument("--out", type=Path, default=Path("speed"), help="<size>.json and <size>.png are written here")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the sizes; returns 1 where a size or a side failed."""
    arguments = build_parser().parse_args(argv)
    failed = False
    for name in [f"slices-{number}" for number in arguments.slices] or arguments.size:
        try:
            with tempfile.TemporaryDirectory() as folder:
                report = measure(
                    name,
                    arguments.sides,
                    arguments.engine,
                    choose_device(arguments.device),
                    arguments.ct,
                    arguments.out,
                    Path(folder),
                )
        except FlrError as error:
            sys.stderr.write(f"{name}: {error}\n")
            failed = True
            continue
        sys.stdout.write(table(report))
        sys.stdout.flush()
        failed |= any("failed" in side for side in report["sides"].values())
    return int(failed)


if __name__ == "__main__":
    run_script(main)
