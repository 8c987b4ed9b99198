"""Redo only what changed: the full cascade beside what is left of it after an edit or with another option, in one warm process.

    python benchmark/redo.py --ct DICOM_OR_FILE --out W     # a CT of yours
    python benchmark/redo.py --slices 240 --out W           # synthetic, 512 x 512 x 240

Each row is one call of ``flrplan.plan`` on the path of the CT, reading and plan among it; the ratio is to the full cascade of the same run,
which is made once more at the end, so that other work on the machine shows. Writes W/redo.json. docs/speed.md has figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

import flrplan
from bench_plan import write_case
from flrplan.anatomy import Structure
from flrplan.engine import DEMO_NAME, MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.engine.cache import digest_of_array
from flrplan.files import make_writable, write_json
from flrplan.hardware import keep_freed_memory
from flrplan.planning import Plan
from script import at_least, run_script

LIVER, CRLM = Structure.LIVER, Structure.CRLM


def edited(mask: np.ndarray[Any, Any], within: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """The mask with a block of ``size`` voxels inverted in the middle of ``within``."""
    z, y, x = (int(n) for n in np.median(np.argwhere(within), axis=0))
    mask = mask.copy()
    block = tuple(slice(n - size // 2, n + size - size // 2) for n in (z, y, x))
    mask[block] ^= within[block]
    return mask


def main() -> int:
    """Measures, prints the table, writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ct", type=Path, help="default: the case of benchmark/bench_plan.py")
    parser.add_argument("--slices", type=at_least(8), default=240)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    store = ModelStore("no models of ours", demo=MODEL_ROOT / DEMO_NAME)
    cascade = Cascade(store, CascadeSettings(device=arguments.device))
    make_writable(arguments.out, "give another --out")
    made = arguments.out / f"{arguments.slices}_slices"
    path = arguments.ct or made / "ct"
    if arguments.ct is None and not path.exists():
        write_case(made, arguments.slices)
    keep_freed_memory()
    flrplan.plan(path, cascade=cascade)  # imports, models
    store.cache.clear()
    rows: dict[str, dict[str, Any]] = {}

    def measure(name: str, call: Callable[[], Plan]) -> Plan:
        wall, cpu = perf_counter(), process_time()
        plan = call()
        rows[name] = {
            "wall_s": perf_counter() - wall,
            "cpu_s": process_time() - cpu,
            "stages_s": dict(plan.result.seconds),
            "kept_mb": store.cache.size_bytes / 1e6,
        }
        return plan

    full = measure("full cascade", lambda: flrplan.plan(path, cascade=cascade))
    liver, crlm = full.masks[LIVER], full.masks[CRLM]
    measure("another option", lambda: flrplan.plan(path, cascade=cascade, height_cm=180, weight_kg=80))
    measure("CRLM edited", lambda: flrplan.plan(path, cascade=cascade, crlm=edited(crlm, liver, 9)))
    measure(
        "liver and CRLM given, CRLM edited",
        lambda: flrplan.plan(path, cascade=cascade, liver=liver, crlm=edited(crlm, liver, 7)),
    )
    measure("liver edited", lambda: flrplan.plan(path, cascade=cascade, liver=edited(liver, liver, 9)))
    store.cache.clear()
    measure("full cascade again", lambda: flrplan.plan(path, cascade=cascade))
    whole = {key: (rows["full cascade"][key] + rows["full cascade again"][key]) / 2 for key in ("wall_s", "cpu_s")}
    started = process_time()
    digest_of_array(full.ct.array_zyx, full.ct.geometry)
    for mask in (liver, crlm):
        digest_of_array(mask)
    size = full.ct.geometry.size_xyz
    report = {"ct": list(size), "digests_cpu_s": process_time() - started, "rows": rows}
    write_json(arguments.out / "redo.json", report)
    lines = ["| what | wall, s | full / this | CPU, s | full / this | kept, MB |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        times = [f"{row[key]:.1f} | {whole[key] / row[key]:.1f}" for key in ("wall_s", "cpu_s")]
        lines.append(f"| {name} | {times[0]} | {times[1]} | {row['kept_mb']:.0f} |")
    lines.append(f"\n{' x '.join(map(str, size))} voxels; digests of CT, liver and CRLM {report['digests_cpu_s']:.2f} s of CPU")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    run_script(main)
