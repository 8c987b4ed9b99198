"""CPU seconds until something happens: of ``import flrplan``, of ``flrplan --help``, of a wrong option, and until ``flrplan plan`` computes.

    python benchmark/bench_start.py                 # a minute; a fresh process each, in turns; the least of five counts

``import torch`` and the import of nnU-Net's predictor are measured beside them: what a plan cannot do without. A plan computes once its CT
is read and its first network is loaded. Prints each, its share of its limit, and the ratio to ``import torch``.
Exit status: 0, or 1 where a limit is not kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from flrplan.image import Geometry, write_volume
from script import at_least, run_script

TORCH = "import torch"
PLAN = "flrplan plan CT, until it computes"
CT_NAME = "ct.nii.gz"
_COMMAND = "from flrplan.cli import main; main(%s)"
SIDES = {
    "import flrplan": "import flrplan",
    "flrplan --help": _COMMAND % ["--help"],
    "flrplan plan --wrong": _COMMAND % ["plan", "--wrong"],
    PLAN: (
        "import sys; from flrplan.engine import cascade\n"
        "cascade.Cascade.run = lambda self, *_, **__: (self.identity(cascade.CASCADE[0]), sys.exit())\n"
        + _COMMAND
        % ["plan", CT_NAME, "--out", "out", "--device", "cpu"]
    ),
    TORCH: TORCH,
    "import nnU-Net's predictor": "import nnunetv2.inference.predict_from_raw_data",
}
LIMITS_SECONDS = {"import flrplan": 0.3, "flrplan --help": 0.5, "flrplan plan --wrong": 0.5, PLAN: 5.0}


def write_ct(path: Path) -> None:
    """A CT of 16 x 16 x 8 voxels, which no network sees."""
    write_volume(
        path, np.random.default_rng(0).integers(-1000, 200, (8, 16, 16), np.int16), Geometry((16, 16, 8), (2.0, 2.0, 5.0))
    )


def cpu_seconds(code: str, folder: Path) -> float:
    """User and system time of a fresh Python that runs ``code`` in ``folder``."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    rounds = parser.parse_args().rounds
    least = dict.fromkeys(SIDES, float("inf"))
    with tempfile.TemporaryDirectory() as name:
        write_ct(Path(name) / CT_NAME)
        for _ in range(rounds):
            for side, code in SIDES.items():
                least[side] = min(least[side], cpu_seconds(code, Path(name)))
    for side, seconds in least.items():
        limit = LIMITS_SECONDS.get(side)
        kept = f"{seconds / limit:4.0%} of {limit} s" if limit else " " * 12
        sys.stdout.write(f"{side:36} {seconds:6.2f} s  {kept:14} {seconds / least[TORCH]:6.2f} x torch\n")
    return int(any(least[side] > limit for side, limit in LIMITS_SECONDS.items()))


if __name__ == "__main__":
    run_script(main)
