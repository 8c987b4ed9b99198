"""``flrplan plan`` on a folder: seconds and peak memory after each case, beside the same cases read, computed and written one by one.

    python benchmark/many_cases.py --cases 12 --size medium --out W

Synthetic cases, planned by the demo models, each way in a process of its own. Writes W/many_cases.json. docs/speed.md has figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flrplan.cohort import make_case
from flrplan.cohort.settings import CaseSize
from flrplan.engine import DEMO_NAME, MODEL_ROOT
from flrplan.files import link, make_writable, write_json
from flrplan.hardware import peak_memory_bytes
from flrplan.image import write_volume
from script import at_least, run_script


def write_cases(folder: Path, count: int, size: str, distinct: int) -> None:
    """``<folder>/case<n>.nii.gz``; from ``distinct`` on, the same again under other names."""
    for number in range(count):
        path = folder / f"case{number:03d}.nii.gz"
        if path.exists():
            continue
        if number < distinct:
            case = make_case(57, number, size)
            write_volume(path, case.hu_zyx, case.geometry)
        else:
            link(folder / f"case{number % distinct:03d}.nii.gz", path)


def plan_all(folder: Path, out: Path, overlap: bool) -> None:
    """Plans the folder in this process; writes what it took after each case to ``<out>.json``."""
    from flrplan.api import many
    from flrplan.cli import main
    from flrplan.planning import Plan

    started, rows = time.perf_counter(), list[dict[str, Any]]()
    save: Callable[..., None] = Plan.save

    def saved(self: Plan, folder: str | os.PathLike[str]) -> None:
        save(self, folder)
        times = os.times()
        used = {"seconds": time.perf_counter() - started, "cpu_s": times.user + times.system}
        rows.append({**used, "peak_bytes": peak_memory_bytes()})
        write_json(out.with_suffix(".json"), rows)  # after each case: a run that is stopped leaves what it had

    def one_by_one(
        cases: Sequence[Any], read: Callable[..., Any], compute: Callable[..., Any], write: Callable[..., Any]
    ) -> None:
        for case in cases:
            made = compute(case, lambda case=case: read(case))
            if made is not None:
                write(case, made)

    Plan.save = saved  # type: ignore[method-assign]
    if not overlap:
        many.overlapped = one_by_one
    models = str(MODEL_ROOT / DEMO_NAME)
    main(["plan", str(folder), "--out", str(out), "--models", models, "--device", "cpu", "--force"])


def main() -> int:
    """Measures both ways and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=at_least(1), default=12)
    parser.add_argument("--size", choices=[size.value for size in CaseSize], default="medium")
    parser.add_argument(
        "--distinct",
        type=at_least(1),
        default=4,
        help="so many cases are generated, the others are the same again (default: 4)",
    )
    parser.add_argument("--way", choices=("overlapped", "one_by_one"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.out / f"{arguments.cases}_{arguments.size}_{arguments.distinct}"
    if arguments.way:
        plan_all(folder, arguments.out / arguments.way, arguments.way == "overlapped")
        return 0
    make_writable(arguments.out, "give another --out")
    write_cases(folder, arguments.cases, arguments.size, arguments.distinct)
    report = {}
    for way in ("one_by_one", "overlapped"):
        command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = report[way] = json.loads((arguments.out / f"{way}.json").read_text())
        first, last = rows[0]["peak_bytes"], rows[-1]["peak_bytes"]
        sys.stdout.write(
            f"{way}: {len(rows)} cases in {rows[-1]['seconds']:.0f} s, {rows[-1]['cpu_s']:.0f} s of CPU; peak memory after the first "
            f"{first / 1e9:.2f} GB, after the last {last / 1e9:.2f} GB ({last / first:.3f})\n"
        )
    write_json(arguments.out / "many_cases.json", report)
    return 0


if __name__ == "__main__":
    run_script(main)
